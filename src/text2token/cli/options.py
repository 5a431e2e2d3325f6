"""Options that several verbs share."""

from __future__ import annotations

import functools
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

from text2token.utils.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

BACKBONE = ("attention", "pooling", "template", "prefix", "suffix", "max_length")
"""Settings of a recipe that make an encoder of a backbone."""
CORRECTION = ("correction", "keep_from", "keep_to")
"""Those that correct its vectors."""

_Command = Callable[..., Any]

text_column_option = click.option(
    "--text-column", default="text", show_default=True, help="of .jsonl, .csv, .parquet and hub corpora"
)
overwrite_option = click.option("--overwrite", is_flag=True, help="replace the output that is there")
json_option = click.option("--json", "as_json", is_flag=True, help="machine-readable output")
bf16_option = click.option(
    "--bf16", is_flag=True, help="encode in half the time where the hardware has it; scores move by hundredths"
)


def recipe_options(*names: str) -> Callable[[_Command], _Command]:
    """``--recipe FILE`` and one option for each recipe setting (or the ones named); all arrive as ``recipe``."""
    from text2token.settings.recipe import Recipe  # which brings transformers along, for a second

    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def load(recipe: Path | None, overrides: dict[str, Any], **arguments: Any) -> Any:
            return command(recipe=Recipe.load(recipe, **overrides), **arguments)

        file = click.Path(exists=True, dir_okay=False, path_type=Path)
        help_text = "YAML file of the settings below; options here override it"
        every = names or tuple(Recipe.model_fields)
        return click.option("--recipe", type=file, help=help_text)(setting_options("overrides", Recipe, *every)(load))

    return decorate


def setting_options(argument: str, settings: type[BaseModel], *names: str) -> Callable[[_Command], _Command]:
    """One option for each of the settings named; those that are given arrive as a dictionary, ``argument``."""
    fields = {name: settings.model_fields[name] for name in names}

    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def collect(**arguments: Any) -> Any:
            given = {name: arguments.pop(name) for name in fields}
            chosen = {name: value for name, value in given.items() if value is not None}
            return command(**{argument: chosen}, **arguments)

        for name, field in reversed(fields.items()):
            flag = "--" + name.replace("_", "-")
            default = "" if field.default is None else f"  [default: {field.default}]"
            kind: dict[str, Any] = {"metavar": "VALUE"}
            if field.annotation is bool:
                flag, kind = f"{flag}/--no-{flag[2:]}", {"is_flag": True}
            elif get_origin(field.annotation) is Literal:
                kind = {"type": click.Choice(get_args(field.annotation))}
            collect = click.option(flag, name, default=None, help=f"{field.description}{default}", **kind)(collect)
        return collect

    return decorate


def refuse_settings(model: str, given: Iterable[str]) -> None:
    """Settings of an untrained backbone say nothing to a model that is finished.

    Raises:
        UserError: There are any.
    """
    if wrong := sorted(given):
        raise UserError(f"--{wrong[0].replace('_', '-')} is for untrained backbones: '{model}' is as it is.")


def echo_json(value: Any) -> None:
    """Print JSON, readable by people; in UTF-8 on any terminal, and half of a surrogate pair as its escape."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2).encode(errors="backslashreplace"))


def quiet_libraries() -> None:
    """Silence what the libraries below us say to developers; our own bars and sentences are what a user reads."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    for bars in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE", "DISABLE_TQDM"):  # of the hub, of most, of bm25s
        os.environ.setdefault(bars, "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    import datasets
    import transformers

    for name in ("transformers", "sentence_transformers", "datasets", "accelerate", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)  # after the imports, which set levels themselves
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()

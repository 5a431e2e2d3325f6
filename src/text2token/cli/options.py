"""Options that several verbs share."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from text2token.recipe import Recipe

Command = TypeVar("Command", bound=Callable[..., Any])


def recipe_options(command: Command) -> Command:
    """``--recipe FILE`` and one option for each recipe setting, by the same name; all arrive as ``recipe``."""

    def collect(**arguments: Any) -> Any:
        given = {name: arguments.pop(name) for name in Recipe.model_fields}
        overrides = {name: value for name, value in given.items() if value is not None}
        return command(recipe=Recipe.load(arguments.pop("recipe"), **overrides), **arguments)

    collect.__doc__ = command.__doc__
    collect.__name__ = command.__name__
    collect.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for name, field in reversed(Recipe.model_fields.items()):
        flag = "--" + name.replace("_", "-")
        is_flag = field.annotation is bool
        flag = f"{flag}/--no-{flag[2:]}" if is_flag else flag
        help_text = f"{field.description}  [default: {field.default}]"
        collect = click.option(
            flag, name, default=None, is_flag=is_flag, help=help_text, metavar=None if is_flag else "VALUE"
        )(collect)
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    return click.option("--recipe", type=file, help="YAML file of the settings below; options given here override it")(
        collect
    )  # type: ignore[return-value]


def quiet_libraries() -> None:
    """Silence what the libraries below us say to developers; our own bars and sentences are what a user reads."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in ("transformers", "sentence_transformers", "datasets", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()

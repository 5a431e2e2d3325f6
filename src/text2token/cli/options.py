"""Options that several verbs share, and helpers for their output."""

from __future__ import annotations

import functools
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

from text2token.settings.choices import Precision
from text2token.utils.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from text2token.data.corpus import Corpus
    from text2token.model.embedder import Embedder
    from text2token.search import Index

BACKBONE = ("attention", "pooling", "template", "prefix", "suffix", "max_length")
"""Settings of a recipe that make an encoder of a language model."""
CORRECTION = ("correction", "keep_from", "keep_to")
"""Settings of a recipe that correct dense vectors."""
_NO_PATHS = {
    "": "the name is empty.",
    "-": "'-' does not mean standard input or output here; name a path, or write ./- for a file of this name.",
}
Command = Callable[..., Any]


class _LocalPath(click.Path):
    """A path on this machine. An empty name would mean the current folder, and a URL a folder that is called ``s3:``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in _NO_PATHS:
            self.fail(_NO_PATHS[value], param, ctx)
        if isinstance(value, str) and "://" in value:
            self.fail(f"'{value}' is an address; name a path on this machine.", param, ctx)
        from text2token.utils.files import local_path

        return super().convert(local_path(value), param, ctx)


path_type = _LocalPath(path_type=Path)


class _Place(click.ParamType[Path]):
    """A local path, or a URL that fsspec knows, as ``s3://bucket/folder``."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from text2token.utils.places import open_place

        if value in _NO_PATHS:
            self.fail(_NO_PATHS[value], param, ctx)
        return open_place(value)


place_type = _Place()
file_type = _LocalPath(path_type=Path, dir_okay=False)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
text_column_option = click.option(
    "--text-column",
    default="text",
    show_default=True,
    help="Column of the texts in .jsonl, .csv, .parquet and hub data.",
)
strict_option = click.option(
    "--strict", is_flag=True, help="Refuse a row without text.  [default: such rows are skipped and counted]"
)
batch_size_option = click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Texts in a batch; long texts make smaller ones.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    help="Number format of the model. bf16 takes about half the time where the hardware has it, and auto takes it there. "
    "An existing index keeps its own.  [default: auto]",
)
_bf16_option = click.option("--bf16", is_flag=True, hidden=True, help="Old name of --precision bf16.")
partial_option = click.option(
    "--partial",
    is_flag=True,
    help="Search without the shards of a database that do not answer, and say which they are.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def split_names(_: click.Context, __: click.Parameter, joined: str | None) -> list[str]:
    """Return the names in an option that separates them by commas; none if it is not given. It is a callback of click."""
    return [name for part in (joined or "").split(",") if (name := part.strip())]


def output_option(help_text: str, kind: click.ParamType[Any] = path_type) -> Callable[[Command], Command]:
    """Make the required option ``--output``; its value is a path."""
    return click.option("--output", "-o", type=kind, required=True, help=help_text)


def grouped(
    argument: str, build: Callable[..., Any], *options: Callable[[Command], Command]
) -> Callable[[Command], Command]:
    """Make several options arrive as one argument: ``build`` is called with their values by name."""

    def names() -> list[str]:
        def probe() -> None: ...

        for option in options:
            option(probe)
        return [parameter.name for parameter in getattr(probe, "__click_params__", [])]

    def decorate(command: Command) -> Command:
        def collect(**arguments: Any) -> Any:
            group = {name: arguments.pop(name) for name in own}
            return command(**{argument: build(**group)}, **arguments)

        own = names()
        decorated: Command = functools.wraps(command)(collect)
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


@dataclass(frozen=True)
class CorpusReader:
    """The options that say how the texts of a corpus are read."""

    text_column: str
    strict: bool

    def open(self, name: str | tuple[str, ...]) -> Corpus:
        """Open a corpus by the name that the user gave."""
        from text2token.data.corpus import open_corpus

        return open_corpus(name, text_column=self.text_column, strict=self.strict)


@dataclass(frozen=True)
class Encoding:
    """The options that say how texts are encoded. They change the speed, and the vectors only by rounding."""

    batch_size: int = 32
    precision: Precision | None = None

    @classmethod
    def of_options(cls, precision: Precision | None, *, bf16: bool, batch_size: int = 32) -> Encoding:
        """Return the options of a command line, on which ``--bf16`` is the old name of ``--precision bf16``.

        Raises:
            UserError: Both are given, and they differ.
        """
        if bf16:
            if precision not in (None, "bf16"):
                raise UserError(
                    f"--bf16 is the old name of --precision bf16, and --precision {precision} is given too."
                )
            click.echo("Note: --bf16 is now --precision bf16; the next version removes the old name.", err=True)
        return cls(batch_size, "bf16" if bf16 else precision)

    def apply(self, embedder: Embedder) -> Embedder:
        """Set the options on an embedder, and return it.

        Raises:
            UserError: bf16 is asked for, and the hardware does not have it.
        """
        embedder.use_precision(self.precision or "auto")
        embedder.batch_size = self.batch_size
        return embedder

    def change(self, index: Index) -> None:
        """Set the options that differ from the defaults on the model of an index, which has a precision of its own.

        Raises:
            UserError: bf16 is asked for, and the hardware does not have it.
        """
        if self != Encoding():
            index.embedder.batch_size = self.batch_size
        if self.precision is not None:
            index.embedder.use_precision(self.precision)


corpus_options = grouped("reader", CorpusReader, text_column_option, strict_option)
precision_options = grouped("encoding", Encoding.of_options, precision_option, _bf16_option)
encoding_options = grouped("encoding", Encoding.of_options, batch_size_option, precision_option, _bf16_option)


def recipe_options(*names: str) -> Callable[[Command], Command]:
    """Add ``--recipe FILE`` and one option for each recipe setting (or for the named ones); all arrive as ``recipe``."""
    from text2token.settings.recipe import Recipe

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def load(recipe: Path | None, overrides: dict[str, Any], **arguments: Any) -> Any:
            return command(recipe=Recipe.load(recipe, **overrides), **arguments)

        file = click.Path(exists=True, dir_okay=False, path_type=Path)
        help_text = "YAML file with any of the settings below. Options on the command line override it."
        shown = names or tuple(Recipe.model_fields)
        return click.option("--recipe", type=file, help=help_text)(setting_options("overrides", Recipe, *shown)(load))

    return decorate


def setting_options(argument: str, settings: type[BaseModel], *names: str) -> Callable[[Command], Command]:
    """Add one option for each named setting; those that the user gives arrive as a dictionary called ``argument``."""
    fields = {name: settings.model_fields[name] for name in names}

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def collect(**arguments: Any) -> Any:
            given = {name: arguments.pop(name) for name in fields}
            chosen = {name: value for name, value in given.items() if value is not None}
            return command(**{argument: chosen}, **arguments)

        for name, field in reversed(fields.items()):
            flag = as_flag(name)
            default = "" if field.default is None else f"  [default: {field.default}]"
            kind: dict[str, Any] = {"metavar": "VALUE"}
            if field.annotation is bool:
                flag, kind = f"{flag}/--no-{flag[2:]}", {"is_flag": True}
            elif get_origin(field.annotation) is Literal:
                kind = {"type": click.Choice(get_args(field.annotation))}
            described = (field.description or "")[:1].upper() + (field.description or "")[1:]
            collect = click.option(flag, name, default=None, help=f"{described}{default}", **kind)(collect)
        return collect

    return decorate


def as_flag(name: str) -> str:
    """The option of a setting: ``batch_size`` is ``--batch-size``."""
    return "--" + name.replace("_", "-")


def refuse_settings(model: str, given: Iterable[str]) -> None:
    """Refuse settings that turn a language model into an encoder, when the model is an embedder already.

    Raises:
        UserError: A setting is given.
    """
    if wrong := sorted(given):
        raise UserError(
            f"{as_flag(wrong[0])} only applies to language models, and '{model}' is an embedder already: leave it out."
        )


def echo_json(value: Any) -> None:
    """Print indented JSON in UTF-8 on any terminal. A lone surrogate, which UTF-8 cannot encode, becomes its escape."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2).encode(errors="backslashreplace"))


def quiet_libraries() -> None:
    """Turn off the progress bars and the messages of other libraries, so that only ours reach the user."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    for bars in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE", "DISABLE_TQDM"):  # the hub, most libraries, bm25s
        os.environ.setdefault(bars, "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    import datasets
    import transformers

    for name in ("transformers", "sentence_transformers", "datasets", "accelerate", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)  # must follow the imports, which set levels themselves
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()

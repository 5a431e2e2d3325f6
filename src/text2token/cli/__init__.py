"""The command line: one file for each verb."""

from __future__ import annotations

import gc
import importlib
import io
import sys
from typing import Any

import click

from text2token.cli.errors import COMMAND, DEBUG, error_border, library_notes
from text2token.utils.cache import use_writable_caches
from text2token.utils.processes import require_one_process

_VERBS = {
    "backbones": "List the packaged language models.",
    "targets": "Build the token targets of a corpus and show examples.",
    "fit": "Train an embedder from a language model and unlabelled texts.",
    "encode": "Write the dense or sparse vectors of the texts in a file.",
    "explain": "Show the vector of a text as weighted tokens.",
    "align": "Measure how well embeddings decode to the tokens of their texts.",
    "spectrum": "Show what training changed in the principal components of a backbone.",
    "dynamics": "Show whether both spaces of an embedder improved together during training.",
    "adapt": "Correct the vectors of a language model without training.",
    "distill": "Train a student without a transformer that imitates a model.",
    "index": "Build or change a search index: sparse, dense and BM25 vectors.",
    "search": "Search an index and show the tokens that matched.",
    "serve": "Serve a model and its indexes over HTTP, with an explorer in the browser.",
    "evaluate": "Score a model on MTEB(eng, v2) or on your own data.",
    "baseline": "Train a baseline: SimCSE, LLM2Vec or TSDAE.",
    "compare": "Compare evaluation results, with intervals, tables and a figure.",
    "demo": "Run everything on the docstrings of this Python environment.",
}
_ON_SEVERAL_PROCESSES = "fit"  # the one verb that torchrun and accelerate launch may start
_COLLECTED_AFTER = 50_000  # new objects; importing torch and transformers makes millions that all stay
_DEBUG_HELP = "Show the traceback of an error. May also stand after the verb."


def _set_debug(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.meta[DEBUG] = True


class _Verbs(click.Group):
    """Loads a verb's file only when the verb is called, and prints every error as one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _VERBS:
            return None
        command: click.Command = getattr(importlib.import_module(f"text2token.cli.{name}"), f"{name}_command")
        if not any(parameter.name == "debug" for parameter in command.params):
            debug = click.Option(["--debug"], is_flag=True, expose_value=False, is_eager=True, callback=_set_debug)
            debug.hidden = True
            command.params.append(debug)
        ctx.meta[COMMAND] = command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name != _ON_SEVERAL_PROCESSES:
            require_one_process(f"{ctx.command_path} {name}")
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a sign that the terminal does not know is no error
        with error_border(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        gc.set_threshold(_COLLECTED_AFTER)  # at the default of 700, collections take a tenth of the start-up
        with error_border(ctx), library_notes():
            use_writable_caches()
            return super().invoke(ctx)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="text2token")
@click.option(
    "--debug", is_flag=True, expose_value=False, envvar="TEXT2TOKEN_DEBUG", callback=_set_debug, help=_DEBUG_HELP
)
def main() -> None:
    """Raw text in, a readable embedder out.

    \b
    Example:
      text2token fit notes.txt --output model
      text2token explain model "The cat sat on the mat."
    """

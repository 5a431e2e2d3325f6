"""``text2token explain``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from text2token.cli.explain_tables import tables
from text2token.cli.options import (
    CorpusReader,
    Encoding,
    corpus_options,
    echo_json,
    file_type,
    grouped,
    json_option,
    precision_options,
    quiet_libraries,
)
from text2token.utils.errors import UserError
from text2token.utils.files import check_file, output_lock

if TYPE_CHECKING:
    from text2token.analysis.explain_sections import Section
    from text2token.model.embedder import Embedder

    Explained = tuple[dict[str, Any], list[Section]]  # a row of the JSON, and the sections that show it

_STOP_WORDS = "en"
_SAMPLE = 256  # texts of --corpus: they give a mean to about 6 % of the spread, within a minute on a laptop


@dataclass(frozen=True)
class Other:
    """The options that name a second model, and the decoding heads of both."""

    against: str | None
    head: str | None
    against_head: str | None


@click.command("explain")
@click.argument("model")
@click.argument("texts", nargs=-1)
@click.option(
    "--pair", "pairs", nargs=2, multiple=True, metavar="TEXT TEXT", help="Show the tokens that make two texts similar."
)
@click.option(
    "--instruction", "instructions", multiple=True, help="Put this before each text, and show what it changes."
)
@grouped(
    "other",
    Other,
    click.option("--against", metavar="OTHER_MODEL", help="Show the tokens of another model beside those of MODEL."),
    click.option(
        "--head", metavar="BACKBONE", help="Language model whose head decodes MODEL.  [default: found from MODEL]"
    ),
    click.option("--against-head", metavar="BACKBONE", help="Language model whose head decodes OTHER_MODEL."),
)
@click.option(
    "--corpus", help="Texts whose mean logits are subtracted, for a model that has no corpus mean of its own."
)
@corpus_options
@precision_options
@grouped(
    "shown",
    dict,
    click.option(
        "--tokens", "-k", "k", type=click.IntRange(1), default=10, show_default=True, help="Number of tokens to show."
    ),
    click.option("--filtered", is_flag=True, help="Leave out stop words, punctuation and pieces of characters."),
    click.option(
        "--stop-words",
        default=_STOP_WORDS,
        show_default=True,
        help="Languages of the stop words for --filtered, such as 'en,de', or 'none'.",
    ),
)
@json_option
@click.option("--html", type=file_type, help="Write an HTML page that needs no network.")
def explain_command(
    model: str,
    texts: tuple[str, ...],
    pairs: tuple[tuple[str, str], ...],
    instructions: tuple[str, ...],
    other: Other,
    corpus: str | None,
    reader: CorpusReader,
    encoding: Encoding,
    shown: dict[str, Any],
    as_json: bool,
    html: Path | None,
) -> None:
    """Show the vector of each text as its aligned tokens, heaviest first.

    MODEL is a folder that 'text2token fit' wrote, a language model, or a SentenceTransformer, which is decoded by the head of the
    language model that it was made from. The weight of a token is its logit minus the mean logit over a corpus. That mean is
    stored in the folders of fit and adapt; for other models give --corpus. Without a mean, and with --head, weights are plain
    logits. Some language models give all tokens plain logits below 0.

    An instruction is passed as prompt= of sentence-transformers: it stands before the text, inside the template of the model. A
    pair is explained by the part that each token has in the cosine of the two logit vectors.

    \b
    Example:
      text2token explain model "The cat sat on the mat."
      text2token explain model "The cat sat on the mat." --against smollm2-135m --json
      text2token explain model "What a film!" --instruction "Is this positive or negative?" --filtered
      text2token explain model --pair "I like apple" "I do not like apple" --against smollm2-135m --html pair.html
    """
    if not texts and not pairs:
        raise click.UsageError("Missing argument 'TEXTS...', or --pair")
    _refuse_unused(other, instructs_nothing=bool(instructions and not texts), shown=shown)
    if html:
        check_file(html)
    quiet_libraries()
    from text2token.analysis.explain_sections import write_explanation

    texts, instructions = _clean(texts), _clean(instructions, "instruction")
    cleaned_pairs = [(_clean([first])[0], _clean([second])[0]) for first, second in pairs]
    embedders = {model: _open(model, other.head, encoding)}
    if other.against:
        same = other.against == model
        beside = f"{model}, read by {other.against_head or 'its own head'}" if same else other.against
        embedders[beside] = _open(other.against, other.against_head, encoding)
    if corpus:
        _learn_means(embedders, corpus, reader)
    explained = [
        *_explain_texts(embedders, texts, instructions, **shown),
        *_explain_pairs(embedders, cleaned_pairs, **shown),
    ]
    rows, sections = [row for row, _ in explained], [section for _, own in explained for section in own]
    if html:
        with output_lock(html):
            write_explanation(sections, html)
    if as_json:
        echo_json(rows)
    elif html:
        click.echo(f"Open {html} to see the explanation.")
    else:
        console = Console()
        for section in sections:
            console.print(*tables(section, console))


def _refuse_unused(other: Other, *, instructs_nothing: bool, shown: dict[str, Any]) -> None:
    """Refuse options that would change nothing."""
    if instructs_nothing:
        raise UserError("--instruction stands before TEXTS, not before a --pair: give a text, or leave it out.")
    if other.against_head and not other.against:
        raise UserError("--against-head decodes the model of --against: give that, too, or use --head.")
    if shown["stop_words"] != _STOP_WORDS and not shown["filtered"]:
        raise UserError("--stop-words is only used together with --filtered.")


def _explain_texts(
    embedders: dict[str, Embedder], texts: tuple[str, ...], instructions: tuple[str, ...], **shown: Any
) -> Iterator[Explained]:
    from text2token.analysis.explain import explain_instructions
    from text2token.analysis.explain_sections import instruction_sections, text_section

    if not texts:
        return
    aligned = {name: embedder.explain(texts, **shown) for name, embedder in embedders.items()}
    for number, text in enumerate(texts):
        row: dict[str, Any] = {"text": text, "tokens": {name: tokens[number] for name, tokens in aligned.items()}}
        if not instructions:
            yield row, [text_section(text, row["tokens"])]
            continue
        found = {name: explain_instructions(e, text, instructions, **shown) for name, e in embedders.items()}
        row["instructions"] = {name: _as_json(explanations) for name, explanations in found.items()}
        yield row, [section for name in found for section in instruction_sections(text, name, found[name])]


def _explain_pairs(embedders: dict[str, Embedder], pairs: list[tuple[str, str]], **shown: Any) -> Iterator[Explained]:
    from text2token.analysis.explain import explain_pair
    from text2token.analysis.explain_sections import pair_section

    for pair in pairs:
        found = {name: explain_pair(embedder, pair, **shown) for name, embedder in embedders.items()}
        yield {"pair": pair, "readings": _as_json(found)}, [pair_section(pair, name, found[name]) for name in found]


def _clean(texts: Sequence[str], noun: str = "text") -> tuple[str, ...]:
    """Clean texts in the way in which corpora are cleaned. Refuse an empty one, for it has no tokens to show."""
    from text2token.data.text import clean

    cleaned = tuple(clean(text) for text in texts)
    if "" in cleaned:
        raise UserError(f"The {noun} '{texts[cleaned.index('')]}' is empty: leave it out.")
    return cleaned


def _open(name: str, head: str | None, encoding: Encoding) -> Embedder:
    """Open a model with its corpus mean, or with the head of another model, for which the stored mean does not hold."""
    from text2token.model.embedder import Embedder

    return encoding.apply(Embedder.open(name, head=head or "original", corrected=head is None))


def _learn_means(embedders: dict[str, Embedder], corpus: str, reader: CorpusReader) -> None:
    """Give the models that have no corpus mean the one of a corpus, in place. Refuse a corpus that none of them needs."""
    from text2token.data.corpus import sample
    from text2token.model.head import mean_logits

    without = [embedder for embedder in embedders.values() if embedder.mean_logits is None]
    if not without:
        names = " and ".join(f"'{name}'" for name in embedders)
        raise UserError(f"--corpus gives a mean to models that have none of their own: leave it out for {names}.")
    drawn = sample(reader.open(corpus), _SAMPLE, seed=0)
    for embedder in without:
        embedder.mean_logits = mean_logits(embedder.decoding_head, embedder.embed(drawn, progress=True))


def _as_json(explanations: dict[str, Any]) -> dict[str, Any]:
    """Explanations as JSON objects."""
    return {
        name: {
            key: [token._asdict() for token in value] if isinstance(value, list) else value
            for key, value in explanation._asdict().items()
        }
        for name, explanation in explanations.items()
    }

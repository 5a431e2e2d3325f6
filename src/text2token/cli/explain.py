"""``text2token explain``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.bar import Bar
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from text2token.cli.options import echo_json, json_option, quiet_libraries, text_column_option

if TYPE_CHECKING:
    from text2token.analysis.explain import Section
    from text2token.model.embedder import Embedder

    Explained = tuple[dict[str, Any], list[Section]]  # a row of the JSON, and how it is drawn

_BAR = 20  # characters of the longest bar
_SAMPLE = 256  # texts of --corpus: settle a mean to about 6 % of the spread, within a minute on a laptop


@click.command("explain")
@click.argument("model")
@click.argument("texts", nargs=-1)
@click.option(
    "--pair", "pairs", nargs=2, multiple=True, metavar="TEXT TEXT", help="which tokens make two texts similar"
)
@click.option("--instruction", "instructions", multiple=True, help="show what it changes, put before each text")
@click.option("--against", metavar="OTHER_MODEL", help="show another model's tokens beside")
@click.option("--head", metavar="BACKBONE", help="language model whose head decodes MODEL  [default: found by itself]")
@click.option("--against-head", metavar="BACKBONE", help="the same for OTHER_MODEL")
@click.option("--corpus", help="texts whose mean logits are the zero of a model that knows none")
@text_column_option
@click.option("--tokens", "-k", type=click.IntRange(1), default=10, show_default=True, help="how many")
@click.option(
    "--filtered", is_flag=True, help="meaningful tokens only: no stop words, punctuation or pieces of characters"
)
@click.option("--stop-words", default="en", show_default=True, help="languages of --filtered, as 'en,de', or 'none'")
@json_option
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path), help="write a page that opens without a network"
)
def explain_command(
    model: str,
    texts: tuple[str, ...],
    pairs: tuple[tuple[str, str], ...],
    instructions: tuple[str, ...],
    against: str | None,
    head: str | None,
    against_head: str | None,
    corpus: str | None,
    text_column: str,
    tokens: int,
    filtered: bool,
    stop_words: str,
    as_json: bool,
    html: Path | None,
) -> None:
    """Read the vector of each text as its aligned tokens, heaviest first.

    MODEL is a folder that 'text2token fit' wrote, an untrained backbone, or a SentenceTransformer, whose head is that of the
    language model it was made from. The weight of a token is its logit above the mean of the training corpus; where no such
    mean is known, weights are plain logits, of some backbones all below 0, unless --corpus gives one.

    An instruction is what sentence-transformers takes as prompt=: it stands before the text, inside the model's template. A
    pair is read by what each token of the vocabulary adds to the cosine of the two texts' logits, and what keeps them apart.

    \b
    Example:
      text2token explain model "The cat sat on the mat."
      text2token explain model "The cat sat on the mat." --against smollm2-135m --json
      text2token explain model "What a film!" --instruction "Is this positive or negative?" --filtered
      text2token explain model --pair "I like apple" "I do not like apple" --against smollm2-135m --html pair.html
    """
    if not texts and not pairs:
        raise click.UsageError("Missing argument 'TEXTS...', or --pair")
    quiet_libraries()
    from text2token.analysis.explain import write_explanation

    texts, instructions = _clean(texts), _clean(instructions)
    cleaned_pairs = [(_clean([first])[0], _clean([second])[0]) for first, second in pairs]
    embedders = {model: _open(model, head, corpus, text_column)}
    if against:
        beside = against if against != model else f"{against}, read by {against_head or 'its own head'}"
        embedders[beside] = _open(against, against_head, corpus, text_column)
    shown = {"k": tokens, "filtered": filtered, "stop_words": stop_words}
    explained = [
        *_explain_texts(embedders, texts, instructions, **shown),
        *_explain_pairs(embedders, cleaned_pairs, **shown),
    ]
    rows, sections = [row for row, _ in explained], [section for _, own in explained for section in own]
    if html:
        write_explanation(sections, html)
    if as_json:
        echo_json(rows)
    elif html:
        click.echo(f"{html} shows what the vectors say.")
    else:
        for section in sections:
            Console().print(_table(section))


def _explain_texts(
    embedders: dict[str, Embedder], texts: tuple[str, ...], instructions: tuple[str, ...], **shown: Any
) -> Iterator[Explained]:
    from text2token.analysis.explain import explain_instructions, instruction_sections, text_section

    if not texts:
        return
    aligned = {name: embedder.explain(texts, **shown) for name, embedder in embedders.items()}
    for number, text in enumerate(texts):
        row: dict[str, Any] = {"text": text, "tokens": {name: tokens[number] for name, tokens in aligned.items()}}
        if not instructions:
            yield row, [text_section(text, row["tokens"])]
            continue
        read = {name: explain_instructions(e, text, instructions, **shown) for name, e in embedders.items()}
        row["instructions"] = {name: _plain(readings) for name, readings in read.items()}
        yield row, [section for name in read for section in instruction_sections(text, name, read[name])]


def _explain_pairs(embedders: dict[str, Embedder], pairs: list[tuple[str, str]], **shown: Any) -> Iterator[Explained]:
    from text2token.analysis.explain import explain_pair, pair_section

    for pair in pairs:
        read = {name: explain_pair(embedder, pair, **shown) for name, embedder in embedders.items()}
        yield {"pair": pair, "readings": _plain(read)}, [pair_section(pair, name, read[name]) for name in read]


def _clean(texts: Sequence[str]) -> tuple[str, ...]:
    from text2token.data.corpus import Corpus

    return tuple(Corpus.from_texts(texts)) if texts else ()


def _open(name: str, head: str | None, corpus: str | None, text_column: str) -> Embedder:
    from text2token.data.corpus import open_corpus, sample
    from text2token.model.embedder import Embedder
    from text2token.model.folders import is_whole
    from text2token.model.head import mean_logits

    whole = head is None and is_whole(Path(name))
    embedder = Embedder.open(name, head=head or "original", corrected=whole)
    if corpus and embedder.mean_logits is None:
        drawn = sample(open_corpus(corpus, text_column=text_column), _SAMPLE, seed=0)
        embedder.mean_logits = mean_logits(embedder.decoding_head, embedder.embed(drawn, progress=True))
    return embedder


def _plain(readings: dict[str, Any]) -> dict[str, Any]:
    """Readings as JSON objects, their parts by name."""
    return {
        name: {
            key: [token._asdict() for token in value] if isinstance(value, list) else value
            for key, value in reading._asdict().items()
        }
        for name, reading in readings.items()
    }


def _table(section: Section) -> Table:
    from text2token.utils.page import visible

    lines = [*section.texts, *([section.note] if section.note else [])]
    table = Table(title=Text("\n".join(lines)), title_justify="left")
    for heading in section.columns:
        table.add_column(Text(heading))
        table.add_column("weight", justify="right")
        table.add_column(max_width=_BAR)
    for rank in range(max(map(len, section.columns.values()))):
        cells: list[RenderableType] = []
        for tokens in section.columns.values():
            token, weight = tokens[rank] if rank < len(tokens) else ("", 0.0)
            if weight:
                bar = Bar(tokens[0][1], 0, weight) if weight > 0 else ""
                cells += [Text(visible(token)), f"{weight:.2f}", bar]
            else:
                cells += ["", "", ""]
        table.add_row(*cells)
    return table

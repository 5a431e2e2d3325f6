"""Explanations for readers: lists of tokens side by side, one HTML page that opens anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from text2token.analysis.explain import InstructedReading, PairReading, TokenPart
from text2token.utils.page import bars, page_environment, write_page

_MILLION = 1e6

Tokens = Sequence[tuple[str, float]]


class Section(NamedTuple):
    """Lists of tokens and weights under their headings, about one or two texts."""

    texts: tuple[str, ...]
    note: str
    columns: Mapping[str, Tokens]


def text_section(text: str, tokens: Mapping[str, Tokens]) -> Section:
    """Aligned tokens of a text, one list per model."""
    return Section((text,), "", tokens)


def instruction_sections(text: str, model: str, readings: Mapping[str, InstructedReading]) -> Iterator[Section]:
    """Aligned tokens under each instruction, then what rose and fell under it."""
    columns = {name or "no instruction": reading.tokens for name, reading in readings.items()}
    yield Section((text,), f"{model}, under each instruction", columns)
    for name, reading in readings.items():
        if name:
            changes = {"rose by": _parts(reading.rose), "fell by": _parts(reading.fell)}
            yield Section((text,), f"{model}, “{name}” against no instruction", changes)


def pair_section(pair: tuple[str, str], model: str, reading: PairReading) -> Section:
    """What two texts have in common and what not, in millionths: a vocabulary has some ten thousand tokens."""
    return Section(
        pair,
        f"{model}: cosine of the token logits {reading.cosine:.3f}, dot product {reading.dot:.4g}; parts in millionths",
        {
            "alike": _parts(reading.alike, _MILLION),
            "in the first": _parts(reading.in_first, _MILLION),
            "in the second": _parts(reading.in_second, _MILLION),
        },
    )


def write_explanation(sections: Sequence[Section], file: Path) -> None:
    """Write the page, whole or not at all."""
    drawn = [
        (section, {heading: list(bars(tokens, " ".join(section.texts))) for heading, tokens in section.columns.items()})
        for section in sections
    ]
    write_page(page_environment().get_template("explain.html.j2").render(sections=drawn), file)


def _parts(tokens: Sequence[TokenPart], scale: float = 1.0) -> Tokens:
    return [(token.token, scale * token.part) for token in tokens]

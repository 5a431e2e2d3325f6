"""Arranges explanations for a table, or for an HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from text2token.analysis.explain import InstructionExplanation, PairExplanation, TokenPart
from text2token.utils.files import write_text
from text2token.utils.page import bars, page_environment

_MILLION = 1e6  # the parts of a pair are small numbers: tens of thousands of tokens share one cosine

Tokens = Sequence[tuple[str, float]]
"""Tokens and their weights."""


class Section(NamedTuple):
    """A part of a table or page: lists of tokens under their headings, about one or two texts."""

    texts: tuple[str, ...]
    note: str
    columns: Mapping[str, Tokens]


def text_section(text: str, tokens: Mapping[str, Tokens]) -> Section:
    """Aligned tokens of a text, one column per model."""
    return Section((text,), "", tokens)


def instruction_sections(
    text: str, model: str, explanations: Mapping[str, InstructionExplanation]
) -> Iterator[Section]:
    """First the aligned tokens under each instruction, then for each instruction the tokens that rose and fell."""
    columns = {name or "no instruction": explanation.tokens for name, explanation in explanations.items()}
    yield Section((text,), f"{model}, under each instruction", columns)
    for name, explanation in explanations.items():
        if name:
            changes = {"rose by": _parts(explanation.rose), "fell by": _parts(explanation.fell)}
            yield Section((text,), f"{model}, “{name}” against no instruction", changes)


def pair_section(pair: tuple[str, str], model: str, explanation: PairExplanation) -> Section:
    """The tokens that two texts share and those that separate them; parts are in millionths."""
    cosine, dot = f"{explanation.cosine:.3f}", f"{explanation.dot:.4g}"
    return Section(
        pair,
        f"{model}: cosine of the token logits {cosine}, dot product {dot}; parts in millionths",
        {
            "alike": _parts(explanation.alike, _MILLION),
            "in the first": _parts(explanation.in_first, _MILLION),
            "in the second": _parts(explanation.in_second, _MILLION),
        },
    )


def write_explanation(sections: Sequence[Section], file: Path) -> None:
    """Write an HTML page that needs no network."""
    drawn = [
        (section, {heading: list(bars(tokens, " ".join(section.texts))) for heading, tokens in section.columns.items()})
        for section in sections
    ]
    write_text(file, page_environment().get_template("explain.html.j2").render(sections=drawn))


def _parts(tokens: Sequence[TokenPart], scale: float = 1.0) -> Tokens:
    return [(token.token, scale * token.part) for token in tokens]

"""Figures for print and page: one style, written as SVG and PNG."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure

from text2token.atomic import replacing

_STYLE = {
    "svg.hashsalt": "text2token",  # equal figures are equal files
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e6eb",
    "axes.axisbelow": True,
    "font.size": 10,
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw inside this block; a user's own matplotlib settings stay out."""
    with style.context(["default", _STYLE]):
        yield


def picture(figure: Figure, kind: str) -> bytes:
    """The figure as ``svg`` (without dates, so that equal figures are equal files) or ``png`` (150 dots an inch)."""
    buffer = io.BytesIO()
    with figure_style():
        plain = dict.fromkeys(("Creator", "Date", "Format", "Type")) if kind == "svg" else None
        figure.savefig(buffer, format=kind, dpi=150, metadata=plain)
    return buffer.getvalue()


def write_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write ``folder/name.svg`` and ``folder/name.png``, each whole or not at all."""
    for kind in ("svg", "png"):
        with replacing(folder / f"{name}.{kind}") as part:
            part.write_bytes(picture(figure, kind))

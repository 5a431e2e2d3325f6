"""Figures for print and page: one style, written as SVG and PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure

from text2token.utils.files import atomic_write

_STYLE = {
    "svg.hashsalt": "text2token",  # equal figures are equal files
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e6eb",
    "axes.axisbelow": True,
    "font.size": 10,
}
_UNDATED = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # of metadata, what differs from run to run


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw inside this block; a user's own matplotlib settings stay out."""
    with style.context(["default", _STYLE]):
        yield


def inline_svg(figure: Figure) -> str:
    """The ``svg`` element alone, in the style around, without ids that another figure of the page could have."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=_UNDATED)
    svg = buffer.getvalue()
    return re.sub(r'<g id="[^"]*"', "<g", svg[svg.index("<svg") :])


def write_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write ``folder/name.svg`` and ``folder/name.png`` (150 dots per inch), each whole or not at all."""
    for kind, metadata in {"svg": _UNDATED, "png": None}.items():
        with atomic_write(folder / f"{name}.{kind}") as part, figure_style():
            figure.savefig(part, format=kind, dpi=150, metadata=metadata)

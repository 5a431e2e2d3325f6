"""One style and one palette for all figures, and the files they are written to: SVG and PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from text2token.utils.files import atomic_write

INK = "#222833"
MUTED = "#59616e"
BLUES = ("#1f4e79", "#4f8fc0", "#a9cbe3")  # ordered by lightness, so that they differ in grey print
ORANGE = "#e3a13c"  # differs from the blues for people who confuse red and green, and in grey print
GREY = "#d5d8dc"
PALETTE = (BLUES[0], ORANGE, BLUES[1], "#8b95a3", "#b5482a", "#3c8d7a", "#8f6bb1")  # colours of lines, in this order

_STYLE = {
    "axes.prop_cycle": cycler(color=PALETTE),
    "svg.hashsalt": "text2token",  # the same figure gives the same file
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e6eb",
    "axes.axisbelow": True,
    "font.size": 10,
}
_UNDATED = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # metadata that would differ from run to run


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw with our style inside this block, whatever the user's own matplotlib settings are."""
    with style.context(["default", _STYLE]):
        yield


def inline_svg(figure: Figure) -> str:
    """Return the ``svg`` element, without ids that could also occur in another figure of the same page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=_UNDATED)
    svg = buffer.getvalue()
    return re.sub(r'<g id="[^"]*"', "<g", svg[svg.index("<svg") :])


def write_figure(figure: Figure, folder: Path, name: str, formats: Sequence[str] = ("svg", "png")) -> None:
    """Write a figure to ``folder/NAME.FORMAT`` in each format. A PNG has 150 dots per inch."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in formats:
        with atomic_write(folder / f"{name}.{kind}") as part, figure_style():
            figure.savefig(part, format=kind, dpi=150, metadata=_UNDATED if kind == "svg" else None)

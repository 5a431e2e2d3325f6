"""A comparison as Markdown, as one HTML page without other files, and as a figure. Here scores are shown × 100."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from text2token.evaluation.comparison import Comparison
from text2token.utils.figures import MUTED, PALETTE, figure_style, inline_svg, write_figure
from text2token.utils.files import local_path, write_json, write_text
from text2token.utils.page import page_environment

_HEIGHT = 0.42  # inches per task


def write_comparison(comparison: Comparison, output: str | Path) -> None:
    """Write ``compare.md``, ``compare.html``, ``compare.svg``, ``compare.png`` and ``compare.json`` to a folder."""
    output = local_path(output)
    output.mkdir(parents=True, exist_ok=True)
    figure = draw(comparison)
    with figure_style():
        svg = inline_svg(figure)
    context = {
        "comparison": comparison,
        "columns": comparison.measured + comparison.published,
        "first": comparison.measured[0],
        "others": comparison.measured[1:],
        "svg": svg,
    }
    environment = page_environment()
    for kind in ("md", "html"):
        write_text(output / f"compare.{kind}", environment.get_template(f"compare.{kind}.j2").render(context))
    write_figure(figure, output, "compare")
    write_json(output / "compare.json", comparison.to_json())


def draw(comparison: Comparison) -> Figure:
    """One line per task, one dot per model with its interval, the means below: further right is better."""
    rows = comparison.tasks + comparison.means
    columns = comparison.measured + comparison.published
    shades = colormaps["turbo"](np.linspace(0, 1, len(columns)))
    colours = list(PALETTE) if len(columns) <= len(PALETTE) else [to_hex(shade) for shade in shades]
    with figure_style():
        figure = Figure(figsize=(9.0, 1.4 + _HEIGHT * len(rows)), layout="constrained")
        axes = figure.add_subplot(xlabel="score × 100, with 95 % interval; further right is better")
        spread = 0.5 / max(len(columns) - 1, 1)
        for number, column in enumerate(columns):
            own = [(place, row) for place, row in enumerate(rows) if column in row.scores]
            for place, row in own:
                if column in row.intervals:
                    height = place + (number - (len(columns) - 1) / 2) * spread
                    axes.plot(
                        [100 * end for end in row.intervals[column]],
                        (height, height),
                        color=colours[number],
                        linewidth=1.5,
                    )
            heights = [place + (number - (len(columns) - 1) / 2) * spread for place, _ in own]
            published = column in comparison.published
            axes.plot(
                [100 * row.scores[column] for _, row in own],
                heights,
                linestyle="none",
                marker="D" if published else "o",
                markersize=5,
                color=colours[number],
                markerfacecolor="white" if published else colours[number],
                label=column,
            )
        axes.spines["left"].set_visible(False)
        axes.axhline(len(comparison.tasks) - 0.5, color=MUTED, linewidth=1)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return figure

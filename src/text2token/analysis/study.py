"""Alignment of several embedders side by side: one table, one figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from text2token.analysis.categories import CATEGORIES
from text2token.utils.figures import figure_style, write_figure
from text2token.utils.files import write_json
from text2token.utils.provenance import record

RATES = {"hit": "Hit@{k}", "local": "local", "global": "global"}
_RATE_COLOURS = ("#1f4e79", "#4f8fc0", "#a9cbe3")  # ordered by lightness: they stay apart in grey print
_CATEGORY_COLOURS = ("#1f4e79", "#8fb7d8", "#e3a13c", "#d5d8dc")

Studied = Mapping[str, Mapping[str, Any]]
"""Results of :func:`text2token.analysis.alignment.align` by the name of the embedder."""


def write_study(studied: Studied, settings: Mapping[str, Any], output: Path) -> None:
    """Write ``align.json``, which says where its numbers come from, ``align.svg`` and ``align.png`` to a folder."""
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "align.json", {**record(), "settings": dict(settings), "models": dict(studied)})
    write_figure(draw(studied, settings["k"]), output, "align")


def draw(studied: Studied, k: int) -> Figure:
    """Left the alignment rates of each embedder, right what kinds of tokens its first aligned tokens are."""
    names = list(studied)
    rows = np.arange(len(names))
    with figure_style():
        figure = Figure(figsize=(10.0, 1.6 + 0.55 * len(names)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for number, (key, label) in enumerate(RATES.items()):
            values = [studied[name]["rates"][key] for name in names]
            left.barh(rows + 0.26 * (number - 1), values, 0.24, color=_RATE_COLOURS[number], label=label.format(k=k))
        start = np.zeros(len(names))
        for category, colour in zip(CATEGORIES, _CATEGORY_COLOURS, strict=True):
            shares = np.array([studied[name]["categories"][category] for name in names])
            right.barh(rows, shares, 0.6, left=start, color=colour, label=category)
            start += shares
        for axes, title in (
            (left, "alignment rates"),
            (right, f"kinds among the first {k} aligned tokens, share of their mass"),
        ):
            axes.set_xlim(0, 1)
            axes.set_title(title, loc="left", fontsize=10)
            axes.grid(axis="y", visible=False)
            axes.legend(
                loc="upper center", bbox_to_anchor=(0.5, -0.12 - 0.1 / len(names)), ncols=4, frameon=False, fontsize=9
            )
        left.set_yticks(rows, names)
        left.invert_yaxis()
    return figure

"""Figures of a spectrum, drawn from the content of ``spectrum.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from text2token.analysis.metrics import CATEGORIES
from text2token.utils.figures import BLUES, INK, ORANGE, figure_style
from text2token.utils.page import visible

_FIRST, _REST = ORANGE, BLUES[0]
_RATES = {"hit": "Hit@10", "local": "local rate", "global": "global rate"}
_MARKERS = "osD^"
_SHOWN = 64  # components; the hundreds of others would be a flat line


def draw_variation(result: Mapping[str, Any]) -> Figure:
    """Draw the variation v_j of the first components, with its standard deviation over the texts."""
    rows = result["components"][:_SHOWN]
    with figure_style():
        figure = Figure(figsize=(7.0, 3.2), layout="constrained")
        axes = figure.add_subplot(xlabel="principal component of the base", ylabel="variation $v_j$ (± sd)")
        places, values = [row["component"] for row in rows], [row["variation"] for row in rows]
        axes.bar(places, values, color=[_FIRST] + [_REST] * (len(rows) - 1))
        axes.errorbar(places, values, [row["spread"] for row in rows], linestyle="none", ecolor=INK, elinewidth=0.6)
        axes.axhline(0, color=INK, linewidth=0.8)
    return figure


def draw_contribution(result: Mapping[str, Any]) -> Figure:
    """Draw the logits of each example's aligned tokens, split into the part of u₁ and the part of all other components."""
    rows = result["contribution"]
    texts = sorted({row["text"] for row in rows})
    with figure_style():
        figure = Figure(figsize=(7.0, 0.6 + 2.0 * len(texts)), layout="constrained")
        for place, axes in zip(texts, np.ravel(figure.subplots(len(texts), squeeze=False)), strict=True):
            own = [row for row in rows if row["text"] == place]
            ranks = np.arange(len(own))
            for shift, part, colour, label in ((-0.2, "first", _FIRST, "$u_1$"), (0.2, "rest", _REST, "all others")):
                axes.barh(ranks + shift, [row[part] for row in own], 0.38, color=colour, label=label)
            axes.set_yticks(ranks, [visible(row["token"]) for row in own], parse_math=False, fontsize=8)
            axes.invert_yaxis()
            axes.set_title(_short(result["contribution_texts"][place]), fontsize=9, loc="left", parse_math=False)
        axes.set_xlabel("part of the token logit")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    return figure


def draw_shift(result: Mapping[str, Any]) -> Figure:
    """Draw rates, categories and, if measured, STS along λ. Vertical lines mark v₁ and the shift to a mean of zero."""
    rows = result["shift_rows"]
    panels: list[tuple[str, Mapping[str, str]]] = [
        ("alignment rate", _RATES),
        ("share of aligned mass", {name: name for name in CATEGORIES}),
    ]
    if "sts" in rows[0]:
        panels.append(("STS, Spearman", {"sts": "base, shifted"}))
    with figure_style():
        figure = Figure(figsize=(7.0, 2.3 * len(panels)), layout="constrained")
        for axes, (label, lines) in zip(
            np.ravel(figure.subplots(len(panels), sharex=True, squeeze=False)), panels, strict=True
        ):
            for (key, name), marker in zip(lines.items(), _MARKERS, strict=False):
                values = [row[key] for row in rows]
                (line,) = axes.plot([row["shift"] for row in rows], values, marker=marker, markersize=4, label=name)
                if label != "share of aligned mass":
                    axes.axhline(result["tuned"][key], color=line.get_color(), linewidth=0.8, linestyle=":")
            for place, dashes in ((result["v1"], "--"), (result["zero"], "-.")):
                axes.axvline(place, color=INK, linewidth=0.8, linestyle=dashes)
            axes.set_ylabel(label)
            axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        axes.set_xlabel("λ in $h + λ u_1$ (dashed: $v_1$; dash-dotted: to a mean of zero; dotted: the tuned model)")
    return figure


def _short(text: str, limit: int = 90) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"

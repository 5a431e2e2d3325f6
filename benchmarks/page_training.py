"""The picture and the names of the page on training: scores against the tokens that the body has read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from contender_rows import NAMES
from contenders import CORRECTED
from text2token.utils.figures import MUTED, PALETTE, figure_style, write_figure


def context(result: Mapping[str, Any], figures: Path) -> dict[str, Any]:
    """Draw the figure and return what the template of the page reads."""
    rows = result["details"]["rows"]
    write_figure(draw(rows), figures, "curve", ("svg",))
    return {
        "result": result,
        "rows": rows,
        "names": NAMES,
        "measures": [*rows[0]["scores"]],
        "columns": [f"{size:,} tokens" for size in sorted({row["size"] for row in rows})],
        "by_variant": by_variant(rows),
    }


def by_variant(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Group the points into the lines of the curve, under their names for readers."""
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["size"]):
        lines.setdefault(NAMES[row["variant"]], []).append(row)
    return lines


def method(variant: str) -> str:
    """Return the name for readers of a variant without its correction."""
    return variant.removesuffix(CORRECTED)


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw each measure against the tokens, one line a variant. A baseline with our correction is dashed."""
    measures, sizes = [*rows[0]["scores"]], sorted({row["size"] for row in rows})
    colours = dict(zip(dict.fromkeys(map(method, by_variant(rows))), PALETTE, strict=False))
    with figure_style():
        figure = Figure(figsize=(3.2 * len(measures), 3.6), layout="constrained")
        for axes, measure in zip(figure.subplots(1, len(measures)), measures, strict=True):
            for name, points in by_variant(rows).items():
                axes.plot(
                    [point["tokens"] for point in points],
                    [point["scores"][measure] for point in points],
                    color=colours[method(name)],
                    marker="o",
                    linestyle="-" if name == method(name) else "--",
                    label=name,
                )
            axes.set(xscale="log", xlabel="tokens read in training", title=measure)
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axes.minorticks_off()
            axes.title.set_fontsize(10)
        figure.legend(
            *axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, labelcolor=MUTED, fontsize=9
        )
    return figure

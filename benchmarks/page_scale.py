"""The picture of the page on scale: what to choose for how many documents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from text2token.utils.figures import BLUES, INK, MUTED, ORANGE, figure_style, write_figure

ENGINES = (("embedded", 10**5, 3 * 10**6), ("postgres", 3 * 10**6, 5 * 10**7), ("milvus, qdrant", 5 * 10**7, 2 * 10**9))
"""What docs/scale.md recommends, as ranges of documents."""


def context(result: Mapping[str, Any], figures: Path) -> dict[str, Any]:
    """Draw the figure and return what the template of the page reads."""
    write_figure(draw(result["details"]["capacity"]["rows"]), figures, "scale", ("svg",))
    return {"result": result}


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw memory, latency and hours of encoding against documents, over the ranges of the engines."""
    with figure_style():
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.subplots()
        documents = [row["documents"] for row in rows]
        lines = {
            "memory for vectors, GB": [row["memory_gigabytes"] for row in rows],
            "sparse search over all shards, ms (p99)": [row["milliseconds"]["p99"] for row in rows],
            "hours of encoding, one GPU": [row["gpu_hours"] for row in rows],
            "hours of encoding, two CPU cores": [row["cpu_hours"] for row in rows],
        }
        for name, values in lines.items():
            axes.plot(documents, values, marker="o", label=name)
        for (name, start, end), shade in zip(ENGINES, (BLUES[2], ORANGE, BLUES[1]), strict=True):
            axes.axvspan(start, end, color=shade, alpha=0.18, linewidth=0)
            axes.text((start * end) ** 0.5, 1.02, name, transform=axes.get_xaxis_transform(), ha="center", color=INK)
        axes.set(xscale="log", yscale="log", xlim=(ENGINES[0][1], ENGINES[-1][2]), xlabel="documents")
        axes.legend(loc="upper left", labelcolor=MUTED, fontsize=9)
    return figure

"""The report of a fit: one HTML page that opens anywhere, without a network."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import style
from matplotlib.figure import Figure

from text2token.analysis.dynamics import REPRESENTATION, VOCABULARY
from text2token.settings.recipe import Recipe
from text2token.utils.figures import inline_svg
from text2token.utils.page import MISSING, bars, is_finite, page_environment, write_page

_MEASURES = {
    "target_loss_stage_1": ("Target loss on held-out texts, targets of stage 1", "lower is better"),
    "target_loss_stage_2": ("Target loss on held-out texts, targets of stage 2", "lower is better"),
    "overlap": ("Agreement of cosines with known overlaps of texts, Spearman × 100", "higher is better"),
    "pair_cosine": ("Mean cosine of random pairs, embeddings", "lower is better, 1 means collapse"),
    "pair_cosine_dense": ("Mean cosine of random pairs, dense vectors", "lower is better, 1 means collapse"),
}
_SPACES = ("local", *REPRESENTATION)  # a glance; 'text2token dynamics' draws all

# Placeholders: the page's CSS variables of these names take their place, so that figures follow light and dark mode.
_COLOURS = {"ink": "#000001", "muted": "#000002", "line": "#000003", "training": "#000004", "held-out": "#000005"}
_STYLE = {
    "svg.fonttype": "none",  # text stays text: selectable, and in the page's font
    "font.size": 10,
    "axes.facecolor": "none",
    "axes.edgecolor": _COLOURS["line"],
    "axes.labelcolor": _COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _COLOURS["line"],
    "grid.linewidth": 0.5,
    "text.color": _COLOURS["muted"],
    "xtick.color": _COLOURS["line"],
    "ytick.color": _COLOURS["line"],
    "xtick.labelcolor": _COLOURS["muted"],
    "ytick.labelcolor": _COLOURS["muted"],
}
_TRAINING: dict[str, Any] = {"color": _COLOURS["training"], "linewidth": 1.2}
_HELD_OUT: dict[str, Any] = {"color": _COLOURS["held-out"], "linewidth": 1.8, "marker": "o", "markersize": 3.5}


class Measure(NamedTuple):
    """A number of the embedder before and after the fit, in plain words."""

    name: str
    before: float | None
    after: float | None
    better: str


def write_report(run: Mapping[str, Any], file: Path) -> None:
    """Write the HTML page of a run, whole or not at all.

    Args:
        run: The content of ``run.json``; what is missing in it, or no number, is shown as a dash.
        file: Where to, replaced when it exists.
    """
    log = sorted(run.get("log", ()), key=itemgetter("stage"))
    points = run.get("dynamics", {}).get("rows", [])
    environment = page_environment()
    environment.filters |= {"duration": duration, "percent": _percent, "setting": setting, "plain": _plain}
    page = environment.get_template("report.html.j2").render(
        run=run,
        texts=sum(row["texts"] for row in run.get("targets", ())),
        seconds=sum(filter(is_finite, run.get("timings", {}).values())),
        meanings={name: field.description for name, field in Recipe.model_fields.items()},
        measures=measures(run),
        loss_svg=_curve(log, ("loss", "eval_loss"), "target loss (nats)"),
        cosine_svg=_curve(log, ("eval_pair_cosine",), "mean cosine", top=1.0),
        spaces=[
            (label, _curve(points, (key,), label))
            for key, (label, _) in (VOCABULARY | REPRESENTATION).items()
            if key in _SPACES and any(key in row for row in points)
        ],
        examples=[
            (row["text"], {side: list(bars(row[side], row["text"])) for side in ("before", "after")})
            for row in run.get("examples", ())
        ],
    )
    write_page(page, file)


def measures(run: Mapping[str, Any]) -> list[Measure]:
    """The numbers that a run has, before against after; a stage that was left out has none."""
    before, after = run.get("before", {}), run.get("after", {})
    return [
        Measure(name, before.get(key), after.get(key), better)
        for key, (name, better) in _MEASURES.items()
        if key in before or key in after
    ]


def duration(seconds: Any) -> str:
    """Seconds as ``12.1 s``, ``5 min 1 s`` or ``2 h 5 min``; a dash for what is no number."""
    if not is_finite(seconds):
        return MISSING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _percent(share: Any) -> str:
    return f"{share:.0%}" if is_finite(share) else MISSING


def _plain(value: Any) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return MISSING if value is None or not text else text


def setting(value: Any) -> str:
    """A setting as a YAML recipe takes it (JSON is YAML)."""
    return json.dumps(value, ensure_ascii=False)


def _curve(log: Sequence[Mapping[str, Any]], keys: Sequence[str], label: str, top: float | None = None) -> str:
    """Values of the log over the steps of all stages as inline SVG; empty when there is no value to draw.

    A line ends with its stage, because the next one has other targets; a value that is no number leaves a gap.
    """
    if not any(is_finite(row.get(key)) for row in log for key in keys):
        return ""
    # "default" keeps a user's own style out; the salt makes equal pages of equal runs, and ids of two figures unlike.
    with style.context(["default", _STYLE | {"svg.hashsalt": label}]):
        figure = Figure(figsize=(4.8, 3.0), layout="constrained", facecolor="none")
        axes = figure.add_subplot(xlabel="step", ylabel=label)
        start = 0
        for stage, grouped in groupby(log, key=itemgetter("stage")):
            rows = list(grouped)
            if start:
                axes.axvline(start, color=_COLOURS["muted"], linewidth=1, linestyle=(0, (3, 3)))
            axes.text(start, 1.03, f"stage {stage}", transform=axes.get_xaxis_transform())
            for key in keys:
                own = [row for row in rows if key in row]
                values = [row[key] if is_finite(row[key]) else math.nan for row in own]
                axes.plot([start + row["step"] for row in own], values, **(_TRAINING if key == "loss" else _HELD_OUT))
            start += max(row["step"] for row in rows)
        axes.set_xlim(0, max(start, 1))
        if top is not None:
            axes.set_ylim(min(0.0, axes.get_ylim()[0]), top)
        svg = inline_svg(figure)
    for name, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg

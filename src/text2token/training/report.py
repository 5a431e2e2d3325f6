"""The report of ``fit``: one HTML page that needs no network."""

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
from text2token.settings.facts import Measure, Number
from text2token.settings.recipe import Recipe
from text2token.settings.record import RunRecord
from text2token.utils.figures import inline_svg
from text2token.utils.files import write_text
from text2token.utils.page import MISSING, Bar, bars, page_environment

_MEASURES: dict[Measure, tuple[str, str]] = {
    "target_loss_stage_1": ("Target loss on held-out texts, targets of stage 1", "lower is better"),
    "target_loss_stage_2": ("Target loss on held-out texts, targets of stage 2", "lower is better"),
    "teacher_agreement": (
        "Agreement of cosines with the teacher's on held-out texts, Spearman's ρ",
        "higher is better, 1 at most",
    ),
    "overlap": ("Agreement of cosines with known overlaps of texts, Spearman's ρ", "higher is better, 1 at most"),
    "pair_cosine": ("Mean cosine of random pairs, embeddings", "lower is better, 1 means collapse"),
    "pair_cosine_dense": ("Mean cosine of random pairs, dense vectors", "lower is better, 1 means collapse"),
}
_SPACES = ("local", *REPRESENTATION)  # an extract; 'text2token dynamics' draws all quantities

# Placeholders. The page replaces them by its CSS variables of the same names, so that figures follow light and dark mode.
_COLOURS = {"ink": "#000001", "muted": "#000002", "line": "#000003", "training": "#000004", "held-out": "#000005"}
_STYLE = {
    "svg.fonttype": "none",  # keeps text selectable and in the page's font
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


class Comparison(NamedTuple):
    """A measure before and after the run, with a label and a note which direction is better."""

    name: str
    before: Number
    after: Number
    better: str


def write_report(run: RunRecord, file: Path) -> None:
    """Write the HTML page of a run. A number that is None is shown as a dash.

    Args:
        run: The record of ``fit``.
        file: The page. An existing file is replaced.
    """
    log = sorted(run.log, key=itemgetter("stage"))
    points = run.dynamics.rows if run.dynamics else []
    loss_name = "Target loss plus weighted teacher loss" if run.teacher else "Target loss"
    environment = page_environment()
    environment.filters |= {"duration": duration, "percent": _percent, "setting": setting, "plain": _plain}
    page = environment.get_template("report.html.j2").render(
        run=run.model_dump(),
        texts=sum(row.texts for row in run.targets),
        seconds=sum(seconds for seconds in run.timings.values() if seconds is not None),
        meanings={name: field.description for name, field in Recipe.model_fields.items()},
        measures=measures(run),
        loss_name=loss_name,
        loss_svg=_curve(log, ("loss", "eval_loss"), f"{loss_name.lower()} (nats)"),
        cosine_svg=_curve(log, ("eval_pair_cosine",), "mean cosine", top=1.0),
        spaces=[
            (label, _curve(points, (key,), label))
            for key, (label, _) in (VOCABULARY | REPRESENTATION).items()
            if key in _SPACES and any(key in row for row in points)
        ],
        examples=[
            (row.text, {"before": _bars(row.before, row.text), "after": _bars(row.after, row.text)})
            for row in run.examples
        ],
    )
    write_text(file, page)


def _bars(tokens: Sequence[tuple[str, Number]], text: str) -> list[Bar]:
    return list(bars([(token, math.nan if weight is None else weight) for token, weight in tokens], text))


def measures(run: RunRecord) -> list[Comparison]:
    """The measures that a run has, each before and after it."""
    return [
        Comparison(name, run.before.get(key), run.after.get(key), better)
        for key, (name, better) in _MEASURES.items()
        if key in run.before or key in run.after
    ]


def duration(seconds: Number) -> str:
    """Seconds as ``12.1 s``, ``5 min 1 s`` or ``2 h 5 min``. None is a dash."""
    if seconds is None:
        return MISSING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _percent(share: Number) -> str:
    return MISSING if share is None else f"{share:.0%}"


def _plain(value: Any) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return MISSING if value is None or not text else text


def setting(value: Any) -> str:
    """The value of a setting as a YAML recipe takes it. JSON is valid YAML."""
    return json.dumps(value, ensure_ascii=False)


def _curve(log: Sequence[Mapping[str, Any]], keys: Sequence[str], label: str, top: float | None = None) -> str:
    """Draw values of the log over the steps of all stages, as inline SVG. Empty if there is no value to draw.

    Each stage has its own line, because its targets differ. A value of None leaves a gap.
    """
    if all(row.get(key) is None for row in log for key in keys):
        return ""
    # "default" excludes a user's own style. The salt gives equal runs equal pages, and two figures different ids.
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
                values = [math.nan if row[key] is None else row[key] for row in own]
                axes.plot([start + row["step"] for row in own], values, **(_TRAINING if key == "loss" else _HELD_OUT))
            start += max(row["step"] for row in rows)
        axes.set_xlim(0, max(start, 1))
        if top is not None:
            axes.set_ylim(min(0.0, axes.get_ylim()[0]), top)
        svg = inline_svg(figure)
    for name, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg

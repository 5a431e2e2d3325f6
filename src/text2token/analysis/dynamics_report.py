"""Tables, correlations and a figure that show whether both spaces of a finished run improved together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from text2token.analysis.dynamics import REPRESENTATION, VOCABULARY, Quantity
from text2token.settings.facts import Number
from text2token.settings.record import RECORD, RunRecord
from text2token.utils.errors import UserError
from text2token.utils.figures import BLUES, ORANGE, figure_style, write_figure
from text2token.utils.files import local_path, write_json, write_text
from text2token.utils.page import markdown_table, number

_COLUMNS, _HEIGHT, _WIDTH = 4, 1.7, 3.0  # plots in a row; size of a plot in inches
_STAGES: tuple[dict[str, Any], ...] = ({"color": BLUES[0], "marker": "o"}, {"color": ORANGE, "marker": "s"})

Row = Mapping[str, float]


@dataclass(frozen=True)
class StageDynamics:
    """The measurements along one training stage.

    Attributes:
        stage: 1 or 2.
        targets: Name of the target builder.
        rows: One row per point, with ``step``.
        correlation: Correlations of the vocabulary space with the representation space, see :func:`correlate`.
    """

    stage: int
    targets: str
    rows: list[Row]
    correlation: dict[str, dict[str, float]]


def read_dynamics(run: str | Path) -> tuple[list[StageDynamics], str]:
    """Read the measurements of a finished run: one entry per stage, and a phrase that describes the positive pairs.

    Raises:
        UserError: The folder is not a run, or the run has no measurements.
    """
    record = RunRecord.read(local_path(run) / RECORD)
    if record.dynamics is None or not record.dynamics.rows:
        raise UserError(f"The run '{run}' measured nothing along its training: fit again with `dynamics` set to 8.")
    stages = []
    for target in record.targets:
        rows = [_finite(row) for row in record.dynamics.rows if row["stage"] == target.stage]
        stages.append(StageDynamics(target.stage, target.builder, rows, correlate(rows)))
    return stages, record.dynamics.positives


def _finite(row: Mapping[str, Number]) -> Row:
    return {key: math.nan if value is None else value for key, value in row.items()}


def correlate(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Spearman's ρ over the points: +1 if two quantities improve together, −1 if one gets worse while the other improves.

    A quantity that was not measured, or never changes, has no correlation and is left out.
    """
    return {
        name: {
            other: ours.better * theirs.better * float(spearmanr(_values(rows, name), _values(rows, other)).statistic)
            for other, theirs in REPRESENTATION.items()
            if _moves(rows, other)
        }
        for name, ours in VOCABULARY.items()
        if _moves(rows, name)
    }


def write_dynamics(stages: Sequence[StageDynamics], positives: str, output: str | Path) -> None:
    """Write ``dynamics.md``, ``dynamics.json``, ``dynamics.svg`` and ``dynamics.png`` to a folder."""
    output = local_path(output)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "dynamics.json", {"positives": positives, "stages": [asdict(stage) for stage in stages]})
    write_text(output / "dynamics.md", "\n".join(markdown(stages, positives)))
    write_figure(draw(stages), output, "dynamics")


def markdown(stages: Sequence[StageDynamics], positives: str) -> list[str]:
    """Markdown lines: for each stage, a table of its points and a table of its correlations."""
    lines = [
        "# Both spaces along the training",
        "",
        f"Alignment is measured on {positives}. Smaller values of alignment, uniformity, u₁ energy and target loss are better. "
        "Correlations are Spearman's ρ over the points of a stage: +1 means that two quantities improve together.",
        "",
    ]
    for stage in stages:
        lines += [f"## Stage {stage.stage}: {stage.targets} targets, {len(stage.rows)} points", ""]
        lines += [points_table(stage), "", correlation_table(stage), ""]
    return lines


def points_table(stage: StageDynamics) -> str:
    """Make a Markdown table with one row per point and one column per quantity."""
    measured = [key for key in (*VOCABULARY, *REPRESENTATION) if any(key in row for row in stage.rows)]
    return markdown_table(
        ["step", *map(_label, measured)],
        ([number(row["step"]), *(number(row.get(key)) for key in measured)] for row in stage.rows),
    )


def correlation_table(stage: StageDynamics) -> str:
    """Make a Markdown table: a row per quantity of the vocabulary space, a column per quantity of the representation space."""
    others = [key for key in REPRESENTATION if any(key in row for row in stage.correlation.values())]
    return markdown_table(
        ["ρ", *map(_label, others)],
        ([_label(name), *(f"{row[key]:+.2f}" for key in others)] for name, row in stage.correlation.items()),
    )


def draw(stages: Sequence[StageDynamics]) -> Figure:
    """Draw one curve per quantity over the steps of all stages: first the vocabulary space, then the representation space."""
    rows = [row for stage in stages for row in stage.rows]
    spaces = [[key for key in space if any(key in row for row in rows)] for space in (VOCABULARY, REPRESENTATION)]
    lines = [keys[start : start + _COLUMNS] for keys in spaces for start in range(0, len(keys), _COLUMNS)]
    with figure_style():
        figure = Figure(figsize=(_COLUMNS * _WIDTH, len(lines) * _HEIGHT), layout="constrained")
        grid = figure.subplots(len(lines), _COLUMNS, squeeze=False, sharex=True)
        for keys, places in zip(lines, grid, strict=True):
            for key, axes in zip(keys, places, strict=False):
                _draw_quantity(axes, key, stages)
            for axes in places[len(keys) :]:
                axes.set_visible(False)
        figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _draw_quantity(axes: Axes, key: str, stages: Sequence[StageDynamics]) -> None:
    """Draw one line per stage. The steps of a stage continue those of the stage before."""
    better = "higher" if _quantity(key).better > 0 else "lower"
    axes.set_title(f"{_label(key)} ({better} is better)", fontsize=8)
    axes.tick_params(labelsize=8, labelbottom=True)
    start = 0.0
    for stage, line in zip(stages, _STAGES, strict=False):
        steps = [start + row["step"] for row in stage.rows]
        values = [row.get(key, math.nan) for row in stage.rows]
        axes.plot(steps, values, markersize=3, label=f"stage {stage.stage}, {stage.targets}", **line)
        start = steps[-1]


def _values(rows: Sequence[Row], key: str) -> list[float]:
    return [row[key] for row in rows]


def _moves(rows: Sequence[Row], key: str) -> bool:
    return all(key in row for row in rows) and len(set(_values(rows, key))) > 1


def _quantity(key: str) -> Quantity:
    return (VOCABULARY | REPRESENTATION)[key]


def _label(key: str) -> str:
    return _quantity(key).label

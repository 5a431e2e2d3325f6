"""Measure what more tokens give: ours, SimCSE and LLM2Vec's recipe at three sizes, each baseline with and without our correction.

    python benchmarks/curve.py --data DATA

Every finished point stays in ``--runs``, so a stopped run continues. All points take some ten hours on two cores. Learning rates
are chosen on STSBenchmark validation: at the smallest size, once more at the next one, and that rate serves all larger sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import click

from contenders import CORRECTED, OURS
from curve_points import FILES, STS, Bench, overall
from runner import DATA, data_checksums, runs_option, write_results
from text2token.cli.options import quiet_libraries

SIZES = (40_000, 160_000, 640_000)  # tokens that the body reads in training
LADDER = ("3e-5", "1e-4", "3e-4", "1e-3", "3e-3", "1e-2", "3e-2")
MIDDLE = {OURS: "3e-4", "simcse": "1e-3", "llm2vec": "3e-3"}
"""Method → the middle one of its first three rates: the best rate in quality.json."""
VARIANTS = (OURS, "simcse", f"simcse{CORRECTED}", "llm2vec", f"llm2vec{CORRECTED}")
SEEDS = 3  # of ours at the smallest size; all other points have one


@click.command()
@DATA
@runs_option("curve")
@click.option(
    "--tokens", type=click.IntRange(1), multiple=True,
    help="train on this number of tokens, and write no results; may be repeated",
)  # fmt: skip
def main(data: Path, runs: Path, tokens: tuple[int, ...]) -> None:
    """Measure all points and write the results."""
    quiet_libraries()
    bench = Bench(data, runs)
    rows = [row for variant in VARIANTS for row in climb(bench, variant, sorted(tokens) or SIZES)]
    found = figures(rows)
    if tokens:
        click.echo("\n".join(f"{name} {value:.4g}" for name, value in found.items()))
    else:
        click.echo(write_results("curve", 0, data_checksums(data, FILES), found, {"rows": rows}))


def climb(bench: Bench, variant: str, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Measure one variant at all sizes; it has learning rates of its own."""
    method, comma, label = variant.partition(",")
    rate = MIDDLE[method]
    rows: list[dict[str, Any]] = []

    def scored(size: int, rate: str, seed: int = 0) -> dict[str, Any]:
        click.echo(f"{variant}, {size} tokens, {rate}, seed {seed} …", err=True)
        point = bench.point(method, size, rate, seed)
        return {**point, **point["variants"][comma + label]}

    def validated(size: int, rate: str) -> float:
        return float(scored(size, rate)["scores"][STS])

    for place, size in enumerate(sizes):
        tried: dict[str, float] = {}
        if place < 2:
            tried = try_rates(rate, partial(validated, size), onwards=place == 0)
            rate = max(tried, key=tried.__getitem__)
        seeds = SEEDS if (variant, place) == (OURS, 0) else 1
        points = [scored(size, rate, seed) for seed in range(seeds)]
        row = {"variant": variant, "size": size, "rate": rate, "tried": tried, "seeds": seeds}
        rows.append(row | averaged(points))
    return rows


def try_rates(middle: str, score: Callable[[str], float], *, onwards: bool) -> dict[str, float]:
    """Score a rate of :data:`LADDER`, the one below and the one above.

    Args:
        middle: The first rate.
        score: Scores a rate.
        onwards: Go on around the best rate until its neighbours on both sides are known.
    """
    found: dict[int, float] = {}
    place = LADDER.index(middle)
    while True:
        around = range(max(0, place - 1), min(len(LADDER), place + 2))
        found |= {near: score(LADDER[near]) for near in around if near not in found}
        peak = max(found, key=found.__getitem__)
        if peak == place or not onwards:
            return {LADDER[near]: found[near] for near in sorted(found)}
        place = peak


def averaged(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the means of points that differ in their seed only."""
    costs = {
        name: mean(point[name] for point in points) for name in ("texts", "tokens", "minutes", "minutes_beside")
    }  # fmt: skip
    scores = {name: mean(point["scores"][name] for point in points) for name in points[0]["scores"]}
    return {**costs, "scores": scores, "mean": overall(scores)}


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Compute the rise of ours from the smallest size to the largest, and its smallest lead over the best baseline at a size."""
    ours = sorted((row for row in rows if row["variant"] == OURS), key=lambda row: row["size"])
    leads = [
        row["mean"] - max(other["mean"] for other in rows if other["variant"] != OURS and other["size"] == row["size"])
        for row in ours
    ]
    return {
        "curve_ours_rise": ours[-1]["mean"] - ours[0]["mean"],
        "curve_worst_lead": min(leads),
        "curve_ours_first_stsb": ours[0]["scores"][STS],
    }


if __name__ == "__main__":
    main()

"""The part of docs/results.md about quality.json: who is better than whom, by how much, and where it is the other way round."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import mean
from typing import Any

from page_parts import goals, revision, table

FIGURE = "quality"
MINILM_NAME = "all-MiniLM-L6-v2"
MINILM = {  # published, test splits
    "STSBenchmark": 82.03, "STS12": 72.37, "STS14": 75.60, "BIOSSES": 81.64, "Banking77Classification": 80.04,
    "TweetSentimentExtractionClassification": 54.04, "AmazonCounterfactualClassification": 63.60,
}  # fmt: skip
SECOND = "gemma3-270m"
COMPARED = {  # contender → what readers call it; the first against the others
    "text2token, seed 0": "ours",
    "llm2vec, seed 0": "LLM2Vec's recipe",
    "llm2vec, filtered, seed 0": "LLM2Vec's recipe, filtered",
    "keywords prompt, filtered": "our prompt, untrained",
    "PromptEOL": "PromptEOL, untrained",
    MINILM_NAME: MINILM_NAME,
}
GOALS = {
    "ours_minus_llm2vec_mean": ("ours minus the better of LLM2Vec's two, mean over all tasks, points", "≥ 5"),
    "ours_minus_llm2vec_worst_type": ("the same, of the type where it is worst", "≥ -1"),
    "judging_over_encoding": (
        "what judging ours adds to encoding, from loading tasks to their intervals, a share",
        "≤ 0.05",
    ),
    "judging_peak_gib": (f"peak memory of judging {MINILM_NAME} on the whole of SciFact, GiB", "≤ 4"),
    "minilm_max_abs_diff": ("all-MiniLM-L6-v2 here against its known scores, largest difference", "≤ 0.3"),
}
FILTERED = ", filtered"  # a model with the correction that ours has
_METHODS = {"text2token": "ours", "llm2vec": "LLM2Vec's recipe", "simcse": "SimCSE", "tsdae": "TSDAE"}
NAMES = _METHODS | {method + FILTERED: shown + FILTERED for method, shown in _METHODS.items()}
OVERALL = "mean over tasks"


def section(result: Mapping[str, Any]) -> str:
    """Tables and the words between them."""
    figures, details = result["figures"], result["details"]
    rows = by_contender(figures)
    first = {name: scores for name, scores in rows.items() if not name.startswith(SECOND)}
    kinds = [*sorted({kind for scores in first.values() for kind in scores} - {OVERALL}), OVERALL]
    machine = result["machine"]
    cut = (
        f"Tasks are cut to {details['max_docs']} texts each, so scores compare with each other only. "
        if details["max_docs"]
        else ""
    )
    share = (
        f"Every method has {100 * details['share']:.0f} % of the texts of its recipe. " if details["share"] < 1 else ""
    )
    parts = [
        "## All contenders: smollm2-135m, the same texts and as many tokens",
        goals(figures, GOALS),
        table(
            ["contender", *kinds],
            [[name, *(_span(scores.get(kind)) for kind in kinds)] for name, scores in ranked(first, len(kinds))],
        ),
        f"Points; trained contenders are the mean over seeds, in brackets the lowest and the highest. {cut}{share}"
        "*Filtered*: with centring and the spectral filter of the decoding head, learnt from the texts, which ours has and no "
        "published baseline. BM25 only ranks documents. all-MiniLM-L6-v2 was trained with labels."
        + (f" Not run yet: {'; '.join(details['not run'])}." if details["not run"] else ""),
        *_compared(details.get("comparison")),
        *_training(details),
        *_second({name: scores for name, scores in rows.items() if name.startswith(SECOND)}),
        *_judge(details["summaries"].get(f"{MINILM_NAME}, whole tasks")),
        f"{machine['cores']} cores ({machine['cpu']}), revision `{revision(result['git'])}`, command `{result['command']}`.",
    ]
    return "\n\n".join(parts) + "\n"


def by_contender(figures: Mapping[str, float]) -> dict[str, dict[str, list[float]]]:
    """Contender → type → scores of its seeds."""
    rows: dict[str, dict[str, list[float]]] = {}
    for figure, score in figures.items():
        name, colon, kind = figure.rpartition(": ")
        if not colon or name.endswith("whole tasks"):
            continue
        before, _, method = name.partition(", seed")[0].rpartition(": ")
        shown = f"{before}: {NAMES.get(method, method)}" if before else NAMES.get(method, method)
        rows.setdefault(shown, {}).setdefault(kind, []).append(score)
    return rows


def ranked(rows: Mapping[str, dict[str, list[float]]], kinds: int) -> list[tuple[str, dict[str, list[float]]]]:
    """The best overall first; those without all ``kinds`` of tasks last, and without a mean that would compare with nothing."""
    whole = {name: scores for name, scores in rows.items() if len(scores) == kinds}
    rest = {
        name: {kind: scores[kind] for kind in scores if kind != OVERALL}
        for name, scores in rows.items()
        if name not in whole
    }
    return [*sorted(whole.items(), key=lambda row: -mean(row[1][OVERALL])), *rest.items()]


def _span(scores: list[float] | None) -> str:
    if not scores:
        return ""
    spread = f" ({min(scores):.1f} to {max(scores):.1f})" if len(scores) > 1 else ""
    return f"{mean(scores):.1f}{spread}"


def _compared(comparison: Mapping[str, Any] | None) -> Iterable[str]:
    """Task by task, seed 0 of ours against seed 0 of LLM2Vec's recipe and the untrained prompt, paired."""
    if comparison is None:
        return
    others = comparison["measured"][1:]
    yield "### Task by task"
    yield f"![Scores by task, with intervals](figures/{FIGURE}.svg)"
    names = dict(zip(comparison["measured"], comparison["columns"], strict=True))
    columns = ["task", *names.values(), *(f"ours minus {names[other]}" for other in others)]
    yield table(
        columns,
        [
            [row["label"], *_scores(row, comparison["measured"]), *(_apart(row, other) for other in others)]
            for row in [*comparison["tasks"], *comparison["means"]]
        ],
    )
    worse = [
        f"{row['label']} ({difference['points']:.1f} against {names[other]})"
        for row in comparison["tasks"]
        for other, difference in row["differences"].items()
        if difference["clear"] and difference["points"] < 0
    ]
    yield (
        "Seed 0; in brackets 95 % bootstrap intervals over queries, pairs or texts (of clustering, over "
        "its runs), of differences paired. "
        + (f"Clearly worse: {', '.join(worse)}." if worse else "Nowhere is it clearly worse.")
    )


def _scores(row: Mapping[str, Any], columns: Iterable[str]) -> Iterable[str]:
    for column in columns:
        interval = row["intervals"].get(column)
        ends = f" ({interval[0]:.1f} to {interval[1]:.1f})" if interval else ""
        yield f"{row['scores'][column]:.1f}{ends}" if column in row["scores"] else ""


def _apart(row: Mapping[str, Any], other: str) -> str:
    found = row["differences"].get(other)
    if not found:
        return ""
    text = f"{found['points']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})"
    return f"**{text}**" if found["clear"] else text


def _training(details: Mapping[str, Any]) -> Iterable[str]:
    """Budgets, and the grid that learning rates are from."""
    grid = details["learning_rates"]
    if not grid:
        return
    rates = list(dict.fromkeys(rate for tried in grid.values() for rate in tried))
    yield "### What each method learnt from"
    yield table(["method", *(f"learning rate {rate}" for rate in rates)], list(_grid(grid, rates)))
    yield (
        "STSBenchmark validation, seed 0: what each method's learning rate was chosen by. A grid goes on to larger ones while "
        "the last is the best."
    )
    heading = ["trained", "texts", "tokens through the body", "minutes of training", "of the whole run"]
    yield table(heading, list(_costs(details["trained"])))


def _grid(grid: Mapping[str, Mapping[str, float]], rates: Iterable[str]) -> Iterable[list[str]]:
    for method, tried in grid.items():
        best = max(tried, key=tried.__getitem__)
        shown = {rate: f"**{score:.1f}**" if rate == best else f"{score:.1f}" for rate, score in tried.items()}
        yield [NAMES[method], *(shown.get(rate, "") for rate in rates)]


def _costs(trained: Mapping[str, Mapping[str, float]]) -> Iterable[list[str]]:
    for name, cost in trained.items():
        numbers = [f"{cost[key]:,.0f}" for key in ("texts", "tokens")]
        yield [name, *numbers, *(f"{cost[key]:.1f}" for key in ("minutes", "minutes of the whole run"))]


def _second(rows: Mapping[str, dict[str, list[float]]]) -> Iterable[str]:
    if rows:
        kinds = list(next(iter(rows.values())))
        yield f"### Another backbone: {SECOND}, one task per type"
        yield table(
            ["contender", *kinds],
            [[name, *(_span(scores[kind]) for kind in kinds)] for name, scores in ranked(rows, len(kinds))],
        )


def _judge(summary: Mapping[str, Any] | None) -> Iterable[str]:
    """What the judge gives a model whose scores are known."""
    if summary:
        scores = {row["task"]: 100 * row["score"] for row in summary["tasks"]}
        yield "### The judge judged"
        rows = [[task, f"{scores[task]:.2f}", f"{known:.2f}"] for task, known in MINILM.items()]
        yield table([MINILM_NAME, "here, whole test splits", "known"], rows)

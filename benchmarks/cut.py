"""Leave out of the results files what no page shows.

    python benchmarks/cut.py     # rewrites benchmarks/results/*.json

Every benchmark cuts its details in the same way before it writes them. The cut removes rows and keys; it changes no measurement.
The complete measurements stay in the folder ``runs/``, outside of git.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from contenders import WHOLE

COMPONENTS = 64  # rows of a spectrum that its figures show at most
SHOWN = {
    "components": ("component", "variation", "spread"),
    "contribution": ("text", "token", "first", "rest", "rest_token"),
}
TOKENS = 10  # tokens of the first text that the page shows for a shift
STUDIED = ("exact ids", "less the mean, forms merged")  # readings whose token categories a page shows
Details = dict[str, Any]


def cut(name: str, details: Details) -> Details:
    """Return the details that the pages of a results file need. Cutting twice changes nothing."""
    return CUTS.get(name, lambda same: same)(details)


def cut_quality(details: Details) -> Details:
    """Keep the scores by task of the model with known scores, and readable column names in the comparison."""
    kept = {key: value for key, value in details.items() if key != "summaries"}
    if whole := details.get("summaries", {}).get(WHOLE):
        kept["known_model"] = {row["task"]: 100 * row["score"] for row in whole["tasks"]}
    if comparison := details.get("comparison"):
        names = dict(zip(comparison["measured"], comparison.get("columns", comparison["measured"]), strict=True))
        kept["comparison"] = {
            "measured": list(names.values()),
            **{part: [_renamed(row, names) for row in comparison[part]] for part in ("tasks", "means")},
        }
    return kept


def _renamed(row: Mapping[str, Any], names: Mapping[str, str]) -> Details:
    columns = {
        key: {names[column]: value for column, value in row[key].items()}
        for key in ("scores", "intervals", "differences")
    }
    return {"label": row["label"], "type": row["type"], **columns}


def cut_alignment(details: Details) -> Details:
    """Keep the rates of every reading, and token categories only where a page shows them."""
    kept = dict(details)
    if "reading" in details:
        kept["reading"] = details["reading"] | {"examples": list(details["reading"]["examples"])}
    if "study" in details:
        readings = details["study"]["readings"]
        kept["study"] = details["study"] | {"readings": {name: _cut_reading(name, readings[name]) for name in readings}}
    return kept


def cut_spectrum(details: Details) -> Details:
    """Keep the first components and the tokens of one text."""
    pairs = details.get("spectrum", {})
    return details | {"spectrum": {name: _cut_pair(pair) for name, pair in pairs.items()}}


def _cut_pair(pair: Mapping[str, Any]) -> Details:
    kept = {key: value for key, value in pair.items() if key != "centred_components"}
    for rows, shown in SHOWN.items():
        kept[rows] = [{key: row[key] for key in shown} for row in pair[rows][:COMPONENTS]]
    kept["shift_rows"] = [_first_text(row) for row in pair["shift_rows"]]
    return kept | {"tuned": _first_text(pair["tuned"])}


def _first_text(row: Mapping[str, Any]) -> Details:
    return {**row, "tokens": [row["tokens"][0][:TOKENS]]}


def _cut_reading(name: str, rows: Mapping[str, Mapping[str, Any]]) -> Details:
    if name not in STUDIED:
        return {model: {"rates": row["rates"]} for model, row in rows.items()}
    first = {
        model: {kind: ranks[:1] for kind, ranks in row["categories_by_rank"].items()} for model, row in rows.items()
    }
    return {model: {**row, "categories_by_rank": first[model]} for model, row in rows.items()}


CUTS: dict[str, Callable[[Details], Details]] = {
    "quality": cut_quality,
    "alignment": cut_alignment,
    "spectrum": cut_spectrum,
}


def main() -> None:
    """Cut the committed results files."""
    from runner import RESULTS, read_results, write_compact

    for file in sorted(RESULTS.glob("*.json")):
        write_compact(read_results(file.stem))


if __name__ == "__main__":
    main()

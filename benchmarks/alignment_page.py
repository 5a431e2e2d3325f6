"""Write docs/alignment.md and its figure from benchmarks/results/alignment.json; the words are in pages/alignment.md.j2.

python benchmarks/alignment_page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import dynamics_claim
from page_parts import revision, verdict
from text2token.analysis.alignment import draw_alignment
from text2token.analysis.metrics import CATEGORIES
from text2token.utils.figures import write_figure

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
MANY = 0.5  # a Hit@10 that is called aligned
RISE = 10  # points that are called following
Rows = dict[str, dict[str, Any]]


def main() -> None:
    """Render the page."""
    result = json.loads((HERE / "results" / "alignment.json").read_text())
    study, reading = result["details"]["study"], result["details"]["reading"]
    exact, centred = study["readings"]["exact ids"], study["readings"]["less the mean, forms merged"]
    (DOCS / "figures").mkdir(exist_ok=True)
    write_figure(draw_alignment(exact, 10), DOCS / "figures", "align")
    environment = Environment(
        loader=FileSystemLoader(HERE / "pages"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["points"] = lambda share: f"{100 * share:.1f}"
    page = environment.get_template("alignment.md.j2").render(
        result=result,
        revision=revision(result["git"]),
        figures=result["figures"],
        study=study,
        reading=reading,
        exact=exact,
        centred=centred,
        categories=CATEGORIES,
        compared=[name for name in exact if name.endswith(("ours", "PromptEOL"))],
        aligned=judge_alignment(exact),
        kinds=judge_kinds(centred),
        instructed=judge_instructions(result["figures"], list(reading["examples"])),
        related=judge_relatedness(result["figures"], list(reading["examples"])),
        dynamics="\n".join(dynamics_claim.section(result["details"]["dynamics"])).strip(),
    )
    (DOCS / "alignment.md").write_text(page)


def judge_alignment(rows: Rows) -> dict[str, str]:
    """Do all embedders align?"""
    low = [name for name, row in rows.items() if row["rates"]["hit"] < MANY]
    meaning = {name: row["categories"][CATEGORIES[0]] for name, row in rows.items()}
    most, least = max(meaning, key=lambda name: meaning[name]), min(meaning, key=lambda name: meaning[name])
    hits = (
        f"Hit@10 is below {100 * MANY:.0f} for {', '.join(low)}"
        if low
        else f"Hit@10 is {100 * MANY:.0f} or more for all"
    )
    words = (
        f"{hits}. But a hit can be a comma: literal meaningful tokens have {100 * meaning[least]:.0f} % of the mass of the "
        f"first ten in {least} and {100 * meaning[most]:.0f} % in {most}."
    )
    return {"verdict": verdict([name not in low for name in rows]), "words": words}


def judge_kinds(rows: Rows) -> dict[str, str]:
    """Does training on token targets move mass to the two kinds of key tokens?"""
    key = {name: row["categories"][CATEGORIES[0]] + row["categories"]["derived"] for name, row in rows.items()}
    backbones = list(dict.fromkeys(name.split(", ")[0] for name in rows))
    best_before = {
        backbone: max(key[name] for name in rows if name.startswith(backbone) and not name.endswith("ours"))
        for backbone in backbones
    }
    more = [backbone for backbone in backbones if key[f"{backbone}, ours"] > best_before[backbone]]
    changes = "; ".join(
        f"{backbone}: {100 * best_before[backbone]:.0f} % at best otherwise, {100 * key[f'{backbone}, ours']:.0f} % in ours"
        for backbone in backbones
    )
    words = f"Both kinds are there in every embedder. Share of the two of them together: {changes}."
    return {"verdict": verdict([backbone in more for backbone in backbones]), "words": words}


def judge_instructions(figures: dict[str, float], models: list[str]) -> dict[str, Any]:
    """Do aligned tokens follow an instruction?"""
    rows = {}
    for name in models:
        topic, sentiment = (figures[f"sentiment words, {asked} ({name})"] for asked in ("topic", "sentiment"))
        rows[name] = {"topic": topic, "sentiment": sentiment, "rise": sentiment - topic}
    follow = [name for name, row in rows.items() if row["rise"] >= RISE]
    words = f"A rise of {RISE} points or more: {'; '.join(follow) or 'none'}."
    return {"verdict": verdict([name in follow for name in models]), "words": words, "rows": rows}


def judge_relatedness(figures: dict[str, float], models: list[str]) -> dict[str, Any]:
    """Which embedders go by the thing, which by the liking?"""
    rows = {
        name: {
            "same": figures[f"like X, do not like X ({name})"],
            "other": figures[f"like X, like Y ({name})"],
            "negation": figures[f"negation words ({name})"],
        }
        for name in models
    }
    related = [name for name, row in rows.items() if row["same"] > row["other"]]
    words = (
        f"{len(related)} of {len(models)} go by the thing (relatedness), the others by the liking (similarity); the claim is "
        "that there are both sorts, and that tokens tell them apart."
    )
    return {"verdict": verdict([bool(related), len(related) < len(models)]), "words": words, "rows": rows}


if __name__ == "__main__":
    main()

"""Write the results pages, their figures and the table in README.md from benchmarks/results/*.json.

    python benchmarks/pages.py

The words and tables are in templates/*.md.j2. The modules page_*.py compute the verdicts of one page and draw its figures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import page_alignment
import page_quality
import page_scale
import page_spectrum
import page_speed
import page_training
from runner import RESULTS, read_results
from tables import FILTERS, FUNCTIONS
from text2token.utils.files import write_text

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
README = HERE.parent / "README.md"
MARKED = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)


def main() -> None:
    """Write all pages."""
    results = {file.stem: read_results(file.stem) for file in RESULTS.glob("*.json")}
    main_job, quality, figures = results["main_job"], results["quality"], DOCS / "figures"
    pages = {
        "results": page_quality.context(main_job, quality, figures),
        "results-search": {
            "result": results["sparse"],
            "settings": results["search_settings"]["details"],
            "speed": results["search_speed"],
        },
        "results-serving": {"result": results["serving"]},
        "results-alignment": page_alignment.context(results["alignment"], figures),
        "results-spectrum": page_spectrum.context(results["spectrum"], figures),
    }
    if "scale" in results:
        pages["results-scale"] = page_scale.context(results["scale"], figures)
    if "curve" in results:
        pages["results-training"] = page_training.context(results["curve"], figures)
    if "own_corpus" in results:
        pages["results-own-corpus"] = {"result": results["own_corpus"]}
    for page, context in pages.items():
        write_text(DOCS / f"{page}.md", render(f"{page}.md.j2", context) + "\n")
    speeds = [results[name] for name in page_speed.NAMES if name in results]
    for speed in speeds:
        write_text(
            DOCS / f"results-{speed['name']}.md", render("results-speed.md.j2", page_speed.context(speed)) + "\n"
        )
    shown = {"own_corpus": results.get("own_corpus"), "speed": next(iter(speeds), None)}
    block = render("readme.md.j2", pages["results"] | shown)
    readme = README.read_text(encoding="utf-8")
    write_text(README, MARKED.sub(lambda match: f"{match[1]}{block}\n{match[2]}", readme))


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fill a template. A name that the context lacks is an error."""
    loader = FileSystemLoader(HERE / "templates")
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(FILTERS, short=short)
    environment.globals.update(FUNCTIONS, origin=origin)
    return environment.get_template(template).render(context).strip()


def origin(result: Mapping[str, Any]) -> str:
    """Say how a results file was measured, in one sentence."""
    machine = result["machine"]
    return (
        f"Seed {result['seed']}; {machine['cores']} cores ({machine['cpu']}); revision `{short(result['git'])}`; "
        f"command `{result['command']}`."
    )


def short(revision: str | None) -> str:
    """Shorten a git revision. The mark ``-dirty`` of a checkout with changes stays."""
    return "unknown" if revision is None else revision[:12] + "-dirty" * revision.endswith("-dirty")


if __name__ == "__main__":
    main()

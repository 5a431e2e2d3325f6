"""Write the results pages, their figures and the table in README.md from benchmarks/results/*.json.

    python benchmarks/pages.py

The words are in templates/*.md.j2. The modules page_*.py turn measurements into the numbers, tables and verdicts of one page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import page_alignment
import page_quality
import page_search
import page_spectrum
from runner import RESULTS, read_results
from text2token.utils.files import atomic_write

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
README = HERE.parent / "README.md"
MARKED = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)


def main() -> None:
    """Write all pages."""
    results = {file.stem: read_results(file.stem) for file in RESULTS.glob("*.json")}
    main_job, quality, figures = results["main_job"], results["quality"], DOCS / "figures"
    write(DOCS / "results.md", page_quality.context(main_job, quality, figures))
    write(DOCS / "results-search.md", page_search.context(results, figures))
    write(DOCS / "results-alignment.md", page_alignment.context(results["alignment"], figures))
    write(DOCS / "results-spectrum.md", page_spectrum.context(results["spectrum"], figures))
    block = render("readme.md.j2", page_quality.front_page(main_job, quality))
    readme = README.read_text(encoding="utf-8")
    replace_text(README, MARKED.sub(lambda match: f"{match[1]}{block}\n{match[2]}", readme))


def write(page: Path, context: Mapping[str, Any]) -> None:
    """Render ``templates/PAGE.md.j2`` to a page."""
    replace_text(page, render(f"{page.name}.j2", context) + "\n")


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fill a template. A name that the context lacks is an error."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(origin=origin, **context).strip()


def replace_text(file: Path, text: str) -> None:
    """Write a text file as a whole."""
    with atomic_write(file) as part:
        part.write_text(text, encoding="utf-8")


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

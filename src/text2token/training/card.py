"""Hugging Face model cards for the two folders of a fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from text2token.training.report import measures, setting
from text2token.utils.page import page_environment, write_page

# As sentence-transformers tags its own dense and sparse models, which is what the hub filters by.
_TAGS = {
    "dense": ["sentence-similarity", "feature-extraction", "dense"],
    "sparse": ["feature-extraction", "sparse-encoder", "sparse"],
}
_PIPELINES = {"dense": "sentence-similarity", "sparse": "feature-extraction"}
_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


def write_cards(run: Mapping[str, Any], output: Path) -> None:
    """Write ``README.md`` into ``output/dense`` and ``output/sparse``, which exist.

    Args:
        run: The content of ``run.json``; what is missing in it, or no number, is shown as a dash.
        output: The folder of the finished model.
    """
    environment = page_environment()
    environment.filters |= {"setting": setting, "code": _code}
    template = environment.get_template("card.md.j2")
    for kind in ("dense", "sparse"):
        header = yaml.safe_dump(_front_matter(kind, run), sort_keys=False, allow_unicode=True)
        texts = sum(row["texts"] for row in run.get("targets", ()))
        card = template.render(kind=kind, header=header, run=run, texts=texts, measures=measures(run))
        write_page(card, output / kind / "README.md")


def _front_matter(kind: str, run: Mapping[str, Any]) -> dict[str, Any]:
    backbone = run.get("backbone", {}).get("name", "")
    return {
        "library_name": "sentence-transformers",
        "pipeline_tag": _PIPELINES[kind],
        "tags": ["sentence-transformers", "text2token", "unsupervised", *_TAGS[kind]],
        **({"base_model": backbone} if _is_hub_id(backbone) else {}),
    }


def _is_hub_id(backbone: str) -> bool:
    """``owner/name`` and no path: the hub rejects a card whose base model it cannot link."""
    return bool(_HUB_ID.fullmatch(backbone)) and not backbone.endswith(".gguf") and not Path(backbone).exists()


def _code(value: Any) -> str:
    """Markdown code span, fenced with more backticks than it holds."""
    text = " ".join(str(value).split())
    if not text:
        return "–"
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text[0] == "`" or text[-1] == "`" else ""
    return f"{fence}{pad}{text}{pad}{fence}"

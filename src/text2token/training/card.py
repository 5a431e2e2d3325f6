"""Model cards in the format of the Hugging Face hub for the folders ``dense`` and ``sparse``."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from text2token.settings.record import DistillRecord, RunRecord
from text2token.training.report import measures, setting
from text2token.utils.files import write_text
from text2token.utils.page import MISSING, page_environment

# sentence-transformers gives its own dense and sparse models these tags, and the hub filters by them.
_TAGS = {
    "dense": ["sentence-similarity", "feature-extraction", "dense"],
    "sparse": ["feature-extraction", "sparse-encoder", "sparse"],
}
_PIPELINES = {"dense": "sentence-similarity", "sparse": "feature-extraction"}
_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


def write_cards(run: RunRecord, output: Path) -> None:
    """Write ``README.md`` into the folders ``output/dense`` and ``output/sparse``, which exist.

    Args:
        run: The record of ``fit`` or ``adapt``.
        output: The folder of the model.
    """
    environment = page_environment()
    environment.filters |= {"setting": setting, "code": _code}
    template = environment.get_template("card.md.j2")
    for kind, other in (("dense", "sparse"), ("sparse", "dense")):
        card = template.render(
            kind=kind,
            other=other,
            header=_front_matter(kind, run.backbone.name, unsupervised=run.teacher is None),
            run=run.model_dump(),
            texts=sum(row.texts for row in run.targets),
            measures=measures(run),
        )
        write_text(output / kind / "README.md", card)


def write_student_cards(run: DistillRecord, output: Path) -> None:
    """Write ``README.md`` into the folders ``output/dense`` and ``output/sparse`` of a student, which exist."""
    environment = page_environment()
    environment.filters |= {"code": _code}
    template = environment.get_template("student.md.j2")
    for kind in _PIPELINES:
        card = template.render(kind=kind, header=_front_matter(kind, run.teacher.name), run=run.model_dump())
        write_text(output / kind / "README.md", card)


def _front_matter(kind: str, base: str, *, unsupervised: bool = True) -> str:
    """The YAML at the head of a card.

    Args:
        kind: ``dense`` or ``sparse``.
        base: The model that this one was made from.
        unsupervised: Whether no labels went into it. Those of a teacher are not known.
    """
    content = {
        "library_name": "sentence-transformers",
        "pipeline_tag": _PIPELINES[kind],
        "tags": ["sentence-transformers", "text2token", *(["unsupervised"] if unsupervised else []), *_TAGS[kind]],
        **({"base_model": base} if _is_hub_id(base) else {}),
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _is_hub_id(backbone: str) -> bool:
    """Whether the name is ``owner/name`` and not a local path. The hub rejects a card whose base model it cannot find."""
    return bool(_HUB_ID.fullmatch(backbone)) and not backbone.endswith(".gguf") and not Path(backbone).exists()


def _code(value: object) -> str:
    """A Markdown code span. Its fence has more backticks than the longest run of backticks inside."""
    text = " ".join(str(value).split())
    if not text:
        return MISSING
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text[0] == "`" or text[-1] == "`" else ""
    return f"{fence}{pad}{text}{pad}{fence}"

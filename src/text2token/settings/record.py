"""The schemas of ``run.json``, the record that ``fit``, ``adapt``, ``baseline`` and ``spectrum`` write beside their result.

It lies in the settings room because it contains a recipe, and because the rooms above (model, analysis, training, cli) all read
it. It imports no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from text2token.settings.choices import NumberFormat
from text2token.settings.distillation import DistillSettings
from text2token.settings.facts import (
    BackboneFacts,
    CandidateFacts,
    CorpusFacts,
    DynamicsFacts,
    Example,
    Measure,
    Number,
    Row,
    TargetFacts,
    TeacherFacts,
)
from text2token.settings.recipe import Recipe
from text2token.utils.errors import UserError, first_line
from text2token.utils.files import local_path, write_text

FORMAT: Literal[2] = 2
RECORD = "run.json"
_SURROGATE = re.compile("[\ud800-\udfff]")


class _Record(BaseModel):
    """The attributes that the records of all commands have.

    Attributes:
        format: Version of the schema.
        timings: Seconds of each step.
        peak_rss_gib: Peak memory of the last process.
        files: SHA-256 of each weights file, by its path in the folder.
        text2token: Version of this package.
        command: The command line.
        created: When the run finished, ISO 8601 in UTC.
        git: Revision of the source, if it is under version control.
        versions: Versions of Python and of the libraries.
        machine: Platform, processor and memory.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[2] = FORMAT
    timings: dict[str, Number]
    peak_rss_gib: Number
    files: dict[str, str]
    text2token: str
    command: str
    created: str
    git: str | None
    versions: dict[str, str]
    machine: dict[str, str | int | float | None]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Check the facts of a run. An unknown or missing key is an error of the program, a ``ValidationError``.

        The facts go through JSON, so the record equals what a reader gets.
        """
        return cls.model_validate(_json_value(dict(facts)))

    def write(self, file: Path) -> None:
        """Write the record as JSON."""
        write_text(file, self.model_dump_json(indent=2))


class RunRecord(_Record):
    """The record of ``fit``, ``adapt`` and ``baseline``.

    Shares, rates and correlations go from 0 to 1 (correlations from −1), never to 100. Every part that only one command writes
    has an empty default, so a reader never asks whether a key exists. Every record also says where the run comes from:
    ``timings``, ``versions``, ``machine`` and others.

    Attributes:
        format: Version of this schema. Version 1 had no number; :meth:`read` upgrades it.
        verb: The command that wrote the record.
        method: The baseline method.
        recipe: All settings of the run.
        corpus: The texts.
        backbone: The language model.
        teacher: The model whose similarities the dense vectors followed (``fit``). None: they followed none.
        targets: One entry per stage (``fit``).
        log: One row per logging or evaluation step, with ``stage`` and ``step`` (``fit``, ``baseline``).
        dynamics: Measurements along the training (``fit``).
        before: Measures on held-out texts before the run.
        after: The same measures after it.
        examples: Held-out texts and their aligned tokens (``fit``).
        chosen: Who chose the correction (``adapt``).
        judged: The corrections that were compared (``adapt``).
        precision: The precision in which texts were encoded (``adapt``). None: not known.
    """

    verb: Literal["fit", "adapt", "baseline"]
    method: str | None = None
    recipe: Recipe
    corpus: CorpusFacts
    backbone: BackboneFacts
    teacher: TeacherFacts | None = None
    targets: list[TargetFacts] = []
    log: list[Row] = []
    dynamics: DynamicsFacts | None = None
    before: dict[Measure, Number] = {}
    after: dict[Measure, Number] = {}
    examples: list[Example] = []
    chosen: str | None = None
    judged: list[CandidateFacts] = []
    precision: NumberFormat | None = None

    @classmethod
    def read(cls, file: str | Path) -> RunRecord:
        """Read a record that this version or an earlier one wrote.

        Keys that this version does not know are ignored, so a renamed or removed setting leaves the record readable.

        Raises:
            UserError: The file is missing, a newer version wrote it, or it is not a record of ``fit``, ``adapt`` or ``baseline``.
        """
        file = local_path(file)
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"'{file.parent}' is not a finished run: it has no {file.name}.") from None
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"Cannot read the record '{file}': {first_line(error)}.") from error
        version = content.get("format", 1) if isinstance(content, dict) else None
        if isinstance(version, int) and version > FORMAT:
            raise UserError(f"A newer version of text2token wrote '{file}': update text2token to read it.")
        try:
            new = _upgraded(content) if version == 1 else content
            known = {key: value for key, value in new["recipe"].items() if key in Recipe.model_fields}
            return cls.model_validate(_json_value(new | {"recipe": known}), extra="ignore")
        except (ValidationError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"'{file}' is not a record of fit, adapt or baseline: name the folder that one of them wrote."
            ) from error


class SpectrumRecord(_Record):
    """The record of ``spectrum``. The result itself is in ``spectrum.json``.

    Attributes:
        verb: The command that wrote the record.
        settings: Settings of the command by name.
        models: Hashes of the base and of the tuned model.
        corpus_fingerprint: SHA-256 of the texts.
        pairs_fingerprint: SHA-256 of the scored pairs.
    """

    verb: Literal["spectrum"] = "spectrum"
    settings: dict[str, Any]
    models: list[str]
    corpus_fingerprint: str
    pairs_fingerprint: str


class DistillRecord(_Record):
    """The record of ``distill``.

    Attributes:
        verb: The command that wrote the record.
        settings: All settings of the run.
        teacher: The model that the student imitates.
        corpus: The texts.
        read: Number of texts and spans that the teacher encoded to learn from.
        before: Mean cosine of the student's and the teacher's dense vectors of held-out texts and spans, before training.
        after: The same after training.
        query_table: Checksum of the student's query table.
    """

    verb: Literal["distill"] = "distill"
    settings: DistillSettings
    teacher: TeacherFacts
    corpus: CorpusFacts
    read: int
    before: Number
    after: Number
    query_table: str


def _json_value(content: Any) -> Any:
    """The content as a reader of its JSON gets it. NaN and infinity become None.

    A lone surrogate, which UTF-8 cannot encode, becomes its escape.
    """
    text = json.dumps(content, default=BaseModel.model_dump, ensure_ascii=False)
    escaped = _SURROGATE.sub(lambda found: rf"\\u{ord(found[0]):x}", text)
    return json.loads(escaped, parse_constant=lambda _: None)


def _upgraded(old: dict[str, Any]) -> dict[str, Any]:
    """A record of format 1 in the form of format 2. Format 1 had no verb, and its overlaps were × 100."""
    new = {key: value for key, value in old.items() if key in RunRecord.model_fields}
    new["verb"] = "baseline" if "method" in old else "adapt" if "judged" in old else "fit"
    for side in ("before", "after"):
        new[side] = _share_of_one(old.get(side, {}))
    new["judged"] = [_share_of_one(row) for row in old.get("judged", [])]
    return new


def _share_of_one(row: dict[str, Any]) -> dict[str, Any]:
    overlap = row.get("overlap")
    return row if overlap is None else row | {"overlap": overlap / 100}

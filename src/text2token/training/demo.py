"""``demo``: fit the docstrings of the installed packages, and compare search before and after."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from text2token.data.docstrings import Docstring, installed_docstrings
from text2token.model.embedder import Embedder
from text2token.settings.recipe import Recipe
from text2token.settings.templates import Template
from text2token.targets.base import texts_checksum
from text2token.training.pipeline import fit
from text2token.training.start import describe_backbone, open_backbone
from text2token.utils.errors import UserError
from text2token.utils.files import write_text
from text2token.utils.progress import step
from text2token.utils.run_folder import RunFolder

QUESTIONS = {
    "stack arrays vertically": "numpy.vstack",
    "how similar are two vectors, by the angle between them": "sklearn.metrics.pairwise.cosine_similarity",
    "load a table from a comma separated file": "pandas.read_csv",
}
DOCUMENTS = "docs.jsonl"  # file of the held-out docstrings in the output folder
_FEWEST = 1_000


@dataclass(frozen=True)
class DemoData:
    """Docstrings for training and for known-item retrieval.

    Attributes:
        texts: Summary and body of the docstrings to train on.
        held_out: Docstrings that are never trained on. The summary is the query, the body is the document to find.
    """

    texts: list[str]
    held_out: list[Docstring]


def demo_data(pool: int = 120) -> DemoData:
    """Split the docstrings of this environment. The answers to ``QUESTIONS`` are always held out.

    Args:
        pool: Number of held-out documents. 120 make the search hard enough, and a laptop encodes them in under a minute.

    Raises:
        UserError: The installed packages have too few docstrings.
    """
    docstrings = installed_docstrings()
    if len(docstrings) < _FEWEST:
        raise UserError(
            f"Only {len(docstrings)} docstrings were found: run the demo in an environment with text2token's dependencies."
        )
    answers = [
        d for d in docstrings if d.name.endswith(tuple(f".{name.rpartition('.')[2]}" for name in QUESTIONS.values()))
    ]
    random.Random(0).shuffle(docstrings)
    held_out = list(dict.fromkeys([*answers, *docstrings]))[:pool]
    hidden = set(held_out)
    return DemoData([f"{d.summary} {d.body}" for d in docstrings if d not in hidden], held_out)


def write_documents(docstrings: list[Docstring], file: Path) -> None:
    """Write docstrings as documents for ``text2token index``."""
    rows = ({"id": d.name, "title": d.summary, "text": d.body} for d in docstrings)
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def known_item_retrieval(embedder: Embedder, held_out: list[Docstring]) -> dict[str, float]:
    """Find each body by its summary with the cosine of dense vectors. Return nDCG@10 and recall@10, 0 … 1."""
    similarity = embedder.encode([d.summary for d in held_out]) @ embedder.encode([d.body for d in held_out]).T
    before = (similarity > similarity.diagonal()[:, None]).sum(axis=1)  # documents ranked before the one to find
    found = before < 10
    return {"nDCG@10": float((found / np.log2(before + 2)).mean()), "recall@10": float(found.mean())}


def answer(embedder: Embedder, questions: list[str], held_out: list[Docstring], k: int = 3) -> list[list[str]]:
    """Return the names of the ``k`` held-out docstrings that are nearest to each question."""
    documents = embedder.encode([f"{d.summary} {d.body}" for d in held_out])
    ranking = np.argsort(-embedder.encode(questions) @ documents.T, axis=1)[:, :k]
    return [[held_out[i].name for i in row] for row in ranking]


def run_demo(
    output: Path,
    recipe: Recipe,
    make_index: Callable[[Path, Embedder], None],
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, object]:
    """Fit the docstrings, compare search and aligned tokens before and after, and index the held-out docstrings.

    If the process was killed, the same call continues.

    Args:
        output: New folder for what ``fit`` writes, ``DOCUMENTS`` and the index.
        recipe: All settings.
        make_index: Takes the unfinished folder, which holds ``DOCUMENTS``, and the embedder, and writes the index there. It may
            find the rest of an earlier attempt.
        overwrite: Replace ``output`` if it holds a run, and discard an unfinished demo with other settings.
        progress: Show progress bars on a terminal.

    Returns:
        ``retrieval`` scores by setting, ``answers`` by question and setting, and ``tokens`` of five held-out summaries.

    Raises:
        UserError: The output folder cannot be used, or there are too few docstrings.
    """
    folder = RunFolder.open(output, overwrite=overwrite)
    with step("Reading the docstrings of the installed packages", enabled=progress):
        data = demo_data()
    identity = {
        "recipe": recipe.model_dump(),
        "backbone": describe_backbone(open_backbone(recipe), recipe.backbone).model_dump(),
        "texts": texts_checksum([*data.texts, *(text for d in data.held_out for text in (d.summary, d.body))]),
    }
    with folder.session({"verb": "demo", **identity}):
        before = folder.cached("before.json", lambda: _measure_before(recipe, data, progress))
        if folder.result.is_dir():  # `fit` writes it whole
            fitted = Embedder.open(folder.result)
        else:
            fitted = fit(data.texts, folder.result, recipe, progress=progress)
        write_documents(data.held_out, folder.result / DOCUMENTS)
        with step("Measuring the finished embedder", enabled=progress):
            fitted.use_precision("auto")
            retrieval = before["retrieval"] | {"text2token": known_item_retrieval(fitted, data.held_out)}
            answers = answer(fitted, list(QUESTIONS), data.held_out)
            tokens = fitted.explain(_shown(data))
        make_index(folder.result, fitted)
        folder.publish()
    return {
        "documents": len(data.held_out),
        "trained_on": len(data.texts),
        "retrieval": retrieval,
        "answers": {
            question: {"before": old, "after": new}
            for question, old, new in zip(QUESTIONS, before["answers"], answers, strict=True)
        },
        "tokens": [
            {"text": text, "before": old, "after": new}
            for text, old, new in zip(_shown(data), before["tokens"], tokens, strict=True)
        ],
    }


def _shown(data: DemoData) -> list[str]:
    """The texts whose tokens are shown."""
    return [d.summary for d in data.held_out[:5]]


def _measure_before(recipe: Recipe, data: DemoData, progress: bool) -> dict[str, Any]:
    """Scores, answers and tokens without training."""
    prompted = Embedder.open(recipe.backbone, **recipe.embedder_settings())
    with step("Measuring plain mean pooling", enabled=progress):
        plain = prompted.with_settings(pooling="mean", template=Template())
        plain.use_precision("auto")
        scores = {"plain mean pooling": known_item_retrieval(plain, data.held_out)}
        answers = answer(plain, list(QUESTIONS), data.held_out)
    with step("Measuring the same prompt without training", enabled=progress):
        prompted.use_precision("auto")
        scores["same prompt, untrained"] = known_item_retrieval(prompted, data.held_out)
        return {"retrieval": scores, "answers": answers, "tokens": prompted.explain(_shown(data))}

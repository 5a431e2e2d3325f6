"""``adapt``: correct the vectors of a language model without training it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from text2token.model.correction import correction
from text2token.model.embedder import Embedder
from text2token.model.head import mean_logits
from text2token.model.spans import correction_sample
from text2token.settings.choices import Precision
from text2token.settings.corrections import FEWEST_TEXTS
from text2token.settings.facts import CandidateFacts
from text2token.settings.recipe import Recipe
from text2token.training.card import write_cards
from text2token.training.choose import (
    CANDIDATES,
    Candidate,
    CandidateScore,
    SelectionData,
    choose,
    overlapping_pairs,
    score_candidates,
)
from text2token.training.start import CorpusLike, Draw, start_run
from text2token.training.trainer import pair_cosine
from text2token.utils.errors import UserError
from text2token.utils.processes import require_one_process

Cache = Callable[[str, Callable[[], Tensor]], Tensor]


def adapt(
    corpus: CorpusLike,
    output: str | Path,
    recipe: Recipe | None = None,
    *,
    auto: bool = False,
    text_column: str = "text",
    batch_size: int = 32,
    precision: Precision = "fp32",
    overwrite: bool = False,
    progress: bool = False,
) -> Embedder:
    """Learn a linear correction of a language model's vectors from texts, and write the same folders as :func:`text2token.fit`.

    Nothing is trained. The correction learns from ``calibration_texts`` texts; as many other texts show how well it works,
    at most a third of all.

    Args:
        corpus: The same as for :func:`text2token.fit`.
        output: New folder for ``dense``, ``sparse`` and ``run.json``.
        recipe: Backbone, pooling, template and correction. Training settings are ignored. None uses the defaults.
        auto: Choose the correction with :mod:`text2token.training.choose`. The recipe's correction is ignored, and its
            ``keep_from`` and ``keep_to`` must not be set.
        text_column: Column of the texts in a table.
        batch_size: Number of texts encoded at once.
        precision: See :meth:`text2token.Embedder.use_precision`.
        overwrite: Replace ``output`` if it holds a run, and discard an unfinished run with other settings.
        progress: Show progress bars on a terminal.

    Returns:
        The corrected embedder.

    Raises:
        UserError: Corpus, recipe, backbone or output folder cannot be used.
    """
    require_one_process("adapt")
    recipe = recipe or Recipe()
    if auto and {"keep_from", "keep_to"} & recipe.model_fields_set:
        raise UserError(
            "The correction 'auto' chooses the part of the spectrum itself: leave out `keep_from` and `keep_to`, or name the "
            "steps of the correction."
        )
    how: dict[str, Any] = {"text_column": text_column, "overwrite": overwrite, "auto": auto, "precision": precision}
    with start_run("adapt", corpus, output, recipe, adapt_draw(recipe), **how) as run:
        embedder, folder = run.embedder, run.folder
        embedder.batch_size = batch_size
        embedder.use_precision(precision)
        head = embedder.decoding_head

        def cached(
            name: str, compute: Callable[[], Tensor]
        ) -> Tensor:  # a run may continue where 'auto' is another precision
            return folder.cached(f"{embedder.precision}-{name}", compute)

        with folder.clock("encode"):
            whole = cached("whole.npy", lambda: embedder.embed(run.texts, progress=progress))
            data = selection_data(embedder, run.texts, run.held_out, recipe.seed, cached, progress=progress)
        with folder.clock("choose"):
            given = Candidate(recipe.correction, recipe.keep)
            scores = score_candidates(embedder, data, CANDIDATES if auto else [CANDIDATES[0], given], progress=progress)
        best = choose(scores, len(run.held_out)) if auto else scores[-1]
        embedder.mean_logits = mean_logits(head, whole)
        embedder.correction = correction(best.candidate.steps, data.sample, head, best.candidate.keep)
        embedder.save(folder.result)
        cosine = pair_cosine(whole)
        dense_cosine = pair_cosine(embedder.densify(whole))
        record = run.record(
            recipe=_with_correction(recipe, best.candidate),
            before={"overlap": scores[0].agreement, "pair_cosine": cosine, "pair_cosine_dense": cosine},
            after={"overlap": best.agreement, "pair_cosine": cosine, "pair_cosine_dense": dense_cosine},
            chosen="by agreement with known overlaps" if auto else "by hand",
            judged=[_describe(score) for score in scores],
            precision=embedder.precision,
        )
        write_cards(record, folder.result)
        folder.publish()
    return embedder.finished()


def adapt_draw(recipe: Recipe) -> Draw:
    """Number of texts that ``adapt`` draws: ``calibration_texts`` to learn from, and as many to score corrections on."""
    texts = recipe.calibration_texts
    return Draw("calibration_texts", texts, texts, part=3, fewest=FEWEST_TEXTS)


def selection_data(
    embedder: Embedder, texts: list[str], others: list[str], seed: int, cache: Cache, *, progress: bool = False
) -> SelectionData:
    """Embed the sample that corrections learn from and the pairs that they are scored on.

    Args:
        embedder: Makes the embeddings. Its own correction is not applied.
        texts: Texts to learn from.
        others: Other texts, to make pairs from.
        seed: Seed of spans and pairs.
        cache: Takes a file name and a function that computes vectors, and returns the vectors.
        progress: Show progress bars.
    """

    def embed(name: str, made: list[str]) -> Tensor:
        return cache(f"{name}.npy", lambda: embedder.embed(made, progress=progress))

    pairs = overlapping_pairs(others, seed)
    return SelectionData(
        embed("sample", correction_sample(texts, seed)),
        embed("left", pairs.left),
        embed("right", pairs.right),
        pairs.share,
    )


def _with_correction(recipe: Recipe, chosen: Candidate) -> Recipe:
    start, end = chosen.keep if "filter" in chosen.steps else recipe.keep
    return recipe.model_copy(update={"correction": chosen.correction, "keep_from": start, "keep_to": end})


def _describe(score: CandidateScore) -> CandidateFacts:
    keep = score.candidate.keep if "filter" in score.candidate.steps else None
    return CandidateFacts(correction=score.candidate.correction, keep=keep, overlap=score.agreement)

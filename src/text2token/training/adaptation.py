"""Adapt: a language model and a corpus in, the folders that ``fit`` writes out, without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from text2token.data.corpus import Corpus, sample
from text2token.model.correction import correction
from text2token.model.embedder import Embedder
from text2token.model.head import mean_logits
from text2token.settings.recipe import Recipe
from text2token.training.card import write_cards
from text2token.training.choose import CANDIDATES, Candidate, Evidence, Judged, choose, judge
from text2token.training.overlap import overlapping_pairs, spans
from text2token.training.pipeline import CorpusLike, describe_backbone, open_texts
from text2token.training.trainer import pair_cosine
from text2token.utils.errors import UserError
from text2token.utils.run_folder import RunFolder

Keep = Callable[[str, Callable[[], Tensor]], Tensor]
_FEWEST_TEXTS = 48  # below, what a correction learns is chance


def adapt(
    corpus: CorpusLike,
    output: str | Path,
    recipe: Recipe | None = None,
    *,
    auto: bool = False,
    text_column: str = "text",
    overwrite: bool = False,
    progress: bool = False,
) -> Embedder:
    """Correct the vectors of a language model with what texts teach about them, and write it as :func:`text2token.fit` does.

    The correction learns from two spans of each of ``calibration_texts`` texts, the zero of sparse vectors from the whole texts.
    (``fit`` and ``evaluate --correction`` learn both from whole texts.)

    Args:
        corpus: As :func:`text2token.fit` takes it.
        output: New folder: ``dense``, ``sparse``, ``run.json``.
        recipe: Backbone, pooling, template, correction; training settings are ignored. None: the defaults.
        auto: Choose by :mod:`text2token.training.choose` on half as many other texts, instead of the recipe's correction, whose
            ``keep_from`` and ``keep_to`` are then not to be set.
        text_column: Of tabular corpora.
        overwrite: Replace ``output``.
        progress: Show bars.

    Raises:
        UserError: Anything the user can mend: corpus, recipe, backbone, output folder.
    """
    recipe = recipe or Recipe()
    if auto and {"keep_from", "keep_to"} & recipe.model_fields_set:
        raise UserError(
            "The part of the spectrum, --keep-from to --keep-to, is chosen by the correction 'auto': "
            "name the steps with --correction, or leave it out."
        )
    run = RunFolder.open(Path(output), overwrite=overwrite)
    opened = open_texts(corpus, text_column)
    embedder = Embedder.open(recipe.backbone, head="original", corrected=False, **recipe.embedder_settings())
    backbone = describe_backbone(embedder, recipe)
    texts, others = draw(opened, recipe)
    fingerprint = opened.fingerprint()
    settings = {
        "verb": "adapt",
        "auto": auto,
        "recipe": recipe.model_dump(),
        "corpus": fingerprint,
        "backbone": backbone,
    }
    with run.session(settings):
        with run.clock("encode"):
            whole = run.cached("whole.npy", lambda: embedder.embed(texts, progress=progress))
            evidence = gather(embedder, texts, others, recipe.seed, run.cached, progress=progress)
        with run.clock("choose"):
            given = Candidate(recipe.correction, (recipe.keep_from, recipe.keep_to))
            judged = judge(embedder, evidence, CANDIDATES if auto else [CANDIDATES[0], given], progress=progress)
        chosen, agreement = choose(judged, len(others)) if auto else judged[-1]
        recipe = _with_correction(recipe, chosen)
        embedder.mean_logits = mean_logits(embedder.decoding_head, whole)
        embedder.correction = correction(chosen.steps, evidence.sample, embedder.decoding_head, chosen.keep)
        embedder.save(run.result)
        plain = pair_cosine(whole)
        record = run.record(
            {
                "recipe": recipe.model_dump(),
                "seed": recipe.seed,
                "corpus": {"name": opened.name, "fingerprint": fingerprint, "texts": len(texts) + len(others)},
                "backbone": backbone,
                "before": {"overlap": judged[0].agreement, "pair_cosine": plain, "pair_cosine_dense": plain},
                "after": {
                    "overlap": agreement,
                    "pair_cosine": plain,
                    "pair_cosine_dense": pair_cosine(embedder.densify(whole)),
                },
                "chosen": "by agreement with known overlaps" if auto else "by hand",
                "judged": [_describe(row) for row in judged],
            }
        )
        write_cards(record, run.result)
        run.publish()
    return embedder


def draw(corpus: Corpus, recipe: Recipe) -> tuple[list[str], list[str]]:
    """Texts to learn from, and half as many to judge on.

    Raises:
        UserError: There are too few.
    """
    drawn = sample(corpus, recipe.calibration_texts * 3 // 2, recipe.seed)
    if len(drawn) < _FEWEST_TEXTS:
        raise UserError(
            f"The corpus '{corpus.name}' and --calibration-texts give {len(drawn)} distinct texts, too few to learn from: "
            f"give at least {_FEWEST_TEXTS}, better some thousands."
        )
    kept = len(drawn) // 3
    return drawn[kept:], drawn[:kept]


def gather(
    embedder: Embedder, texts: list[str], others: list[str], seed: int, keep: Keep, *, progress: bool = False
) -> Evidence:
    """What a correction learns from, and what a choice is judged on.

    Args:
        embedder: Untrained or not.
        texts: To learn from; two spans of each, since a covariance takes several times more vectors than it has dimensions.
        others: To judge on.
        seed: Of spans and pairs.
        keep: Called with the name of a ``.npy`` file and a function that computes the vectors; returns the vectors.
        progress: Show bars.
    """

    def embed(name: str, made: list[str]) -> Tensor:
        return keep(f"{name}.npy", lambda: embedder.embed(made, progress=progress))

    pairs = overlapping_pairs(others, seed)
    return Evidence(
        embed("spans", spans([*texts, *texts], seed)),
        embed("left", pairs.left),
        embed("right", pairs.right),
        pairs.share,
    )


def _with_correction(recipe: Recipe, chosen: Candidate) -> Recipe:
    start, end = chosen.keep if "filter" in chosen.steps else (recipe.keep_from, recipe.keep_to)
    return recipe.model_copy(update={"correction": chosen.correction, "keep_from": start, "keep_to": end})


def _describe(row: Judged) -> dict[str, object]:
    keep = row.candidate.keep if "filter" in row.candidate.steps else None
    return {"correction": row.candidate.correction, "keep": keep, "overlap": row.agreement}

"""Computes a spectrum from two models and a corpus, and writes its data and figures. A killed run can be continued."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from more_itertools import chunked
from torch import Tensor

from text2token.analysis.spectrum import (
    Moments,
    contributions,
    parse_shift,
    principal_components,
    shift_rows,
    shifts,
)
from text2token.analysis.spectrum_figures import draw_contribution, draw_shift, draw_variation
from text2token.analysis.sts import EmbeddedPairs
from text2token.data.corpus import Corpus
from text2token.data.sts import ScoredPairs, pairs_fingerprint
from text2token.model.embedder import Embedder
from text2token.model.fingerprint import embedder_fingerprint
from text2token.model.vocabulary import same_tokens
from text2token.settings.record import RECORD, SpectrumRecord
from text2token.utils.errors import UserError, check_count
from text2token.utils.figures import write_figure
from text2token.utils.files import write_json
from text2token.utils.places import check_outside
from text2token.utils.progress import progress_bar
from text2token.utils.resume import load, save
from text2token.utils.run_folder import RunFolder

_CHUNK = 512  # texts between two checkpoints: half a minute to a few minutes of encoding on a CPU
_EXAMPLES = 5  # texts whose tokens are shown
SHIFTS = ("sweep", "zero")
Models = tuple[Embedder, Embedder]
"""The base and the tuned model."""


def run_spectrum(
    models: Models,
    corpus: Corpus,
    output: str | Path,
    settings: dict[str, Any],
    *,
    centred: bool = False,
    shift: Sequence[str] = SHIFTS,
    max_texts: int | None = None,
    aligned: int = 500,
    pairs: ScoredPairs | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Compute a spectrum, write it to ``output`` as ``spectrum.json``, Parquet tables, SVG and PNG, and return it.

    Args:
        models: Base and tuned model, opened with ``corrected=False``; the base also with ``head="original"``.
        corpus: Texts, read batch by batch.
        output: New folder.
        settings: Stored in ``run.json``, for example the names of the models. An unfinished run is continued only if they are
            the same, and the content of models, texts and pairs is the same.
        centred: See :func:`text2token.analysis.spectrum.principal_components`.
        shift: See :func:`text2token.analysis.spectrum.shifts`.
        max_texts: Use so many texts from the start of the corpus. None: all.
        aligned: Decode so many texts from the start. 500 (ours): rates are then exact to about two points, and a sweep takes a
            minute.
        pairs: Adds STS to each shift.
        overwrite: Replace ``output`` if it exists.
        progress: Show progress bars.

    Raises:
        UserError: The models have different dimensions or tokens, a shift is unknown, there is only one text, a number of texts
            is below 1, or the output exists.
    """
    check_count("aligned", aligned)
    if max_texts is not None:
        check_count("max_texts", max_texts)
    base, tuned = models
    for name in shift:
        parse_shift(name)  # refuse an unknown shift before the texts are encoded
    _check_models(base, tuned)
    run = RunFolder.open(output, overwrite=overwrite)
    check_outside(run.output, *corpus.opened)
    texts = list(islice(corpus, min(aligned, max_texts or aligned)))
    kept = {**settings, "centred": centred, "shift": list(shift), "max_texts": max_texts, "aligned": aligned}
    content = {
        "models": [embedder_fingerprint(model) for model in models],
        "corpus_fingerprint": corpus.fingerprint(max_texts),
        "pairs_fingerprint": pairs_fingerprint(pairs),
    }
    with run.session({**kept, **content}):
        with run.clock("encode"):
            embedded = [
                run.cached(f"{name}.npy", partial(model.embed, texts, progress=progress))
                for name, model in (("base", base), ("tuned", tuned))
            ]
            moments = _stream(run, models, embedded, islice(corpus, len(texts), max_texts), progress)
        if moments.texts < 2:
            raise UserError(f"'{corpus.name}' has only one text, and a spectrum needs at least two: give more texts.")
        with run.clock("read"):
            sts = [EmbeddedPairs.embed(model, pairs, progress=progress) for model in models] if pairs else None
            result = kept | analyse(models, embedded, moments, texts, centred=centred, shift=shift, pairs=sts)
        write_spectrum(result, run.result)
        SpectrumRecord.of({**run.origin(), **content, "settings": kept}).write(run.result / RECORD)
        run.publish()
    return result


def analyse(
    models: Models,
    embedded: Sequence[Tensor],
    moments: Moments,
    texts: Sequence[str],
    *,
    centred: bool = False,
    shift: Sequence[str] = SHIFTS,
    pairs: Sequence[EmbeddedPairs] | None = None,
) -> dict[str, Any]:
    """Compute the content of ``spectrum.json``.

    Args:
        models: Base and tuned model.
        embedded: The embeddings of ``texts`` by each model, N×d.
        moments: Sums over ``texts`` and any other texts.
        texts: N texts that are decoded.
        centred: See :func:`run_spectrum`.
        shift: See :func:`run_spectrum`.
        pairs: The pairs embedded by each model; adds STS.
    """
    base, tuned = models
    components = principal_components(moments, centred=centred)
    values = shifts(components, shift)
    reader = Embedder(tuned.encoder, base.head)
    (unshifted,) = shift_rows(
        reader, embedded[1], texts, components.first, [0.0], pairs[1] if pairs else None, _EXAMPLES
    )
    return {
        "texts": int(moments.texts),
        "v1": float(components.variation[0]),
        "zero": -float(components.mean[0]),
        "components": components.rows(),
        "contribution": contributions(base, embedded[0][:_EXAMPLES], components),
        "contribution_texts": list(texts[:_EXAMPLES]),
        "shift_rows": shift_rows(
            base, embedded[0], texts, components.first, values, pairs[0] if pairs else None, _EXAMPLES
        ),
        "tuned": {name: value for name, value in unshifted.items() if name != "shift"},
    }


def write_spectrum(result: dict[str, Any], folder: Path) -> None:
    """Write ``spectrum.json``, and for each of its parts a Parquet table and a figure as SVG and PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "spectrum.json", result)
    parts = {
        "variation": (result["components"], draw_variation),
        "contribution": (result["contribution"], draw_contribution),
        "shift": (result["shift_rows"], draw_shift),
    }
    for name, (rows, draw) in parts.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
        write_figure(draw(result), folder, name)


def _check_models(base: Embedder, tuned: Embedder) -> None:
    """Check that the head of the base can read the embeddings of the tuned model."""
    own, other = (model.encoder.get_embedding_dimension() for model in (base, tuned))
    if own != other:
        raise UserError(
            f"The base has {own} dimensions and the tuned model {other}: name the language model that the tuned model was made "
            "from as the base."
        )
    if not same_tokens(base.tokenizer, tuned.tokenizer):
        raise UserError(
            "The base and the tuned model have different tokenizers: name the language model that the tuned model was made from "
            "as the base."
        )


def _stream(run: RunFolder, models: Models, first: list[Tensor], rest: Iterator[str], progress: bool) -> Moments:
    """Sum over the embeddings that exist already and over the rest of the texts. Each chunk ends with a checkpoint."""
    file = run.work / "moments.npz"
    if saved := load(file):
        moments = Moments(**saved)
    else:
        moments = Moments.none(first[0].shape[1])
        moments.add(*first)
    with progress_bar(enabled=progress) as bar:
        task = bar.add_task("Embedding twice", total=None, completed=moments.texts, unit="texts", note="")
        for chunk in chunked(islice(rest, int(moments.texts) - len(first[0]), None), _CHUNK):
            moments.add(*(model.embed(chunk) for model in models))
            save(file, asdict(moments))
            bar.update(task, completed=int(moments.texts))
    return moments

"""Align: which tokens do the embeddings of texts decode to, and are they the texts' own?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import sparse
from torch import Tensor

from text2token.analysis.categories import TokenCategories
from text2token.analysis.metrics import AlignmentRates
from text2token.model.embedder import Embedder
from text2token.model.head import mean_logits
from text2token.model.template import room_for_text
from text2token.model.vocabulary import Vocabulary, count_tokens, read_vocabulary
from text2token.utils.errors import UserError
from text2token.utils.progress import track

_LOGITS = (
    2**21
)  # decoded at once: 8 MB of float32, which stay in the caches of a CPU and leave no large holes in memory


class Reading(NamedTuple):
    """How token logits and literal tokens are compared.

    Attributes:
        k: Aligned tokens that Hit@K and the categories look at. 10 is the paper's.
        forms: ``ids``: tokens are vocabulary entries; ``merged``: entries that differ in case and leading space are one.
        special: Count the special tokens that the tokenizer puts around a text as its own; the released code does.
        paper: Reproduce the released code's metrics, see :class:`text2token.analysis.metrics.AlignmentRates`.
        centred: Read logits less their mean over the texts, as sparse vectors and ``explain`` do; the paper reads plain ones.
        stop_words: Languages of the stop lists behind "meaningful".
    """

    k: int = 10
    forms: Literal["ids", "merged"] = "ids"
    special: bool = False
    paper: bool = False
    centred: bool = False
    stop_words: str = "en"


def align(
    embedder: Embedder, texts: Sequence[str], reading: Reading | None = None, *, progress: bool = False
) -> dict[str, Any]:
    """Alignment rates and token categories of an embedder on texts.

    Args:
        embedder: Opened with its original head and without correction.
        texts: Those without a token are left out.
        reading: None: the paper's definitions on exact ids, without special tokens.
        progress: Show bars.

    Returns:
        ``rates`` (see :meth:`AlignmentRates.rates`), ``categories`` and ``categories_by_rank`` (see
        :class:`text2token.analysis.categories.TokenCategories`), ``texts``, and ``seconds`` of encoding and of reading.

    Raises:
        UserError: No text has a token, or the vocabulary has fewer than ``k``.
    """
    reading = reading or Reading()
    if reading.k > embedder.vocabulary_size:
        raise UserError(
            f"The vocabulary has {embedder.vocabulary_size:,} tokens and -k asks for {reading.k:,}: lower it."
        )
    started = time.perf_counter()
    embeddings = embedder.embed(texts, progress=progress)
    encoded = time.perf_counter()
    result = align_embeddings(embedder, embeddings, texts, reading, progress=progress)
    result["seconds"] = {"encoding": encoded - started, "reading": time.perf_counter() - encoded}
    return result


def align_embeddings(
    embedder: Embedder, embeddings: Tensor, texts: Sequence[str], reading: Reading, *, progress: bool = False
) -> dict[str, Any]:
    """As :func:`align`, of embeddings N×d that are there already."""
    head, size = embedder.decoding_head, embedder.vocabulary_size
    vocabulary = read_vocabulary(embedder.tokenizer, size, reading.stop_words)
    groups = vocabulary.surface_groups if reading.forms == "merged" else np.arange(size)
    counts = literal_tokens(embedder, texts, vocabulary, special=reading.special)
    kept = np.flatnonzero(np.diff(counts.indptr))
    if not len(kept):
        raise UserError("No text has a token, so there is nothing to align with: give other texts.")
    centre = mean_logits(head, embeddings) if reading.centred else 0.0
    rates = AlignmentRates(groups, reading.k, reading.paper)
    categories = TokenCategories(vocabulary, reading.k)
    batch = max(1, _LOGITS // size)
    starts = range(0, len(kept), batch)
    for start in track(starts, "Reading", unit="texts", each=batch, enabled=progress):
        rows = kept[start : start + batch]
        logits = head.uncapped(embeddings[rows]) - centre
        rates.add(logits, counts[rows])
        categories.add(logits, counts[rows])
    return {
        "rates": rates.rates(),
        "categories": categories.shares(),
        "categories_by_rank": categories.by_rank(),
        "texts": len(kept),
    }


def literal_tokens(
    embedder: Embedder, texts: Sequence[str], vocabulary: Vocabulary, *, special: bool
) -> sparse.csr_matrix:
    """Literal tokens that the embedder reads of each text, N×V counts; those that its template adds are not the text's.

    Args:
        embedder: Whose tokenizer, with template and length.
        texts: N.
        vocabulary: Of the backbone.
        special: Count the tokenizer's own special tokens (``<bos>``, ``[CLS]``) too.
    """
    tokenizer, size = embedder.tokenizer, len(vocabulary.special)
    counts = count_tokens(tokenizer, texts, size, room_for_text(tokenizer, tokenizer.model_max_length))
    own = ~vocabulary.special[counts.indices]
    counts.data *= own
    counts.eliminate_zeros()
    if special:
        # a template may have unknowns, and end in a mask
        template = {tokenizer.unk_token_id, tokenizer.mask_token_id}
        ids = [i for i in tokenizer("")["input_ids"] if vocabulary.special[i] and i not in template]
        added = np.bincount(ids, minlength=size).astype(np.float32)
        counts += sparse.csr_matrix(np.ones((len(texts), 1), np.float32)) @ sparse.csr_matrix(added)
    return counts

"""Measures how well the embeddings of texts decode to the tokens of these texts, and compares embedders in a figure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import sparse
from tokenizers import Tokenizer
from torch import Tensor

from text2token.analysis.metrics import CATEGORIES, AlignmentRates, TokenCategories
from text2token.model.embedder import Embedder
from text2token.model.encoding import default_prompt
from text2token.model.head import mean_logits
from text2token.model.template import room_for_text
from text2token.model.tokens import count_tokens
from text2token.model.vocabulary import Vocabulary, read_vocabulary
from text2token.utils.errors import UserError, check_choice, check_count
from text2token.utils.figures import BLUES, GREY, ORANGE, figure_style, write_figure
from text2token.utils.files import local_path, write_json
from text2token.utils.progress import track
from text2token.utils.provenance import record

RATES = {"hit": "Hit@{k}", "local": "local", "global": "global"}
_LOGITS = 2**21  # decoded at once: 8 MB of float32 fit into the caches of a CPU and do not fragment its memory
_CATEGORY_COLOURS = (BLUES[0], BLUES[2], ORANGE, GREY)

Alignments = Mapping[str, Mapping[str, Any]]
"""Results of :func:`align` by the name of the embedder."""


class AlignmentSettings(NamedTuple):
    """Settings for comparing token logits with literal tokens.

    Attributes:
        k: Aligned tokens for Hit@K and for the categories. The paper uses 10.
        forms: ``ids`` compares vocabulary entries. ``merged`` ignores case and leading spaces.
        special: Also count the special tokens that the tokenizer puts around a text. The released code does.
        paper: Count as the released code of the paper, see :class:`~text2token.analysis.metrics.AlignmentRates`.
        centred: Subtract the mean logits over the texts, as sparse vectors and ``explain`` do. The paper reads plain logits.
        stop_words: Languages of the stop lists that define meaningful tokens.
    """

    k: int = 10
    forms: Literal["ids", "merged"] = "ids"
    special: bool = False
    paper: bool = False
    centred: bool = False
    stop_words: str = "en"


def align(
    embedder: Embedder,
    texts: Sequence[str],
    settings: AlignmentSettings | None = None,
    *,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure the alignment rates and token categories of an embedder on texts.

    Args:
        embedder: Opened with ``head="original"`` and ``corrected=False``.
        texts: Texts without any token are ignored.
        settings: None: the definitions of the paper, as we understand them, on exact ids and without special tokens.
        progress: Show progress bars.

    Returns:
        ``rates`` (see :meth:`AlignmentRates.rates`), ``categories`` and ``categories_by_rank`` (see
        :class:`TokenCategories`), the number of ``texts``, and ``seconds`` for encoding and for reading the logits.

    Raises:
        UserError: No text has a token, there are no such ``forms``, or ``k`` is below 1 or above the number of tokens in the
            vocabulary.
    """
    settings = settings or AlignmentSettings()
    check_count("k", settings.k)
    check_choice("forms", settings.forms, ("ids", "merged"))
    if settings.k > embedder.vocabulary_size:
        raise UserError(
            f"The vocabulary has only {embedder.vocabulary_size:,} tokens: lower `k`, which is {settings.k:,}."
        )
    started = time.perf_counter()
    embeddings = embedder.embed(texts, progress=progress)
    encoded = time.perf_counter()
    result = align_embeddings(embedder, embeddings, texts, settings, progress=progress)
    result["seconds"] = {"encoding": encoded - started, "reading": time.perf_counter() - encoded}
    return result


def align_embeddings(
    embedder: Embedder, embeddings: Tensor, texts: Sequence[str], settings: AlignmentSettings, *, progress: bool = False
) -> dict[str, Any]:
    """Do the same as :func:`align` for embeddings, N×d, that exist already."""
    head, size = embedder.decoding_head, embedder.vocabulary_size
    vocabulary = read_vocabulary(embedder.tokenizer, size, settings.stop_words)
    groups = vocabulary.surface_groups if settings.forms == "merged" else np.arange(size)
    counts = literal_tokens(embedder, texts, vocabulary, special=settings.special)
    with_tokens = np.flatnonzero(np.diff(counts.indptr))
    if not len(with_tokens):
        raise UserError("No text has a token, so there is nothing to align with: give other texts.")
    centre = mean_logits(head, embeddings) if settings.centred else 0.0
    rates = AlignmentRates(groups, settings.k, settings.paper)
    categories = TokenCategories(vocabulary, settings.k)
    missing = torch.from_numpy(~vocabulary.exists)
    batch = max(1, _LOGITS // size)
    starts = range(0, len(with_tokens), batch)
    for start in track(starts, "Decoding", unit="texts", each=batch, enabled=progress):
        rows = with_tokens[start : start + batch]
        uncapped = head.uncapped(embeddings[rows])
        logits = (uncapped - centre).masked_fill_(missing, -torch.inf)
        weighed = logits if settings.centred else head.cap(uncapped).masked_fill_(missing, -torch.inf)
        rates.add(logits, counts[rows])
        categories.add(logits, counts[rows], weighed)
    return {
        "rates": rates.rates(),
        "categories": categories.shares(),
        "categories_by_rank": categories.by_rank(),
        "texts": len(with_tokens),
    }


def literal_tokens(
    embedder: Embedder, texts: Sequence[str], vocabulary: Vocabulary, *, special: bool
) -> sparse.csr_matrix:
    """Count the tokens of each text that the embedder reads, N×V. Tokens of its template and default prompt are not counted.

    Args:
        embedder: Gives the tokenizer, the template, the default prompt and the maximum length.
        texts: N texts.
        vocabulary: The vocabulary of the backbone.
        special: Also count the tokenizer's own special tokens (``<bos>``, ``[CLS]``).
    """
    tokenizer, size = embedder.tokenizer, len(vocabulary.special)
    if isinstance(tokenizer, Tokenizer):  # of a static model, which has no template and reads whole texts
        room, special = None, False
    else:
        room = room_for_text(tokenizer, tokenizer.model_max_length, default_prompt(embedder.encoder))
    counts = count_tokens(tokenizer, texts, size, room)
    own = ~vocabulary.special[counts.indices]
    counts.data *= own
    counts.eliminate_zeros()
    if special:
        # a template can contain unknown tokens, and can end in a mask
        template = {tokenizer.unk_token_id, tokenizer.mask_token_id}
        around = [i for i in tokenizer("")["input_ids"] if i < size]
        ids = [i for i in around if vocabulary.special[i] and i not in template]
        added = np.bincount(ids, minlength=size).astype(np.float32)
        counts += sparse.csr_matrix(np.ones((len(texts), 1), np.float32)) @ sparse.csr_matrix(added)
    return counts


def write_alignment(alignments: Alignments, settings: Mapping[str, Any], output: str | Path) -> None:
    """Write ``align.json`` (with versions, command and settings), ``align.svg`` and ``align.png`` to a folder."""
    output = local_path(output)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "align.json", {**record(), "settings": dict(settings), "models": dict(alignments)})
    write_figure(draw_alignment(alignments, settings["k"]), output, "align")


def draw_alignment(alignments: Alignments, k: int) -> Figure:
    """Draw the alignment rates of each embedder on the left, and the categories of its first ``k`` tokens on the right."""
    names = list(alignments)
    rows = np.arange(len(names))
    with figure_style():
        figure = Figure(figsize=(10.0, 1.6 + 0.55 * len(names)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for number, (key, label) in enumerate(RATES.items()):
            values = [alignments[name]["rates"][key] for name in names]
            left.barh(rows + 0.26 * (number - 1), values, 0.24, color=BLUES[number], label=label.format(k=k))
        start = np.zeros(len(names))
        for category, colour in zip(CATEGORIES, _CATEGORY_COLOURS, strict=True):
            shares = np.array([alignments[name]["categories"][category] for name in names])
            right.barh(rows, shares, 0.6, left=start, color=colour, label=category)
            start += shares
        titles = "alignment rates", f"categories of the first {k} aligned tokens, share of their mass"
        for axes, title in zip((left, right), titles, strict=True):
            axes.set_xlim(0, 1)
            axes.set_title(title, loc="left", fontsize=10)
            axes.grid(axis="y", visible=False)
            below = (0.5, -0.12 - 0.1 / len(names))
            axes.legend(loc="upper center", bbox_to_anchor=below, ncols=4, frameon=False, fontsize=9)
        left.set_yticks(rows, names)
        left.invert_yaxis()
    return figure

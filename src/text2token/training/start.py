"""The start and the end that ``fit``, ``adapt`` and ``baseline`` have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from text2token.data.corpus import Corpus, open_corpus, sample
from text2token.model.embedder import Embedder
from text2token.model.fingerprint import backbone_checksum
from text2token.model.names import from_anywhere
from text2token.model.packed_product import limit_kernels
from text2token.settings.facts import BackboneFacts, CorpusFacts
from text2token.settings.recipe import Recipe
from text2token.settings.record import RECORD, RunRecord
from text2token.utils.errors import UserError
from text2token.utils.places import check_outside
from text2token.utils.processes import on_main
from text2token.utils.run_folder import RunFolder

_KERNELS = 64  # enough for one step; the memory of a long training stays as small as that of a short one

CorpusLike = Corpus | Sequence[str] | str | Path
"""A file, folder, glob, hub name or ``-``; a list of texts; or an opened corpus."""


class Draw(NamedTuple):
    """Limits on the number of texts that a run draws from its corpus.

    Attributes:
        setting: The recipe's setting that limits ``texts``, for messages.
        texts: Maximum number of texts to learn from.
        held_out: Maximum number of texts that are held out.
        part: At most one in ``part`` of the drawn texts is held out, so that a small corpus keeps enough to learn from.
        fewest: Minimum number of distinct texts; a corpus with fewer is refused.
    """

    setting: str
    texts: int
    held_out: int
    part: int
    fewest: int


class Drawn(NamedTuple):
    """The texts of a run, drawn at random, without duplicates."""

    texts: list[str]
    held_out: list[str]


@dataclass(frozen=True)
class Run:
    """A run that has started.

    Attributes:
        verb: The command.
        folder: The output folder, locked for this process.
        recipe: All settings.
        corpus: The opened corpus.
        facts: The record of the corpus.
        backbone: The record of the untrained backbone.
        embedder: The untrained backbone with its decoding head.
        texts: Texts to learn from.
        held_out: Texts that are never learnt from.
    """

    verb: str
    folder: RunFolder
    recipe: Recipe
    corpus: Corpus
    facts: CorpusFacts
    backbone: BackboneFacts
    embedder: Embedder
    texts: list[str]
    held_out: list[str]

    def record(self, **facts: Any) -> RunRecord:
        """Write ``run.json`` into the result folder.

        Args:
            facts: Fields of :class:`RunRecord` that this run has beyond the common ones. ``recipe`` replaces the run's own.
        """
        common = {"verb": self.verb, "recipe": self.recipe, "corpus": self.facts, "backbone": self.backbone}
        record = RunRecord.of(self.folder.origin() | common | facts)
        record.write(self.folder.result / RECORD)
        return record


@contextmanager
def start_run(
    verb: str,
    corpus: CorpusLike,
    output: str | Path,
    recipe: Recipe,
    amount: Draw,
    *,
    text_column: str,
    overwrite: bool,
    **settings: Any,
) -> Iterator[Run]:
    """Open everything that a run needs, and lock its output folder.

    The corpus is read once here: the same pass draws the texts and computes the fingerprint.

    Args:
        verb: The command.
        corpus: Texts in any form.
        output: Folder for the result.
        recipe: All settings.
        amount: Number of texts to draw.
        text_column: Column of the texts in a table.
        overwrite: Replace ``output``.
        settings: Further arguments of the command. An unfinished run is continued only if they are equal.

    Raises:
        UserError: Output, corpus or backbone cannot be used, or the corpus has too few texts.
    """
    limit_kernels(_KERNELS)
    folder = on_main(lambda: RunFolder.open(output, overwrite=overwrite))
    opened = as_corpus(corpus, text_column)
    check_outside(folder.output, *opened.opened)
    embedder = open_backbone(recipe)
    backbone = on_main(lambda: describe_backbone(embedder, recipe.backbone))
    drawn, facts = on_main(lambda: read_corpus(opened, amount, recipe.seed))
    content = {"corpus": facts.fingerprint, "backbone": backbone.model_dump(), "recipe": recipe.model_dump()}
    with folder.session({"verb": verb, **settings, **content}):
        yield Run(verb, folder, recipe, opened, facts, backbone, embedder, *drawn)


def as_corpus(corpus: CorpusLike, text_column: str) -> Corpus:
    """Open a corpus that is not open yet."""
    if isinstance(corpus, Corpus):
        return corpus
    if isinstance(corpus, str | Path):
        return open_corpus(corpus, text_column=text_column)
    return Corpus.from_texts(corpus)


def open_backbone(recipe: Recipe) -> Embedder:
    """The untrained embedder of a recipe, with the backbone's own decoding head."""
    return Embedder.open(recipe.backbone, head="original", corrected=False, **recipe.embedder_settings())


def describe_backbone(embedder: Embedder, name: str) -> BackboneFacts:
    """The record of the backbone that a run starts from.

    Args:
        embedder: The backbone. Its decoding head knows the language model that it was loaded from, even if ``name`` is a model
            that was fitted before.
        name: The name in the recipe.
    """
    vocabulary, dimension = embedder.decoding_head.weight.shape
    return BackboneFacts(
        name=name,
        source=_printable(from_anywhere(embedder.decoding_head.source or name)),
        dimension=dimension,
        vocabulary=vocabulary,
        sha256=backbone_checksum(embedder),
    )


def read_corpus(corpus: Corpus, amount: Draw, seed: int) -> tuple[Drawn, CorpusFacts]:
    """Draw texts and compute the fingerprint of the corpus in one pass.

    Raises:
        UserError: There are too few distinct texts.
    """
    digest, count = hashlib.sha256(), 0

    def counted() -> Iterator[str]:
        nonlocal count
        for text in corpus:
            digest.update(text.encode() + b"\0")
            count += 1
            yield text

    most = amount.texts + amount.held_out
    drawn = sample(counted(), most, seed)
    if len(drawn) < amount.fewest:
        source = f"The setting `{amount.setting}` allows" if len(drawn) == most else f"The corpus '{corpus.name}' has"
        raise UserError(
            f"{source} {len(drawn)} distinct text{'s' * (len(drawn) != 1)}, too few to learn from: "
            f"give at least {amount.fewest}, better some thousands."
        )
    kept = min(amount.held_out, max(2, len(drawn) // amount.part))
    facts = CorpusFacts(name=_printable(corpus.name), fingerprint=digest.hexdigest(), texts=count)
    return Drawn(drawn[kept:][: amount.texts], drawn[:kept]), facts


def _printable(name: str) -> str:
    """A path with escapes in place of bytes that are not valid UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()

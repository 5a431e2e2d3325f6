"""A teacher: a finished embedder whose similarities a training follows beside its token targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from text2token.model.embedder import Embedder
from text2token.model.fingerprint import embedder_fingerprint
from text2token.model.saved import is_saved
from text2token.model.template import room_for_text
from text2token.model.tokens import first_tokens
from text2token.settings.facts import TeacherFacts
from text2token.utils.errors import UserError


@dataclass(frozen=True)
class Teacher:
    """An opened teacher.

    Attributes:
        embedder: Gives the vectors.
        facts: Its name and fingerprint.
        train_length: The teacher reads as much of a text as the student reads in training, which is at most this many tokens with
            the template. Otherwise the student would have to follow what it does not see.
    """

    embedder: Embedder
    facts: TeacherFacts
    train_length: int

    @classmethod
    def open(cls, name: str, train_length: int) -> Teacher:
        """Open a teacher by its name. It encodes in bf16 where the hardware has it.

        Args:
            name: A model of sentence-transformers, a folder that ``fit``, ``adapt`` or ``distill`` wrote, or a packaged embedder.
            train_length: See the class.

        Raises:
            UserError: It is not a finished embedder, cannot be loaded, or was made for another similarity than the cosine.
        """
        if not is_saved(name):
            raise UserError(
                f"The teacher '{name}' is not a finished embedder: name a folder of sentence-transformers or of "
                "'text2token fit', or all-minilm-l6-v2."
            )
        embedder = Embedder.open(name)
        if embedder.similarity != "cosine":
            raise UserError(
                f"The teacher '{name}' was made for the similarity {embedder.similarity}, and only cosines can be followed: "
                "choose another one."
            )
        facts = TeacherFacts(name=name, fingerprint=embedder_fingerprint(embedder))
        embedder.use_precision("auto")
        return cls(embedder, facts, train_length)

    @property
    def settings(self) -> dict[str, object]:
        """Everything except text and tokenizer that the vectors depend on."""
        return {"fingerprint": self.facts.fingerprint, "train_length": self.train_length}

    def __call__(self, texts: Sequence[str], reader: PreTrainedTokenizerBase) -> NDArray[np.float16]:
        """Encode texts, N×t. The error of half precision is far below that of the similarities that a student can learn.

        Args:
            texts: N texts.
            reader: Tokenizer of the student, with its template.
        """
        read = first_tokens(reader, texts, room_for_text(reader, self.train_length))
        return self.embedder.encode(read).astype(np.float16)

"""Turn texts of requests into token ids, with the template of the model around each text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from text2token.model.embedder import Embedder
from text2token.model.template import own_special_tokens
from text2token.model.tokens import find_backend, untruncated
from text2token.serving.errors import ApiError
from text2token.utils.errors import UserError

Direction = Literal["left", "right"]
_CHARACTERS = 64  # Characters kept for each token of a cut text. The rest would be cut anyway, so it is not tokenized.


class RequestTokenizer:
    """Tokenizes the texts of requests.

    It uses a copy of the tokenizer that never truncates or pads. Several threads share the copy, so its settings must not change.

    Args:
        embedder: Model whose tokenizer, template and length are used.

    Raises:
        UserError: The model is neither a transformer nor a static table, or it has no fast tokenizer.
    """

    def __init__(self, embedder: Embedder) -> None:
        body = embedder.encoder[0]
        static = isinstance(body, StaticEmbedding)
        if find_backend(embedder.tokenizer) is None or not (static or hasattr(body, "model")):
            raise UserError(
                "The server needs a transformer or a student with a fast tokenizer, and this model is none: serve another model."
            )
        self._before, self._after = ([], []) if static else own_special_tokens(embedder.tokenizer)
        self._backend = untruncated(embedder.tokenizer)
        table = body.embedding if static else body.model.get_input_embeddings()
        self.vocabulary_size = table.weight.shape[0]
        self.max_length = embedder.max_length

    def encode(
        self, texts: Sequence[str], prompt: str = "", *, truncate: bool | None = None, direction: Direction = "right"
    ) -> list[list[int]]:
        """Return the token ids of texts, template included.

        Args:
            texts: Texts, none of them empty.
            prompt: Text before each text, inside the template.
            truncate: Cut a text that is too long. None: the request has no such setting, and the error does not name it.
            direction: End at which a text is cut.

        Raises:
            ApiError: A text is empty, or it is too long and ``truncate`` is not set.
        """
        if empty := [place for place, text in enumerate(texts) if not text.strip(" \0\t\r\n")]:
            raise ApiError(422, f"Input {empty[0]} has no text: send one, or leave it out.", "Empty", param="input")
        if truncate:
            most = self.max_length * _CHARACTERS
            texts = [text[:most] if direction == "right" else text[-most:] for text in texts]
        encodings = self._backend.encode_batch([prompt + text for text in texts], add_special_tokens=False)
        return [self.around(encoding.ids, truncate=truncate, direction=direction) for encoding in encodings]

    def around(self, ids: Sequence[int], *, truncate: bool | None = None, direction: Direction = "right") -> list[int]:
        """Put the template around the token ids of one text. Arguments and errors are those of :meth:`encode`."""
        room = self.max_length - len(self._before) - len(self._after)
        if len(ids) > room:
            if not truncate:
                way_out = "shorten it" if truncate is None else "shorten it, or set truncate"
                raise ApiError(
                    422,
                    f"A text has {len(ids)} tokens, but the model reads at most {room}: {way_out}.",
                    "Tokenizer",
                    param="input",
                    code="context_length_exceeded",
                )
            ids = ids[:room] if direction == "right" else ids[-room:]
        return [*self._before, *ids, *self._after]

    def check_ids(self, ids: Sequence[int]) -> None:
        """Check token ids of a request.

        Raises:
            ApiError: There are no ids, or an id is outside the vocabulary.
        """
        if not ids:
            raise ApiError(422, "A list of token ids is empty: send at least one id.", "Empty", param="input")
        if wrong := [token for token in ids if not 0 <= token < self.vocabulary_size]:
            raise ApiError(
                422,
                f"The token id {wrong[0]} is outside the vocabulary of the model, which has {self.vocabulary_size} entries: "
                "send ids of its own tokenizer, or text.",
                param="input",
            )

    def pieces(self, text: str, *, special: bool) -> list[tuple[int, str, bool, int | None, int | None]]:
        """Return the tokens of a text: id, surface, whether it belongs to the template, and its first and last character.

        Args:
            text: One text.
            special: Include the template.
        """
        around = special and bool(self._before or self._after)  # a static table reads no special tokens
        encoding = self._backend.encode(text, add_special_tokens=around)
        rows = zip(encoding.ids, encoding.special_tokens_mask, encoding.offsets, strict=True)
        return [
            (token, self._surface(token), bool(mask), None if mask else start, None if mask else end)
            for token, mask, (start, end) in rows
        ]

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        """Return the text of token ids."""
        self.check_ids(ids)
        return str(self._backend.decode(list(ids), skip_special_tokens=skip_special))

    def _surface(self, token: int) -> str:
        return str(self._backend.decode([token], skip_special_tokens=False))

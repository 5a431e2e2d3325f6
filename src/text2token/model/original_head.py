"""Open the decoding head of another language model, or of the backbone that an embedder was made from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError
from sentence_transformers import SentenceTransformer
from yaml import YAMLError

from text2token.model.adapter_folder import base_of_adapter
from text2token.model.backbone import load_head, load_tokenizer
from text2token.model.head import DecodingHead
from text2token.model.packaged import REFERENCES, fetch
from text2token.model.saved import PARTS
from text2token.model.vocabulary import same_tokens
from text2token.settings.record import RECORD, RunRecord
from text2token.utils.errors import PassingError, UserError
from text2token.utils.files import local_path


def open_head(head: str, name: str, encoder: SentenceTransformer) -> DecodingHead:
    """Load a decoding head for the model ``name``, and check that it fits.

    Args:
        head: ``original`` for :func:`find_original_head`, or the name of a language model.
        name: The model whose embeddings the head reads.
        encoder: Makes these embeddings.

    Raises:
        UserError: The head cannot be loaded, or it has another dimension or the tokens of another tokenizer.
    """
    found = find_original_head(name) if head == "original" else load_head(head)
    own, dimension = found.weight.shape[1], encoder.get_embedding_dimension()
    if own != dimension:
        raise UserError(
            f"The decoding head has {own} dimensions, the embeddings of '{name}' have {dimension}: set `head` to the language "
            "model that it was made from."
        )
    if not same_tokens(load_tokenizer(str(found.source)), encoder.tokenizer):
        raise UserError(
            f"The decoding head of '{found.source}' has the tokens of another tokenizer than that of '{name}': set `head` to the "
            "language model that it was made from."
        )
    return found


def find_original_head(name: str) -> DecodingHead:
    """Load the head of the backbone that an embedder was made from.

    The backbone named in the folder's ``run.json`` is tried first, then the model that its adapter belongs to, then the base
    models in its model card, then the model itself. :attr:`text2token.model.head.DecodingHead.source` tells which one it was.

    Raises:
        PassingError: There is too little memory for one of them.
        UserError: None of them has a head; the message says why the first one has none.
    """
    reasons: dict[str, str] = {}
    for candidate in _candidates(name):
        if candidate in reasons:
            continue
        try:
            return load_head(candidate)
        except PassingError:
            raise
        except UserError as error:
            reasons[candidate] = str(error)
    first, reason = next(iter(reasons.items()))
    raise UserError(
        f"No decoding head was found for '{name}' in {' or '.join(reasons)}: set `head` to the language model that it was "
        f"made from, because vectors are read as tokens by the head of a language model. What is wrong with '{first}': {reason}"
    )


def _candidates(name: str) -> Iterator[str]:
    """Yield names of models that may have the original head, the most certain first."""
    folder = fetch(name) if name in REFERENCES else local_path(name)
    run = (folder.parent if folder.name in PARTS else folder) / RECORD
    if run.is_file():
        with suppress(UserError):  # another tool may have written a run.json
            yield RunRecord.read(run).backbone.source
    if adapted := base_of_adapter(folder):
        yield adapted
    try:
        bases = ModelCard.load(folder / "README.md" if folder.is_dir() else name).data.base_model or []
    except (OSError, ValueError, YAMLError, HfHubHTTPError):
        bases = []
    yield from [bases] if isinstance(bases, str) else bases
    yield str(folder) if folder.is_dir() else name

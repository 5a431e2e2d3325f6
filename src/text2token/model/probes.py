"""Tests of what a loaded model really does, in place of trust in its name or configuration."""

from __future__ import annotations

import json

import torch
from sentence_transformers.sentence_transformer.modules import Transformer
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from text2token.utils.errors import UserError

_SAMPLED_ROWS = 1_000  # rows of the embedding matrix to choose a probe token from; the whole matrix can be gigabytes


def attends_ahead(body: PreTrainedModel) -> bool:
    """Return whether the first hidden state depends on the last token; some families ignore their configured attention."""
    ids = torch.arange(1, 9, device=body.device)[None] % body.config.get_text_config().vocab_size
    table = body.get_input_embeddings().weight.detach()
    every = max(1, len(table) // _SAMPLED_ROWS)
    other = ids.clone()
    # The two last tokens must differ in their vectors: tokens that no text ever held can share one vector.
    other[0, -1] = every * (table[::every] - table[ids[0, -1]]).norm(dim=1).argmax()
    with torch.no_grad():
        first = body(input_ids=ids).last_hidden_state[0, 0]
        perturbed = body(input_ids=other).last_hidden_state[0, 0]
    return not torch.equal(first, perturbed)


def check_inputs(transformer: Transformer, name: str) -> None:
    """Make sure that the body can read whatever its tokenizer gives it; repairs the tokenizer in place where that is possible.

    Three faults of published models are repaired. A tokenizer without padding token gets one. Added tokens without a row in the
    embedding matrix (often the padding token) are removed, so that their text is split like any other text. A maximum length
    beyond the position table is lowered: models like RoBERTa begin to count positions at the padding id + 1.

    Raises:
        UserError: Tokens of the vocabulary itself have no row in the embedding matrix.
    """
    tokenizer, body = transformer.tokenizer, transformer.model
    if not isinstance(body, PreTrainedModel) or getattr(tokenizer, "backend_tokenizer", None) is None:
        return
    embeddings = body.get_input_embeddings()
    if isinstance(embeddings, nn.Embedding):
        _keep_tokens_with_rows(tokenizer, embeddings.num_embeddings, name)
    _set_padding_token(tokenizer)
    if (limit := position_limit(body)) is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, limit)


def position_limit(body: nn.Module) -> int | None:
    """Return the number of positions of a learned position table that counts from its padding id + 1; None without one."""
    limits = [
        module.num_embeddings - module.padding_idx - 1
        for name, module in body.named_modules()
        if isinstance(module, nn.Embedding) and "position" in name and module.padding_idx is not None
    ]
    return min(limits, default=None)


def _set_padding_token(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer without padding token one of its other tokens; attention never reads padding, so any token will do."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)


def _keep_tokens_with_rows(tokenizer: PreTrainedTokenizerBase, rows: int, name: str) -> None:
    """Remove added tokens whose id is ``rows`` or more, and refuse such tokens in the vocabulary itself."""
    beyond = [token for token, place in tokenizer.get_vocab().items() if place >= rows]
    if not beyond:
        return
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < rows]
    repaired = Tokenizer.from_str(json.dumps(state))
    around = repaired.encode("").ids
    if any(place >= rows for place in [*repaired.get_vocab().values(), *around]):
        raise UserError(
            f"The tokenizer of '{name}' has tokens without a row in the model's embedding matrix of {rows} rows, such as "
            f"'{beyond[0]}': resize the matrix with transformers' resize_token_embeddings, or use another model."
        )
    special = dict(tokenizer.special_tokens_map)
    tokenizer._tokenizer = repaired
    for role, tokens in special.items():
        if isinstance(tokens, list):
            setattr(tokenizer, role, [token for token in tokens if token not in beyond])
        elif tokens in beyond:
            setattr(tokenizer, role, None)

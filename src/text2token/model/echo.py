"""Echo embeddings: the text twice, pooled over the second copy, where a causal model has seen all of it (arXiv 2402.15449)."""

from __future__ import annotations

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from text2token.model.embedder import Embedder
from text2token.model.template import own_special_tokens
from text2token.settings.recipe import Recipe
from text2token.utils.errors import UserError

ECHO = "echo"

_PARTS = ('Rewrite the sentence: "', '", rewritten sentence: "', '"')  # section 3 of the paper
_FEWEST = 4  # tokens of a copy


class SecondCopy(Module):
    """Between Transformer and Pooling: lets only the second copy of the text be pooled."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tokenizer marks the second copy by token type 1."""
        return {**features, "attention_mask": features["token_type_ids"]}

    def save(self, output_path: str, *args: object, **kwargs: object) -> None:
        """Nothing: echo embedders are compared with, not kept."""


def echo_embedder(recipe: Recipe) -> Embedder:
    """An untrained embedder of the recipe's backbone, attention and pooling under the echo template.

    Each copy gets half of ``max_length``.

    Raises:
        UserError: As :func:`text2token.model.backbone.load_encoder`, or ``max_length`` leaves no room for two copies.
    """
    embedder = Embedder.open(recipe.backbone, **recipe.model_copy(update={"template": "none"}).embedder_settings())
    transformer, pooling = embedder.encoder
    _bake_twice(transformer.tokenizer, recipe.max_length)
    embedder.encoder = SentenceTransformer(modules=[transformer, SecondCopy(), pooling]).eval()
    return embedder


def _bake_twice(tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Make ``tokenizer`` write every text twice, in place; special tokens of its own stay outside."""
    first, last = own_special_tokens(tokenizer)
    prefix, between, suffix = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in _PARTS)
    fixed = [*first, *prefix, *between, *suffix, *last]
    if (max_length - len(fixed)) // 2 < _FEWEST:
        raise UserError(
            f"The echo template takes {len(fixed)} tokens, which leaves no room for a text twice: raise --max-length."
        )
    names = [f"[e{place}]" for place in range(len(fixed))]
    middle = len(first) + len(prefix)
    end = middle + len(between)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=[*names[:middle], "$A:0", *names[middle:end], "$A:1", *names[end:]],
        special_tokens=list(zip(names, fixed, strict=True)),
    )
    tokenizer.model_max_length = len(fixed) + (max_length - len(fixed)) // 2  # truncation counts the text once
    tokenizer.model_input_names = [*dict.fromkeys([*tokenizer.model_input_names, "token_type_ids"])]

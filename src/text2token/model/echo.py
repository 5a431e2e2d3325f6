"""Echo embeddings: the text twice, pooled over the second copy, which a causal model reads after the first (arXiv 2402.15449)."""

from __future__ import annotations

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module
from torch import Tensor

from text2token.model.embedder import Embedder
from text2token.model.template import arrange, own_special_tokens, token_ids
from text2token.settings.recipe import Recipe

ECHO = "echo"

_PROMPTS = ('Rewrite the sentence: "', '", rewritten sentence: "', '"')  # section 3 of the paper


class SecondCopy(Module):
    """A module between Transformer and Pooling that limits the pooling to the second copy of the text."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Use the token types as attention mask: the tokenizer gives the second copy type 1 and all else type 0."""
        return {**features, "attention_mask": features["token_type_ids"]}

    def save(self, output_path: str, *args: object, **kwargs: object) -> None:
        """Write nothing: echo embedders are a baseline to compare with and are never saved."""


def echo_embedder(recipe: Recipe) -> Embedder:
    """Open the untrained backbone of a recipe under the echo template, with the recipe's attention and pooling.

    Each copy of the text gets half of the tokens that the template leaves of ``max_length``.

    Raises:
        UserError: The backbone cannot be loaded, or ``max_length`` leaves no room for two copies.
    """
    embedder = Embedder.open(recipe.backbone, **recipe.model_copy(update={"template": "none"}).embedder_settings())
    transformer, pooling = embedder.encoder
    tokenizer = transformer.tokenizer
    first, last = own_special_tokens(tokenizer)
    prefix, between, suffix = (token_ids(tokenizer, prompt) for prompt in _PROMPTS)
    arrange(tokenizer, [first + prefix, between, suffix + last], recipe.max_length)
    tokenizer.model_input_names = [*dict.fromkeys([*tokenizer.model_input_names, "token_type_ids"])]
    embedder.encoder = SentenceTransformer(modules=[transformer, SecondCopy(), pooling]).eval()
    return embedder

"""Raw text in, a readable embedder out: token target prediction turns any language model into a text embedder.

>>> from text2token import Embedder, Recipe, fit
>>> embedder = fit("notes.txt", "model", Recipe(max_texts=2000))    # doctest: +SKIP
>>> embedder.explain(["The cat sat on the mat."])                   # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

from text2token.utils.errors import UserError

if TYPE_CHECKING:
    from text2token.data.corpus import Corpus
    from text2token.model.embedder import Embedder
    from text2token.settings.recipe import Recipe
    from text2token.training.fit import build_targets, fit

__all__ = ["Corpus", "Embedder", "Recipe", "UserError", "build_targets", "fit"]

_HOMES = {
    "Corpus": ("data.corpus", "Corpus"),
    "Embedder": ("model.embedder", "Embedder"),
    "Recipe": ("settings.recipe", "Recipe"),
    "build_targets": ("training.fit", "build_targets"),
    "fit": ("training.fit", "fit"),
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``import text2token`` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'text2token' has no attribute '{name}'")
    import importlib

    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(f"text2token.{module}"), attribute)
    globals()[name] = value
    return value

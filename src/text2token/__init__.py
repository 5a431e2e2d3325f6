"""Raw text in, a readable embedder out: token target prediction turns any language model into a text embedder.

>>> from text2token import Embedder, Recipe, fit
>>> embedder = fit("notes.txt", "model", Recipe(max_texts=2000))    # doctest: +SKIP
>>> embedder.explain(["The cat sat on the mat."])                   # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

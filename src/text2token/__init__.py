"""Turn a language model and unlabelled text into a text embedder whose vectors decode to weighted vocabulary tokens.

>>> from text2token import Recipe, fit
>>> embedder = fit("notes.txt", "new-model", Recipe(max_texts=200))
>>> vectors = embedder.encode(["The cat sat on the mat."])  # dense, one row per text
>>> tokens = embedder.explain(["The cat sat on the mat."], k=5)  # the five strongest tokens of each text, with weights
>>> len(vectors), len(tokens[0])
(1, 5)
"""

from contextlib import suppress
from importlib.metadata import version

import lazy_loader

from text2token.utils.cache import use_writable_caches
from text2token.utils.errors import UserError

with suppress(UserError):  # the command line calls it again, and tells the error in one sentence
    use_writable_caches()  # before any library is imported that reads the variables

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("text2token")

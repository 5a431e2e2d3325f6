"""The judge: mteb's tasks and a user's own, on any embedder, with intervals."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

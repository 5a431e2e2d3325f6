"""Shows what an embedder encodes: aligned tokens, principal components, and measurements along a training."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

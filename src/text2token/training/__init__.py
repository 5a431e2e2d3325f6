"""Turn a backbone and unlabelled texts into an embedder, by training (``fit``) or by correction (``adapt``)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

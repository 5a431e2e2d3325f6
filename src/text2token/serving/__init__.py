"""Serve a model and its indexes over HTTP, and look into them in the browser."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

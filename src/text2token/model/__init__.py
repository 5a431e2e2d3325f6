"""Open language models and finished embedders, encode texts, decode vectors to tokens, and save embedders."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

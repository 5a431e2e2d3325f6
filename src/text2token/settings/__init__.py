"""Names and defaults of all settings. The room imports no torch, so that ``--help`` is fast."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

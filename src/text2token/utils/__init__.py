"""Files, locks, run folders, pages and figures: tools that do not depend on models."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

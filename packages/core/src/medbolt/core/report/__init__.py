"""Reports: one self-contained HTML page a run or a study, made from prediction tables."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Long-tailed learning: losses, samplers, heads and callbacks for any PyTorch or Lightning code.

Everything public is importable from here and loaded on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

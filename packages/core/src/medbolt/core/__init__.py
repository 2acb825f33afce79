"""The foundation of medbolt: data modules, objective callbacks, per-sample memory, tasks, statistics, reports.

Everything public is importable from here and loaded on first use, so that importing the package costs little.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

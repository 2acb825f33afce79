"""Prediction tables: what a model said about every sample, in one Parquet file that statistics and reports read."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

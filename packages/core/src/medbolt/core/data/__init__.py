"""Data sets, samplers, loaders and data modules that follow the batch contract."""

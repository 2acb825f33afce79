"""Metrics with reducible states where torchmetrics has none, and the default collections of the tasks."""

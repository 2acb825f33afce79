"""Robust losses: plain modules of logits and target."""

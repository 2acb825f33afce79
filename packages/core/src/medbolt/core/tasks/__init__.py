"""Thin LightningModules for people who have none."""

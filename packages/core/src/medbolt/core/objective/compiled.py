"""Hooks on networks that torch.compile has traced."""

import torch
from lightning.pytorch import LightningModule


def forget_traces(module: LightningModule) -> None:
    """Have a compiled module traced anew, so that it calls a hook that was put on it now; nothing if none is compiled.

    Args:
        module: The module, which may be compiled whole, in part or in place.

    Example:
        >>> forget_traces(LightningModule())
    """
    whole = getattr(module, "_compiler_ctx", None) is not None  # how Lightning marks torch.compile(module)
    if whole or any(hasattr(part, "_orig_mod") or part._compiled_call_impl is not None for part in module.modules()):
        torch.compiler.reset()

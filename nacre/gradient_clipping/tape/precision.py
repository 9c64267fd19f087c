"""How a model is run while its gradients are taken: as it was written, and summed exactly."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def eager(model: nn.Module) -> Generator[None]:
    """Runs what `torch.compile` compiled as it was written: the tape has to see its operations."""
    compiled = sys.modules.get("torch._dynamo.eval_frame")
    wrapper = getattr(compiled, "OptimizedModule", ())
    if wrapper and any(isinstance(m, wrapper) for m in model.modules()):
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


@contextmanager
def exact(model: nn.Module) -> Generator[None]:
    """Norms and sums in full precision, whatever the model itself is allowed to round to: a product
    of fewer bits would make a clipped unit longer than its bound."""
    before = torch.get_float32_matmul_precision()
    device = next(model.parameters()).device.type
    if before == "highest" and not torch.is_autocast_enabled(device):
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)

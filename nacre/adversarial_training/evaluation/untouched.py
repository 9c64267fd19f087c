"""A model during an attack, and as it was afterwards."""

# Parts of torch and numpy are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nacre.adversarial_training.attacks.ascent import evaluating
from nacre.core.errors import Incompatible
from nacre.core.random import digest


@contextmanager
def untouched(model: nn.Module) -> Generator[None]:
    """Evaluation mode and weights without gradients inside the block; afterwards each module's
    mode, each weight's `requires_grad` and `.grad`, each buffer, and the generators of PyTorch,
    NumPy and Python are as they were, also after an exception.

    Raises `Incompatible` at the end where a weight or a buffer was changed, one that is not saved
    included: what was found then belongs to no one model. And at the start for a model with a
    layer that learns its size from the first batch.
    """
    _require_sizes(model)
    wanted = [(weight, weight.requires_grad, weight.grad) for weight in model.parameters()]
    buffers = _Buffers(model)
    before = _digest(model)
    try:
        with torch.random.fork_rng(), _generators(), evaluating(model):
            model.requires_grad_(False)
            yield
        after = _digest(model)
    finally:
        buffers.put_back()
        for weight, wants, gradient in wanted:
            weight.requires_grad_(wants)
            weight.grad = gradient
    if after != before:
        raise Incompatible(
            "the model changed a weight or a buffer of its own while it was attacked in evaluation "
            "mode, so that no two answers come from the same model; let `forward` write only when "
            "`self.training` is true"
        )


class _Buffers:
    """Each module's buffers, with the numbers that they hold now."""

    def __init__(self, model: nn.Module) -> None:
        self._held: list[tuple[nn.Module, str, Tensor, Tensor]] = [
            (module, name, buffer, buffer.detach().clone())
            for module in model.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]

    @torch.no_grad()
    def put_back(self) -> None:
        """The same tensors under the same names, with the numbers that they held."""
        for module, name, buffer, values in self._held:
            if not torch.equal(buffer, values):
                buffer.resize_(values.shape).copy_(values)
            module._buffers[name] = buffer  # pyright: ignore[reportPrivateUsage]


@contextmanager
def _generators() -> Generator[None]:
    """NumPy's and Python's own generators afterwards as they are now."""
    python, numpys = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpys)


def _digest(model: nn.Module) -> bytes:
    """Of every weight and buffer, also of those that `state_dict` leaves out."""
    held = [*model.named_parameters(), *model.named_buffers()]
    return digest({name: tensor.detach() for name, tensor in held})


def _require_sizes(model: nn.Module) -> None:
    held = [*model.named_parameters(), *model.named_buffers()]
    lazy = [name for name, tensor in held if is_lazy(tensor)]
    if lazy:
        raise Incompatible(
            f"{lazy[0]!r} has no size before its layer has seen a batch, so there is no model to "
            "attack yet; put one batch through it before, or name the sizes of its layers"
        )

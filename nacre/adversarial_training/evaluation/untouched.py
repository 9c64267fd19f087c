"""A model during an attack, and as it was afterwards."""

# Parts of torch and numpy are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

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
    mode, weights, buffers, parts and hooks are the ones that it had, each weight's `requires_grad`
    and `.grad`, each buffer's numbers, and the generators of PyTorch, NumPy and Python are as they
    were, also after an exception.

    Raises `Incompatible` at the end where a weight or a buffer was changed, one that is not saved
    included, or hooks came or went: what was found then belongs to no one model. And at the start
    for a model with a layer that learns its size from the first batch. Numbers of a weight that
    were changed stay changed: a second copy of all weights is what their return would cost.
    """
    _require_sizes(model)
    wanted = [(weight, weight.requires_grad, weight.grad) for weight in model.parameters()]
    contents = _Contents(model)
    before = _digest(model)
    try:
        with torch.random.fork_rng(), _generators(), evaluating(model):
            model.requires_grad_(False)
            yield
        after, hooked = _digest(model), contents.hooked()
    finally:
        contents.put_back()
        for weight, wants, gradient in wanted:
            weight.requires_grad_(wants)
            weight.grad = gradient
    if after != before:
        raise Incompatible(
            "the model changed a weight or a buffer of its own while it was attacked in evaluation "
            "mode, so that no two answers come from the same model; let `forward` write only when "
            "`self.training` is true"
        )
    if hooked:
        raise Incompatible(
            "the model registered or removed a hook of its own while it was attacked, so that no "
            "two answers come from the same model; do it when the model is made, or take back in "
            "`forward` what `forward` registers"
        )


_BY_NAME = tuple(name for name, held in vars(nn.Module()).items() if isinstance(held, dict))
"""The dictionaries of a module: its weights, buffers and parts, and its hooks of each kind."""


class _Contents:
    """What each module holds by name now, and the numbers in its buffers."""

    def __init__(self, model: nn.Module) -> None:
        self._held: list[tuple[nn.Module, str, dict[Any, Any], dict[Any, Any]]] = [
            (module, name, held, dict(held))
            for module in model.modules()
            for name, held in vars(module).items()
            if name in _BY_NAME and isinstance(held, dict)
        ]
        self._numbers: list[tuple[nn.Module, str, Tensor, Tensor]] = [
            (module, name, buffer, buffer.detach().clone())
            for module in model.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]

    def hooked(self) -> bool:
        """Whether a hook has come or gone."""
        return any(
            vars(module)[name].keys() != before.keys()
            for module, name, _, before in self._held
            if "hooks" in name
        )

    @torch.no_grad()
    def put_back(self) -> None:
        """The same tensors, parts and hooks under the same names, and buffers with the numbers that
        they held. A part that came in addition stays: a model that makes it when first asked may
        have noted, where nobody sees it, that it is there."""
        for module, name, held, before in self._held:
            if name != "_modules":
                held.clear()
            held.update(before)
            vars(module)[name] = held
        for module, name, buffer, values in self._numbers:
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

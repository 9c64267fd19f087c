"""A model during an attack, and as it was afterwards."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from nacre.adversarial_training.attacks.ascent import evaluating
from nacre.core.errors import Incompatible
from nacre.core.random import digest


@contextmanager
def untouched(model: nn.Module) -> Generator[None]:
    """Evaluation mode and weights without gradients inside the block; afterwards each module's
    mode, each weight's `requires_grad` and `.grad`, and the generators of PyTorch, NumPy and Python
    are as they were, also after an exception.

    Raises `Incompatible` at the end where a weight or a buffer has changed: what was found then
    belongs to no one model.
    """
    wanted = [(weight, weight.requires_grad, weight.grad) for weight in model.parameters()]
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    before = digest(state)
    numpy_state, python_state = (
        np.random.get_state(),
        random.getstate(),
    )  # a model may draw from them
    try:
        with torch.random.fork_rng(), evaluating(model):
            model.requires_grad_(False)
            yield
    finally:
        for weight, wants, gradient in wanted:
            weight.requires_grad_(wants)
            weight.grad = gradient
        np.random.set_state(numpy_state)
        random.setstate(python_state)
    if digest({name: tensor.detach() for name, tensor in model.state_dict().items()}) != before:
        raise Incompatible(
            "the model changed a weight or a buffer of its own while it was attacked in evaluation "
            "mode, so that no two answers come from the same model; let `forward` write only when "
            "`self.training` is true"
        )

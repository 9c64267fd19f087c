"""An average of the weights over the steps: post-processing of releases, so it is free."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import contextlib
from collections.abc import Generator

from torch import nn

from nacre.core.optimizers import Average
from nacre.core.tensors import assign, detached, trainable
from nacre.core.types import Tensors


class Averaged:
    """The average that follows a model. It sees weights after their update only: what was
    released."""

    def __init__(self, option: Average, model: nn.Module) -> None:
        self._option = option
        self.weights: Tensors = detached(trainable(model))

    def follow(self, model: nn.Module, done: int) -> None:
        """Takes in the weights after step `done`, counted from 1."""
        share = 1 - self._option.memory(done)
        for name, weights in trainable(model).items():
            self.weights[name].lerp_(weights.detach(), share)

    def put_back(self, weights: Tensors) -> None:
        """Continues from what a checkpoint kept."""
        self.weights = detached(weights)

    @contextlib.contextmanager
    def shown(self, model: nn.Module) -> Generator[None]:
        """The average as the model's weights, inside the block."""
        moving = detached(trainable(model))
        self.hand_over(model)
        try:
            yield
        finally:
            assign(model, moving)

    def hand_over(self, model: nn.Module) -> None:
        """The average becomes the model's weights."""
        assign(model, self.weights)

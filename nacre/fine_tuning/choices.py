"""Which weights training moves, and the public base that it starts from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from nacre.core.errors import Incompatible
from nacre.core.optimizers import Adam, OptimizerOption
from nacre.fine_tuning import adapters
from nacre.fine_tuning.layers import linear_layers, submodule


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Ordinary training of the whole model on public rows, before any private row is read."""

    steps: int = 200
    """Updates."""
    batch: int = 64
    """Public rows a step; at most as many as there are."""
    optimizer: OptimizerOption = field(default_factory=Adam)
    """What turns a gradient into an update."""
    adversarial: bool = True
    """Use the recipe's adversarial objective here too; without one it makes no difference."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Full:
    """Every weight moves."""

    kind: Literal["full"] = "full"
    pretrain: Pretrain | None = None
    """The public base; None starts from the model as it is."""

    def prepare(self, model: nn.Module, seed: int) -> nn.Module:
        """The model itself, all of its parameters trainable."""
        return model.requires_grad_(True)


@dataclass(frozen=True, kw_only=True)
class Head:
    """Only the last layer moves: fewest numbers, so least noise under privacy."""

    kind: Literal["head"] = "head"
    module: str = ""
    """The name of the module that moves; empty for the last `nn.Linear`."""
    pretrain: Pretrain | None = None
    """The public base; None starts from the model as it is."""

    def prepare(self, model: nn.Module, seed: int) -> nn.Module:
        """The model itself, with everything fixed but the head.

        Raises `Incompatible` where the model has no such module, or it holds no parameter.
        """
        name = self.module or linear_layers(model)[-1]
        head = submodule(model, name)
        if not any(True for _ in head.parameters()):
            raise Incompatible(f"module {name!r} holds no weights to train; name another")
        model.requires_grad_(False)
        head.requires_grad_(True)
        return model


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Low-rank adapters beside fixed linear layers: W x becomes W x + (alpha / rank) B A x.

    B starts at zero, so the function is unchanged at first.

    Source: Hu et al. 2022, https://arxiv.org/abs/2106.09685, equation 3; through PEFT.
    """

    kind: Literal["lora"] = "lora"
    rank: int = 8
    """Rows of A and columns of B."""
    alpha: float = 16.0
    """Strength; the product is scaled by alpha / rank."""
    dropout: float = 0.0
    """Share of the adapter's inputs set to zero while training, in [0, 1)."""
    targets: tuple[str, ...] = ()
    """Names of the linear layers that get an adapter; empty for all but the last one."""
    pretrain: Pretrain | None = None
    """The public base; None starts from the model as it is."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank={self.rank} must be at least 1")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha={self.alpha} must be > 0 and finite")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must be at least 0 and below 1")

    def prepare(self, model: nn.Module, seed: int) -> nn.Module:
        """The model itself with adapters inside, which alone are trainable.

        The forward takes and returns what it did. The same seed gives the same adapters, and
        torch's own generator is left as it was. Raises `Incompatible` where a target does not
        exist or no layer is left for an adapter, `Refusal` where PEFT is not installed.
        """
        return adapters.inject(
            model,
            targets=self.targets or tuple(linear_layers(model)[:-1]),
            rank=self.rank,
            alpha=self.alpha,
            dropout=self.dropout,
            seed=seed,
        )


FineTuningOption = Full | Head | LoRA
"""Every option that a recipe may name under `fine_tuning`."""

CHOICES = (Full, Head, LoRA)
"""Every choice; the tests run over them."""


def prepare(choice: FineTuningOption, model: nn.Module, seed: int) -> nn.Module:
    """The model with the chosen weights trainable and all others fixed; changed in place."""
    return choice.prepare(model, seed)

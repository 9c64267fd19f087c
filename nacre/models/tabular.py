"""A small network for tables: linear layers, each followed by the same function of each entry."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from nacre.core import require
from nacre.core.assumptions import NoAssumptions
from nacre.core.errors import BadArgument

Activation = Literal["relu", "tanh"]


_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


def activation(name: Activation) -> nn.Module:
    """The layer of that name; it acts entry by entry."""
    return _ACTIVATIONS[name]()


def check_activation(name: str) -> None:
    """Raises `ValueError` for a name that `activation` does not know."""
    if name not in _ACTIVATIONS:
        raise BadArgument(f"activation={name!r} must be one of {', '.join(_ACTIVATIONS)}")


@dataclass(frozen=True, kw_only=True)
class MLP(NoAssumptions):
    """Linear layers with an activation between them; inputs of any shape are flattened."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[int, ...] = (64,)
    """Width of each hidden layer; empty for a linear model."""
    activation: Activation = "relu"
    """What follows each hidden layer. Bounded `tanh` often trains better under noise."""
    dropout: float = 0.0
    """Share of hidden entries set to zero while training, in [0, 1)."""

    def sentence(self, folder: Path) -> str:
        """Kind and widths, as `mlp 16-8`."""
        return f"{self.kind} {widths(self.hidden)}".rstrip()

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.hidden):
            raise BadArgument(f"hidden={self.hidden} must hold widths of at least 1")
        require.below_one(dropout=self.dropout)
        check_activation(self.activation)


def widths(values: Sequence[int]) -> str:
    """A list of widths in one word, as `16-8`."""
    return "-".join(map(str, values))


def mlp(
    option: MLP,
    shape: tuple[int, ...],  # of one input
    outputs: int,
) -> nn.Module:
    """The network, (B, *shape) -> (B, outputs); its last layer is named `head`."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    width = math.prod(shape)
    for i, hidden in enumerate(option.hidden):
        layers[f"hidden{i}"] = nn.Linear(width, hidden)
        layers[f"activation{i}"] = activation(option.activation)
        if option.dropout:
            layers[f"dropout{i}"] = nn.Dropout(option.dropout)
        width = hidden
    layers["head"] = nn.Linear(width, outputs)
    return nn.Sequential(layers)

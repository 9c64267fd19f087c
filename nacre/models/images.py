"""A small convolutional network that never mixes rows: groups of channels are normalised."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from nacre.core import require
from nacre.core.assumptions import NoAssumptions
from nacre.core.errors import BadArgument, Incompatible
from nacre.models.tabular import Activation, activation, check_activation, widths


@dataclass(frozen=True, kw_only=True)
class CNN(NoAssumptions):
    """Blocks of convolution, GroupNorm, activation and halving; then one hidden linear layer.

    Source of GroupNorm: Wu and He 2018, https://arxiv.org/abs/1803.08494. Unlike BatchNorm it
    normalises each row by itself.
    """

    kind: Literal["cnn"] = "cnn"
    channels: tuple[int, ...] = (16, 32)
    """Channels of each block; each block halves height and width."""
    groups: int = 4
    """Groups of channels that are normalised together; divides every entry of `channels`."""
    hidden: int = 64
    """Width of the linear layer before the last."""
    activation: Activation = "relu"
    """What follows each normalisation and the hidden layer."""

    def sentence(self, folder: Path) -> str:
        """Kind, width of the hidden layer and channels, as `cnn 64 16-32`."""
        return f"{self.kind} {self.hidden} {widths(self.channels)}"

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 1:
            raise BadArgument(f"channels={self.channels} must hold at least one number above 0")
        require.at_least(1, groups=self.groups, hidden=self.hidden)
        if any(channels % self.groups for channels in self.channels):
            raise BadArgument(f"groups={self.groups} must divide each of channels={self.channels}")
        check_activation(self.activation)


def cnn(
    option: CNN,
    shape: tuple[int, ...],  # of one input: (channels, height, width)
    outputs: int,
) -> nn.Module:
    """The network, (B, C, H, W) -> (B, outputs); its last layer is named `head`.

    Raises `Incompatible` for inputs that are no images or too small to be halved that often.
    """
    if len(shape) != 3:
        raise Incompatible(
            f"model `cnn` needs inputs of shape (channels, height, width) and the data have "
            f"{shape}; use `model: {{kind: mlp}}`"
        )
    before, height, width = shape
    halvings = len(option.channels)
    if min(height, width) < 2**halvings:
        raise Incompatible(
            f"model `cnn` halves {height} by {width} pixels {halvings} times, which leaves none; "
            "list fewer `channels`"
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, channels in enumerate(option.channels):
        layers[f"convolution{i}"] = nn.Conv2d(before, channels, kernel_size=3, padding=1)
        layers[f"norm{i}"] = nn.GroupNorm(option.groups, channels)
        layers[f"activation{i}"] = activation(option.activation)
        layers[f"halving{i}"] = nn.MaxPool2d(2)
        before = channels
    left = before * (height >> halvings) * (width >> halvings)
    layers["flatten"] = nn.Flatten()
    layers["hidden"] = nn.Linear(left, option.hidden)
    layers["activation"] = activation(option.activation)
    layers["head"] = nn.Linear(option.hidden, outputs)
    return nn.Sequential(layers)

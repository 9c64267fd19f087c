"""Small models to fine-tune."""

from pathlib import Path

import torch
from torch import nn

from nacre.fine_tuning import CHOICES, Norms
from nacre.models import MLP, build

SHAPE = (3,)
OPTION = MLP(hidden=(5, 4))

FITTING = tuple(kind for kind in CHOICES if kind is not Norms)
"""The choices that a model without layers that normalise has."""


def mlp():
    """(B, 3) -> (B, 2), as a recipe's `model: {kind: mlp}` builds it."""
    return build(OPTION, SHAPE, 2, 0, Path())


def nested():
    """(B, 3) -> (B, 2), the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Nested()


class Nested(nn.Module):
    """Linear layers inside blocks, and a buffer."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Sequential(nn.Linear(3, 4), nn.Tanh()), nn.Sequential(nn.Linear(4, 2))
        )
        self.register_buffer("offset", torch.full((2,), 0.5))

    def forward(self, x):
        return self.blocks(x) + self.offset


def inputs():
    """(6, 3), the same each time."""
    return torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(3))

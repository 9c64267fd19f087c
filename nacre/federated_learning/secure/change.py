"""A party's change as the vector of the ring that is masked."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from nacre.core.parts import Clip
from nacre.core.random import Source
from nacre.core.tensors import finite
from nacre.core.types import Tensors
from nacre.federated_learning.gather import clipped_change
from nacre.federated_learning.secure.grids.grid import Grid
from nacre.federated_learning.secure.grids.noised_grid import NoisedGrid
from nacre.federated_learning.secure.masks import RingVector


class NotFinite(ValueError):
    """A change that is not finite, where no party is hidden by counting it as none."""


def encoded_change(
    change: Tensors,
    clip: Clip,
    grid: Grid | NoisedGrid,
    source: Source,  # of this party, round and request
) -> RingVector:
    """Minus the clipped change on the grid, with the party's share of noise where there is one.

    One that is not finite counts as no change where a party is what is protected, since an error
    would tell of that party; elsewhere it raises `NotFinite`.
    """
    if finite(change):
        values = flat(clipped_change(change, clip)[0])
    elif grid.norm is None:
        raise NotFinite("its change is not finite; lower the learning rate")
    else:
        values = np.zeros(sum(value.numel() for value in change.values()), dtype=np.float32)
    return grid.encoded(values, source) if isinstance(grid, NoisedGrid) else grid.encoded(values)


def flat(tensors: Tensors) -> NDArray[np.float32]:
    """All entries as one vector, tensors in the order of their names."""
    parts = [tensors[name].detach().reshape(-1).float() for name in sorted(tensors)]
    return torch.cat(parts).cpu().numpy()

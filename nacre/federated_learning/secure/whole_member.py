"""A party's side of a secure sum of whole numbers."""

from __future__ import annotations

from nacre.core.types import Tensors
from nacre.federated_learning.secure.grids.grid import WholeNumbers
from nacre.federated_learning.secure.masks import RingVector
from nacre.federated_learning.secure.member import Asked, Member

WHOLE = "whole"
"""The tensor that the numbers are in, (d,) int64."""


class WholeMember(Member):
    """Sums whole numbers where `Member` sums changes: they are masked as they are.

    What one unit adds is bounded where they are computed; nothing is clipped here.
    """

    def _encoded(self, change: Tensors, asked: Asked) -> RingVector:
        grid = self._terms.grid
        assert isinstance(grid, WholeNumbers)  # the terms of statistics have no other
        return grid.whole(change[WHOLE].numpy())

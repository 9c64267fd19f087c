"""Units dealt to parties: by a column that says who holds them, or as a simulation."""

from __future__ import annotations

from typing import get_args

from nacre.data.partition.column import ByColumn
from nacre.data.partition.dealt import Dealt
from nacre.data.partition.names import Counted
from nacre.data.partition.simulated import Dirichlet, LabelSorted, QuantitySkew, Uniform
from nacre.data.partition.sizes import Sizes

PartitionOption = ByColumn | Uniform | Dirichlet | LabelSorted | QuantitySkew

PARTITIONS: tuple[type[PartitionOption], ...] = get_args(PartitionOption)
"""Every partition that a recipe can name; the laws run over them."""

__all__ = [
    "PARTITIONS",
    "ByColumn",
    "Counted",
    "Dealt",
    "Dirichlet",
    "LabelSorted",
    "PartitionOption",
    "QuantitySkew",
    "Sizes",
    "Uniform",
]

"""Rows by party, taken when somebody asks for them."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from nacre.core.types import Unit
from nacre.data.dataset import Rows
from nacre.data.partition.names import places
from nacre.data.units import members_of


class Dealt(Mapping[str, Rows]):
    """Party -> its rows, in the order of the file. The rows lie in memory once; of a party nothing
    is kept but where its rows are, so what it costs to have a million of them is two numbers each.
    """

    def __init__(
        self,
        rows: Rows,  # of all parties
        names: Sequence[str],
        owners: NDArray[np.int64],  # (N,) place of the party that holds each row
    ) -> None:
        self.rows, self.names = rows, names
        self.order = np.argsort(owners, kind="stable")  # the rows, party after party
        counts = np.bincount(owners, minlength=len(names))
        self.ends = np.concatenate([[0], np.cumsum(counts)])
        self._place = places(names)

    def __getitem__(self, name: str) -> Rows:
        return self.rows.take(torch.from_numpy(self.places(name)))

    def places(self, name: str) -> NDArray[np.int64]:
        """Where the rows of this party are. Raises `KeyError` for a name that is none."""
        try:
            place = self._place(name)
        except ValueError as error:
            raise KeyError(name) from error
        return self.order[self.ends[place] : self.ends[place + 1]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names


def units_of(rows: Rows, unit: Unit) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(N,) the unit of each row, and (U,) the first row of each unit; groups in the order of their
    names."""
    if unit != "group" or rows.group is None:
        each = np.arange(len(rows))
        return each, each
    _, members = members_of(rows.group)
    _, first = np.unique(members, return_index=True)
    return members, first

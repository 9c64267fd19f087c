"""Parties that a column of the data names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from nacre.core import require
from nacre.core.errors import BadArgument, DataError, Incompatible
from nacre.core.types import Unit
from nacre.data.dataset import Rows
from nacre.data.partition.dealt import Dealt
from nacre.data.partition.names import Counted, check_names
from nacre.data.partition.sizes import Sizes
from nacre.data.units import members_of


@dataclass(frozen=True, kw_only=True)
class ByColumn:
    """Each row belongs to the party that its party column names."""

    kind: Literal["column"] = "column"
    column: str
    """The party column; the same as `party` under `data`."""
    sizes: dict[str, int] | None = None
    """Party: its declared number of private units. Absent where `count` and `size` say it of all:
    then each different value of the column is a party."""
    count: int | None = None
    """How many parties there are, declared; in place of `sizes`."""
    size: int | None = None
    """The declared number of private units of each party; in place of `sizes`."""

    simulated: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if (self.sizes is None) == (self.count is None) or (self.count is None) != (
            self.size is None
        ):
            raise BadArgument(
                "sizes names the parties with their units, or `count` and `size` say how many "
                "parties there are and how many units each has: give the one or the other two"
            )
        require.at_least(1, size=self.size)
        if self.sizes is not None:
            check_names("sizes", tuple(self.sizes))
            for name, size in self.sizes.items():
                if size < 1:
                    raise BadArgument(f"sizes: {name}={size} must be at least 1")
        elif self.count is not None:
            Counted(count=self.count)

    @property
    def named(self) -> bool:
        """Whether the parties are known before a row is read."""
        return self.sizes is not None

    @property
    def names(self) -> Sequence[str]:
        """The parties, in the declared order; numbers where their names are read with the rows."""
        if self.sizes is None:
            assert self.count is not None
            return Counted(count=self.count)
        return tuple(self.sizes)

    def declared_sizes(self, total: int) -> Sizes:
        """Party -> units, as declared. Raises `Incompatible` where they do not cover `total`.

        They may add up to more: a group with rows in two parties is a unit of both.
        """
        if self.sizes is None:
            assert self.count is not None
            units = np.full(self.count, self.size, dtype=np.int64)
        else:
            units = np.array([*self.sizes.values()], dtype=np.int64)
        declared = int(units.sum())
        if declared < total:
            raise Incompatible(
                f"the parties' sizes add up to {declared} and `data.size` is {total}, so some "
                "units have no party; correct one of them (both count what the holdout leaves)"
            )
        return Sizes(self.names, units, known=self.named)

    def split(self, rows: Rows, unit: Unit, seed: int) -> Dealt:
        """Party -> its rows. Raises `DataError` for an unknown party or one without rows.

        Of parties that are counted there are as many as the column has values, in the order of
        these: how many that is is private, and no error says so.
        """
        if rows.party is None:
            raise DataError(
                f"the data name no parties, so {self.column!r} cannot tell who holds a row; set "
                "`party` under `data`"
            )
        found, members = members_of(rows.party)
        if self.sizes is None:
            return Dealt(rows, tuple(found), members)
        declared = {name: place for place, name in enumerate(self.sizes)}
        for name in found:
            if name not in declared:
                raise DataError(
                    f"column {self.column!r} of the rows names party {name!r}, and "
                    "`federated_learning.parties.sizes` does not declare it; add it there with its "
                    "units, or leave its rows out of the file"
                )
        for name in declared.keys() - set(found):
            raise DataError(
                f"no row of column {self.column!r} belongs to party {name!r}; remove it from "
                "`federated_learning.parties.sizes`, or correct its name there"
            )
        return Dealt(rows, self.names, np.array([declared[name] for name in found])[members])

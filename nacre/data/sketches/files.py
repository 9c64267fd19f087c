"""The cells of files: all that they hold, whatever a recipe takes of it and however it is read."""

# Parts of NumPy are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.data.readers import RawTable, unit_name
from nacre.data.reading.values import NumberColumn, Values, equal_once
from nacre.data.sketches.cells import NARROW, Cells, of_table
from nacre.data.units import members_of

PartyCells = dict[str, tuple[Cells, ...]]
"""What each party's rows say, by its name."""


def of_file(raw: RawTable, encoding: str = "utf-8") -> tuple[Cells, ...]:
    """The cells of a table or a text, by every separator that its lines agree with."""
    return tuple(one for columns in _readings(raw) for one in of_table(columns, encoding))


def parts_of_file(raw: RawTable, party: str | None, encoding: str = "utf-8") -> PartyCells:
    """`of_file` of the rows of each party, by its name in the column `party`; empty for None."""
    if party is None:
        return {}
    parts: PartyCells = {}
    for name, places in _members(raw.column(party).each(unit_name).tolist()):
        parts[name] = tuple(
            one
            for columns in _readings(raw)
            if len(next(iter(columns.values()))) == len(raw)
            for one in of_table({n: c.taken(places) for n, c in columns.items()}, encoding)
        )
    return parts


def _readings(raw: RawTable) -> tuple[Mapping[str, Values], ...]:
    return (raw.columns, *raw.others)


def of_arrays(arrays: Mapping[str, NDArray[Any]], count: int) -> tuple[Cells, ...]:
    """The cells of `count` rows in arrays of one file; an array of another length has none."""
    columns: list[Sequence[object]] = []
    wide: list[Cells] = []
    for array in arrays.values():
        if not array.ndim or len(array) != count:
            continue
        flat = array.reshape(count, math.prod(array.shape[1:]))
        if flat.shape[1] <= NARROW:
            columns += [_column(column) for column in flat.T]
        elif flat.dtype.kind in "buif":
            wide.append(Cells("cells", flat))
    return (Cells("cells", columns), *wide) if columns else tuple(wide)


def _column(array: NDArray[Any]) -> Values:  # (N,)
    if array.dtype.kind in "iuf":
        return NumberColumn(array, np.zeros(0, np.int64), [])
    return equal_once(array.tolist())


def parts_of_arrays(arrays: Mapping[str, NDArray[Any]], party: Sequence[str] | None) -> PartyCells:
    """`of_arrays` of the rows of each party; empty where nobody names one."""
    if party is None:
        return {}
    rows = {name: array for name, array in arrays.items() if array.shape[:1] == (len(party),)}
    return {
        name: of_arrays({n: array[places] for n, array in rows.items()}, len(places))
        for name, places in _members(party)
    }


def _members(party: Sequence[str]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """(name, its rows) of each party."""
    names, which = members_of(party)
    order = np.argsort(which, kind="stable")
    yield from zip(names, np.split(order, np.cumsum(np.bincount(which))[:-1]), strict=True)

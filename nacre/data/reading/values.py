"""The cells of one column: Python objects to who asks for one, arrays to who asks for all.

Whatever is computed of a cell (`text`, `is_missing`, a hash) is computed by the plain function,
once for each different cell. So a column of a million equal words costs as much as one word, and no
second, faster function has to agree with the plain one. Numbers alone are read at once; `parsed`
says what that rests on.
"""

# Parts of NumPy are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Parsed = NDArray[np.float64]
RowNumbers = NDArray[np.int64]

ReadNumber = Callable[[Any], float | None]
"""A cell as a number, None where it is none. Of an `int`, of a `float` and of a text of digits it
has to give what `float` gives, but None for NaN; of anything else what it likes."""


class Values(Sequence[object]):
    """The cells of a column, in the order of their rows."""

    @abstractmethod
    def _at(self, place: int) -> object:
        """The cell of this row, 0 <= place < N."""

    @abstractmethod
    def parsed(self, read: ReadNumber) -> Parsed:
        """(N,) float64, each cell as `read` gives it; NaN for None."""

    @abstractmethod
    def coded(self, places: RowNumbers | None = None) -> tuple[RowNumbers, list[object]]:
        """(codes, cells): `cells[codes[i]]` is the cell at `places[i]`; None stands for all rows.
        A cell may stand there twice, or never be pointed to."""

    @abstractmethod
    def mapped(self, function: Callable[[object], object]) -> Values:
        """The same column with what `function` gives of each cell; numbers in an array stay."""

    def taken(self, places: RowNumbers) -> Values:
        """The cells of these rows, each as it is read in the whole column."""
        return Coded(*self.coded(places))

    @overload
    def __getitem__(self, index: int) -> object: ...

    @overload
    def __getitem__(self, index: slice) -> list[object]: ...

    def __getitem__(self, index: int | slice) -> object:
        if isinstance(index, slice):
            return [self._at(place) for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self._at(place)

    def each(self, function: Callable[[Any], Any], kind: Any = object) -> NDArray[Any]:
        """(N,) of NumPy's type `kind`: what `function` gives of each cell, called once for each
        different one."""
        codes, cells = self.coded()
        found = np.empty(len(cells), dtype=kind)
        for place, cell in enumerate(cells):
            found[place] = function(cell)
        return found[codes]


class Listed(Values):
    """Cells that are Python objects, of any kind."""

    def __init__(self, cells: Sequence[object]) -> None:
        self._cells = list(cells)

    def __len__(self) -> int:
        return len(self._cells)

    def _at(self, place: int) -> object:
        return self._cells[place]

    def __iter__(self) -> Iterator[object]:
        return iter(self._cells)

    def parsed(self, read: ReadNumber) -> Parsed:
        """See `Values.parsed`."""
        if set(map(type, self._cells)) <= {int, float}:  # a bool is neither: it may be a word
            try:
                return np.array(self._cells, dtype=np.float64)
            except OverflowError:  # an integer beyond all floats
                pass
        return _read(self._cells, read)

    def coded(self, places: RowNumbers | None = None) -> tuple[RowNumbers, list[object]]:
        """See `Values.coded`; every cell counts as another."""
        if places is None:
            return np.arange(len(self._cells)), self._cells
        return np.arange(len(places)), [self._cells[place] for place in places.tolist()]

    def mapped(self, function: Callable[[object], object]) -> Listed:
        """See `Values.mapped`."""
        return Listed([function(cell) for cell in self._cells])


class NumberColumn(Values):
    """Numbers in an array, and the few other cells beside it."""

    def __init__(
        self,
        numbers: NDArray[Any],  # (N,) integers or floats; anything where another cell stands
        others: RowNumbers,  # (M,) rows of the other cells, in order
        cells: Sequence[object],  # (M,) those cells
    ) -> None:
        self._numbers, self._others, self._cells = numbers, others, cells

    @property
    def others(self) -> Sequence[object]:
        """The cells that are no numbers, in order."""
        return self._cells

    def __len__(self) -> int:
        return len(self._numbers)

    def _at(self, place: int) -> object:
        found = int(np.searchsorted(self._others, place))
        if found < len(self._others) and self._others[found] == place:
            return self._cells[found]
        return self._numbers[place].item()

    def parsed(self, read: ReadNumber) -> Parsed:
        """See `Values.parsed`."""
        found = self._numbers.astype(np.float64)  # correctly rounded, as `float` of an integer is
        if len(self._others):
            found[self._others] = _read(self._cells, read)
        return found

    def coded(self, places: RowNumbers | None = None) -> tuple[RowNumbers, list[object]]:
        """See `Values.coded`; floats are the same where their bits are."""
        rows = np.arange(len(self._numbers)) if places is None else places
        numbers = self._numbers[rows]
        bits = numbers.view(f"i{numbers.itemsize}") if numbers.dtype.kind == "f" else numbers
        different, codes = np.unique(bits, return_inverse=True)
        cells: list[object] = different.view(numbers.dtype).tolist()
        if len(self._others):
            spot = np.searchsorted(self._others, rows)
            spot = np.minimum(spot, len(self._others) - 1)
            codes = np.where(self._others[spot] == rows, len(cells) + spot, codes)
        return codes, cells + list(self._cells)

    def mapped(self, function: Callable[[object], object]) -> NumberColumn:
        """See `Values.mapped`."""
        return NumberColumn(self._numbers, self._others, [function(cell) for cell in self._cells])


class Coded(Values):
    """Cells of which many may be equal: the different ones, and which of them each row has."""

    def __init__(self, codes: NDArray[np.signedinteger[Any]], cells: list[object]) -> None:
        self._codes, self._cells = codes, cells

    def __len__(self) -> int:
        return len(self._codes)

    def _at(self, place: int) -> object:
        return self._cells[self._codes[place]]

    def __iter__(self) -> Iterator[object]:
        return map(self._cells.__getitem__, self._codes.tolist())

    def parsed(self, read: ReadNumber) -> Parsed:
        """See `Values.parsed`."""
        return self._parsed_cells(read)[self._codes]

    def _parsed_cells(self, read: ReadNumber) -> Parsed:
        """(M,) of the different cells."""
        return _read(self._cells, read)

    def coded(self, places: RowNumbers | None = None) -> tuple[RowNumbers, list[object]]:
        """See `Values.coded`."""
        codes = self._codes if places is None else self._codes[places]
        return codes.astype(np.int64), self._cells

    def mapped(self, function: Callable[[object], object]) -> Coded:
        """See `Values.mapped`."""
        return type(self)(self._codes, [function(cell) for cell in self._cells])


def equal_once(cells: list[object]) -> Values:
    """These cells, the equal ones once where all are texts or None."""
    if not set(map(type, cells)) <= {str, type(None)}:
        return Listed(cells)
    place = {cell: i for i, cell in enumerate(dict.fromkeys(cells))}
    return Coded(np.fromiter(map(place.__getitem__, cells), np.int32, len(cells)), list(place))


def values_of(column: Sequence[object]) -> Values:
    """The same cells, able to be read at once."""
    return column if isinstance(column, Values) else Listed(column)


def _read(cells: Sequence[object], read: ReadNumber) -> Parsed:
    found = (read(cell) for cell in cells)
    return np.array([np.nan if number is None else number for number in found], dtype=np.float64)

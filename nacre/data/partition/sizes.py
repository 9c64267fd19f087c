"""Declared units by party, as one array."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nacre.data.partition.names import places


class Sizes(Mapping[str, int]):
    """Party -> its declared units, in the order of the names. Eight bytes a party.

    >>> sizes = Sizes(("east", "north"), np.array([3, 5]))
    >>> dict(sizes), sizes.least, sizes.most, sizes.distinct()
    ({'east': 3, 'north': 5}, ('east', 3), ('north', 5), {3: (0, 1), 5: (1, 1)})
    """

    def __init__(
        self,
        names: Sequence[str],
        units: NDArray[np.int64],  # (parties,)
        *,
        known: bool = True,  # False: the names are read with the rows, and all sizes are equal
    ) -> None:
        self.names = names
        self._units, self._known = units, known
        self._place = places(names)

    def __getitem__(self, name: str) -> int:
        if not self._known:
            return int(self._units[0])
        try:
            return int(self._units[self._place(name)])
        except ValueError as error:
            raise KeyError(name) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def least(self) -> tuple[str, int]:
        """The first party that has the fewest units, and how many."""
        return self._at(int(self._units.argmin()))

    @property
    def most(self) -> tuple[str, int]:
        """The first party that has the most units, and how many."""
        return self._at(int(self._units.argmax()))

    def distinct(self) -> dict[int, tuple[int, int]]:
        """Size -> (place of the first party of that size, how many have it), ascending."""
        found = np.unique(self._units, return_index=True, return_counts=True)
        sizes, first, counts = (part.tolist() for part in found)
        return dict(zip(sizes, zip(first, counts, strict=True), strict=True))

    def _at(self, place: int) -> tuple[str, int]:
        return self.names[place], int(self._units[place])

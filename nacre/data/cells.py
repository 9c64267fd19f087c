"""The cells of private rows, hashed for `sketch.py`: the same whatever the file, the order, the
names of columns or the way in which a number is written.

A cell is one value of one row. `1`, `1.0`, `"1"` and `1e0` are one number, kept to six significant
digits, so that single precision changes nothing; words are compared without case, surplus white
space and Unicode compatibility forms. No value is kept: every cell becomes 64 bits under a key.
"""

# Parts of NumPy are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nacre.data.readers import as_number, is_missing, text

Hashes = NDArray[np.uint64]
"""One number a cell, row or part; 0 stands for nothing."""

CellForm = Literal["cells", "sequence"]
"""Whether the order of a row's values says nothing (a table) or everything (text, tokens)."""


@dataclass(frozen=True)
class Hashing:
    """Keyed hashes of 64 bits: for comparing, never to be published."""

    key: bytes = field(repr=False)

    @cached_property
    def _start(self) -> np.uint64:
        return np.uint64(int.from_bytes(hashlib.blake2b(self.key, digest_size=8).digest(), "big"))

    def mixed(self, values: Hashes) -> Hashes:
        """Each entry hashed by itself (the finaliser of SplitMix64; Steele et al. 2014)."""
        with np.errstate(over="ignore"):
            found = values ^ self._start
            found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            return found ^ (found >> np.uint64(31))

    def numbers(self, values: NDArray[np.float64]) -> Hashes:
        """Numbers, by six significant digits; NaN is nothing."""
        plain = np.asarray(values, dtype=np.float64)
        finite = np.isfinite(plain) & (plain != 0)
        power = np.floor(np.log10(np.abs(np.where(finite, plain, 1.0)))) - 5
        power = np.clip(power, -300, 300)
        rounded = np.where(finite, np.rint(plain / 10.0**power), plain)
        # The rounded digits may reach seven: 9.999999 is written as 10.
        seven = finite & (np.abs(rounded) >= 1e6)
        rounded, power = np.where(seven, rounded / 10, rounded), power + seven
        power = np.where(finite, power, 0.0)
        bits = (rounded + 0.0).view(np.uint64) ^ self.mixed((power + 1e4).view(np.uint64))
        return np.where(np.isnan(plain), np.uint64(0), self.mixed(bits))

    def words(self, values: Iterable[str]) -> Hashes:
        """Words, after `plain`."""
        known: dict[str, int] = {}
        found = [known.get(word) or known.setdefault(word, self._word(word)) for word in values]
        return np.array(found, dtype=np.uint64)

    def values(self, column: Sequence[object]) -> Hashes:
        """Values as a file gives them: numbers where they can be read as such, or else words."""
        read = [None if isinstance(v, bool) or is_missing(v) else as_number(v) for v in column]
        numbers = np.array([np.nan if v is None else v for v in read], np.float64)
        if running(numbers) or _calendar(column):
            return np.zeros(len(numbers), np.uint64)
        found = self.numbers(numbers)
        places = [i for i, v in enumerate(read) if v is None and not is_missing(column[i])]
        if places:
            found[places] = self.words(text(column[i]) for i in places)
        return found

    def _word(self, word: str) -> int:
        state = hashlib.blake2b(plain(word).encode(), digest_size=8, key=self.key[:64])
        return int.from_bytes(state.digest(), "big") or 1


def running(numbers: NDArray[np.float64]) -> bool:
    """Whether a column only counts its rows, so that tables of other people have it too.

    >>> running(np.arange(5.0)), running(np.array([1.0, 7.0, 30.0]))
    (True, False)
    """
    if len(numbers) < 2 or not np.isfinite(numbers).all() or (numbers != np.rint(numbers)).any():
        return False
    different = len(np.unique(numbers))
    return 2 * different >= len(numbers) and float(np.ptp(numbers)) < 2 * different


def _calendar(column: Sequence[object]) -> bool:
    """Whether a column holds nothing but days: other tables have the same ones."""
    return all(isinstance(value, str) and _DAY.fullmatch(value) for value in column)


_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def plain(word: str) -> str:
    """A word as it is compared.

    >>> plain("  Never  MARRIED ")
    'never married'
    """
    return " ".join(unicodedata.normalize("NFKC", word).casefold().split())


_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Cells:
    """Where private rows are read from, in blocks of hashed rows."""

    form: CellForm
    source: Sequence[Any] | NDArray[Any] | Callable[[], Iterator[NDArray[Any]]]
    """Columns of values; an array (N, …) of numbers, or blocks of one that is made again at each
    call; under "sequence" one entry a row: a text, or a list of numbers."""

    def hashed(self, hashing: Hashing) -> Iterator[list[Hashes]]:
        """Blocks of rows; under "cells" every row of a block has as many entries."""
        if self.form == "sequence":
            assert not callable(self.source)
            yield [self._sequence(hashing, row) for row in self.source]
        elif callable(self.source):
            for block in self.source():
                yield from Cells("cells", block).hashed(hashing)
        elif isinstance(self.source, np.ndarray):
            flat = self.source.reshape(len(self.source), -1)
            step = max(1, _AT_ONCE // max(1, flat.shape[1]))
            for start in range(0, len(flat), step):
                part = flat[start : start + step].astype(np.float64)
                if step >= len(flat):
                    part = np.where([running(column) for column in part.T], np.nan, part)
                yield list(hashing.numbers(part))
        else:
            columns = [hashing.values(column) for column in self.source]
            yield list(np.stack(columns, axis=1)) if columns else []

    @staticmethod
    def _sequence(hashing: Hashing, row: object) -> Hashes:
        if isinstance(row, str):
            return hashing.words(_WORD.findall(plain(row)))
        return hashing.numbers(np.asarray(row, dtype=np.float64).reshape(-1))


def of_table(columns: Mapping[str, Sequence[object]]) -> tuple[Cells, ...]:
    """The cells of a table as its file gives them, and the words of its long texts."""
    found = Cells("cells", list(columns.values()))
    texts = [
        value
        for column in columns.values()
        for value in column
        if isinstance(value, str) and value.count(" ") >= _LONG
    ]
    return (found, Cells("sequence", texts)) if texts else (found,)


_LONG = 8  # blanks in a value that is read as a text too
_AT_ONCE = 1 << 22  # cells in memory at once, of arrays whose rows are wide

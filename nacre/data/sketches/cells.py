"""The cells of private rows, hashed for `sketch.py`: the same whatever the file, the order, the
names of columns or the way in which a number is written.

A cell is one value of one row, as its file holds it. **Nothing that a recipe declares of the cells
counts**, so that no dialect, no list of words for no value and no format of dates makes other cells
of the same file. Numbers are compared by their sign and their first six significant digits: `1.5`,
`1,50`, `15` and `1.5e3` are one, so that neither a mark that is read otherwise nor single precision
changes any. Words are compared without case, surplus white space and Unicode compatibility forms,
and as the bytes of their file say (`stored`). No value is kept: every cell becomes 64 bits under a
key.
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

from nacre.data.columns.dialect import unquoted
from nacre.data.readers import as_number, is_missing, text
from nacre.data.reading.values import Listed, NumberColumn, Values, values_of
from nacre.data.sketches.moments import any_order, calendar

Hashes = NDArray[np.uint64]
"""One number a cell, row or part; 0 stands for nothing."""

NARROW = 256
"""Numbers of a row, up to which an array is a table of columns; those of wider ones are pixels."""

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
        found = values ^ self._start
        shifted = np.empty_like(found)
        for by, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            np.right_shift(found, np.uint64(by), out=shifted)
            np.bitwise_xor(found, shifted, out=found)
            if factor > 1:
                np.multiply(found, np.uint64(factor), out=found)  # modulo 2^64
        return found

    def numbers(self, values: NDArray[np.float64]) -> Hashes:
        """Numbers, by sign and six significant digits wherever their point is; NaN is nothing."""
        plain = np.asarray(values, dtype=np.float64)
        flat = plain.reshape(-1)
        found = np.empty(flat.shape, dtype=np.uint64)
        for start in range(0, len(flat), _IN_CACHE):
            part = slice(start, start + _IN_CACHE)
            found[part] = self._numbers(flat[part])
        return found.reshape(plain.shape)

    def _numbers(self, plain: NDArray[np.float64]) -> Hashes:
        finite = np.isfinite(plain) & (plain != 0)
        if finite.all():  # nothing has to be chosen entry by entry
            power = (np.floor(np.log10(np.abs(plain))) - 5).clip(-300, 300).astype(np.int64)
            rounded = np.rint(plain / _POWERS[power + 300])
            seven = np.abs(rounded) >= 1e6
            if seven.any():
                rounded[seven] /= 10
            return self.mixed((rounded + 0.0).view(np.uint64))
        power = np.floor(np.log10(np.abs(np.where(finite, plain, 1.0)))) - 5
        power = np.clip(power, -300, 300).astype(np.int64)
        rounded = np.where(finite, np.rint(plain / _POWERS[power + 300]), plain)
        # The rounded digits may reach seven: 9.999999 is written as 10.
        seven = finite & (np.abs(rounded) >= 1e6)
        bits = (np.where(seven, rounded / 10, rounded) + 0.0).view(np.uint64)
        return np.where(np.isnan(plain), np.uint64(0), self.mixed(bits))

    def words(self, values: Iterable[str]) -> Hashes:
        """Words, after `plain`."""
        known = self._known
        found = [known.get(word) or self._learnt(word) for word in values]
        return np.array(found, dtype=np.uint64)

    @cached_property
    def _known(self) -> dict[str, int]:
        return {}  # words that were hashed: texts are made of few

    def _learnt(self, word: str) -> int:
        if len(self._known) >= _WORDS:
            self._known.clear()
        return self._known.setdefault(word, self._word(word))

    def values(self, column: Sequence[object]) -> Hashes:
        """Values as a file gives them: numbers where they can be read as such, or else words. In a
        column of numbers a word stands for no value, whichever words are declared to."""
        given = values_of(column)
        numbers = given.parsed(_number)
        places = np.flatnonzero(np.isnan(numbers))
        if running(numbers) or _compact_days(numbers):
            return np.zeros(len(numbers), np.uint64)
        found = self.numbers(numbers)
        if len(places) and 2 * len(places) >= len(numbers):
            codes, cells = given.coded(places)
            each, counts = np.unique(codes, return_counts=True)
            if len(places) == len(numbers) and calendar(
                [cells[i] for i in each], lambda times: running(np.repeat(times, counts))
            ):
                return np.zeros(len(numbers), np.uint64)
            found[places] = self._words_of([unquoted(cell) for cell in cells])[codes]
        return found

    def _words_of(self, cells: Sequence[object]) -> Hashes:
        """Cells that are no numbers, as words; 0 for no value, which signs alone are too."""
        missing = [is_missing(cell) or not any(map(str.isalnum, text(cell))) for cell in cells]
        return np.where(missing, np.uint64(0), self.words(any_order(text(c)) for c in cells))

    @cached_property
    def _keyed(self) -> hashlib.blake2b:
        return hashlib.blake2b(digest_size=8, key=self.key[:64])

    def _word(self, word: str) -> int:
        state = self._keyed.copy()
        state.update(plain(word).encode())
        return int.from_bytes(state.digest(), "big") or 1


def _number(value: object) -> float | None:
    """A cell as the number it is in any dialect.

    >>> [_number(cell) for cell in ("1.5", "1,5", "1.234,5", "1'234", "'12'", "1.2.2024", True)]
    [1.5, 1.5, 1234.5, 1234.0, 12.0, None, None]
    """
    given = unquoted(value)
    if isinstance(given, bool) or is_missing(given):
        return None
    found = as_number(given)
    if found is None and isinstance(given, str) and (marked := _MARKED.fullmatch(given.strip())):
        whole = "".join(filter(str.isdecimal, marked["whole"]))
        return as_number(f"{marked['sign']}{whole}.{marked['part'] or 0}{marked['power'] or ''}")
    return found


_MARKED = re.compile(
    r"(?P<sign>[+-]?)(?=[.,]?[0-9])"
    r"(?P<whole>[0-9]{1,3}(?P<mark>[.,'\u2019 \u00a0\u202f])[0-9]{3}(?:(?P=mark)[0-9]{3})*|[0-9]*)"
    r"(?:[.,](?P<part>[0-9]*))?(?P<power>[eE][+-]?[0-9]+)?"
)
"""A number with marks of thousands, or a comma before its fraction."""


_POWERS = 10.0 ** np.arange(-300.0, 301.0)
_WORDS = 1 << 18  # hashes of words that are kept
_IN_CACHE = 1 << 14  # numbers at a time: what is computed on the way stays near the processor


def running(numbers: NDArray[np.float64]) -> bool:
    """Whether a column only counts its rows, so that tables of other people have it too: numbers
    in equal steps, at most half of them left out and few twice, or all of them equally often.

    >>> running(np.arange(5.0)), running(np.array([1.0, 7.0, 30.0]))
    (True, False)
    >>> running(np.repeat(np.arange(10.0, 30.0, 2.0), 2)), running(np.array([0.0, 1, 1, 2, 2]))
    (True, False)
    """
    if len(numbers) < 2 or not (_whole(numbers[:_FIRST]) and _whole(numbers)):
        return False
    values, counts = np.unique(numbers, return_counts=True)
    if len(values) < 2 or max(abs(values[0]), abs(values[-1])) > _WHOLE:
        return False
    counted = len(numbers) // int(np.gcd.reduce(counts))
    steps = float(np.ptp(values)) / int(np.gcd.reduce(np.diff(values).astype(np.int64)))
    return len(values) >= _DIFFERENT * counted and steps < 2 * len(values)


def _whole(numbers: NDArray[np.float64]) -> bool:
    return bool((np.isfinite(numbers) & (numbers == np.rint(numbers))).all())


_FIRST = 64  # numbers, of which one with a fraction mostly settles it
_WHOLE = 2.0**53  # beyond it not every whole number is a float
_DIFFERENT = 0.65
"""Share of different numbers in a column that counts its rows. Numbers of patients with one visit
or two have two thirds; of whole numbers at random, as many as there are values, 0.63 differ."""


def _compact_days(numbers: NDArray[np.float64]) -> bool:
    """Whether a column holds nothing but days written as one number.

    >>> _compact_days(np.array([20240131.0, 20231224.0])), _compact_days(np.array([20241301.0]))
    (True, False)
    """
    if not len(numbers) or not (numbers.min() >= 1900_00_00 and numbers.max() < 2200_00_00):
        return False  # as with a value that is missing
    month, day = numbers // 100 % 100, numbers % 100
    dated = (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    return bool((dated & (np.rint(numbers) == numbers)).all())


def stored(word: str, encoding: str) -> str:
    """What the bytes of a word say, whichever `encoding` a file was read in: UTF-8 where they are
    that, or else cp1252, which is latin-1 but for a few signs.

    >>> [stored(word, "latin-1") for word in ("K\u00c3\u00b6ln", "K\u00f6ln", "\x80")]
    ['K\u00f6ln', 'K\u00f6ln', '\u20ac']
    """
    if word.isascii() or encoding not in _OF_ONE_BYTE:
        return word
    found = word.encode(encoding, "replace")
    for known in ("utf-8", "cp1252"):
        try:
            return found.decode(known)
        except UnicodeDecodeError:
            continue
    return found.decode("latin-1")


_OF_ONE_BYTE = ("latin-1", "cp1252")


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

    @property
    def in_columns(self) -> bool:
        """Whether every column comes whole. Arrays come in blocks of rows, and the columns of wide
        ones are pixels and the like, which have no roles."""
        return isinstance(self.source, list)

    def sequences(self, hashing: Hashing) -> Iterator[tuple[Hashes, NDArray[np.int64]]]:
        """(values, lengths) of many rows at a time under "sequence": the rows one after the other,
        and how many values each has."""
        assert self.form == "sequence" and not callable(self.source)
        for start in range(0, len(self.source), _ROWS):
            rows = [_sequence(row) for row in self.source[start : start + _ROWS]]
            lengths = np.array([len(row) for row in rows], dtype=np.int64)
            worded = np.array([isinstance(row, list) for row in rows], dtype=np.bool_)
            found = np.empty(int(lengths.sum()), dtype=np.uint64)
            words = (word for row in rows if isinstance(row, list) for word in row)
            numbers = [row for row in rows if not isinstance(row, list)]
            of_word = np.repeat(worded, lengths)
            found[of_word] = hashing.words(words)
            if numbers:
                found[~of_word] = hashing.numbers(np.concatenate(numbers))
            yield found, lengths

    def columns(self, hashing: Hashing) -> Iterator[list[Hashes]]:
        """Blocks of rows under "cells", each as its columns."""
        assert self.form == "cells"
        if callable(self.source):
            for block in self.source():
                yield from Cells("cells", block).columns(hashing)
        elif isinstance(self.source, np.ndarray):
            flat = self.source.reshape(len(self.source), -1)
            step = max(1, _AT_ONCE // max(1, flat.shape[1]))
            for start in range(0, len(flat), step):
                part = flat[start : start + step].astype(np.float64)
                if step >= len(flat):
                    part = np.where([running(column) for column in part.T], np.nan, part)
                yield list(np.ascontiguousarray(hashing.numbers(part).T))
        else:
            yield [hashing.values(column) for column in self.source]


def _sequence(row: object) -> list[str] | NDArray[np.float64]:
    """The words of a text, or the numbers of a list."""
    if isinstance(row, str):
        return _WORD.findall(plain(row))
    return np.asarray(row, dtype=np.float64).reshape(-1)


def of_table(columns: Mapping[str, Sequence[object]], encoding: str = "utf-8") -> tuple[Cells, ...]:
    """The cells of a table as its file gives them, and the words of its long texts. `encoding` is
    the one that the file was read in."""

    def said(cell: object) -> object:
        return stored(cell, encoding) if isinstance(cell, str) else cell

    held = [values_of(column) for column in columns.values()]
    if encoding in _OF_ONE_BYTE:
        held = [column.mapped(said) for column in held]
    found = Cells("cells", held)
    texts = [text for column in held for text in _long_texts(column)]
    return (found, Cells("sequence", texts)) if texts else (found,)


def _long_texts(column: Values) -> list[str]:
    """The texts of a column that are long, row by row."""
    column = Listed(column.others) if isinstance(column, NumberColumn) else column
    codes, cells = column.coded()
    long = [isinstance(cell, str) and cell.count(" ") >= _LONG for cell in cells]
    if not any(long):
        return []
    return [str(cells[code]) for code in codes[np.array(long)[codes]].tolist()]


_ROWS = 1 << 12  # sequences at a time
_LONG = 8  # blanks in a value that is read as a text too
_AT_ONCE = 1 << 22  # cells in memory at once, of arrays whose rows are wide

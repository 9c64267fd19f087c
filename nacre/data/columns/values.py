"""A column's values, a whole column at a time: which are missing, which are numbers, which differ.

Values come as `reading.Values` (of a file that training reads), a list, a NumPy array, or an array
of Arrow (of the files that predictions read). Whatever they come as, each is read to the same bits:
text that everybody reads the same way is parsed by Arrow or NumPy, of all else each different value
once.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nacre.data.columns.dialect import PLAIN, Dialect
from nacre.data.readers import as_number, text
from nacre.data.reading.values import NumberColumn, Values

RowMask = NDArray[np.bool_]
FloatColumn = NDArray[np.float64]
RowCodes = NDArray[np.int64]


def number_in(value: object, dialect: Dialect) -> float | None:
    """A value as a float, possibly infinite; None where it is no number in this dialect."""
    if not isinstance(value, str):
        return as_number(value)
    if dialect.plain:
        return as_number(value.strip())  # `float` strips less than `strip` does
    found = dialect.plain_number(value)
    return None if found is None else as_number(found)


def lacks_value(value: object, dialect: Dialect) -> bool:
    """Whether this stands for no value."""
    if value is None or (isinstance(value, float) and value != value):
        return True
    if text(value).lower() in dialect.words:
        return True
    return bool(dialect.numbers) and number_in(value, dialect) in dialect.numbers


def as_column(values: Any) -> Any:
    """`Values` as they are; an Arrow array of numbers, booleans or text, in one piece; else a list
    of plain values."""
    if isinstance(values, list | Values):
        return values
    import pyarrow as pa  # half a second to import, and not needed for CSV

    if isinstance(values, np.ndarray):
        return pa.array(values) if values.dtype.kind in "biuf" else values.tolist()
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if pa.types.is_string_view(kind):
        return values.cast(pa.large_string())
    simple = (
        _is_text, pa.types.is_integer, pa.types.is_boolean, pa.types.is_float32,
        pa.types.is_float64,
    )  # fmt: skip
    return values if any(fits(kind) for fits in simple) else values.to_pylist()


def shown_value(values: Any, place: int) -> str:
    """A value as a message shows it."""
    value = values[place]
    return text(value if isinstance(values, list | Values) else value.as_py())


def different(values: Any) -> tuple[list[object], RowCodes]:
    """(the different values, (N,) the place of each row's value among them). Of `Values`, one may
    stand there twice, or be no row's."""
    if isinstance(values, Values):
        codes, cells = values.coded()
        return cells, codes
    if isinstance(values, list):
        listed: list[object] = values
        if not all(type(value) is str for value in listed):
            return listed, np.arange(len(listed))  # 1, 1.0 and True are equal, and not the same
        place: dict[object, int] = {}
        codes = [place.setdefault(value, len(place)) for value in listed]
        return list(place), np.array(codes, np.int64)
    encoded = values.dictionary_encode(null_encoding="encode")
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return encoded.dictionary.to_pylist(), codes


def numbers_in(values: Any, dialect: Dialect) -> tuple[RowMask, FloatColumn, RowCodes]:
    """(N,) which rows have a value; (N,) float64, 0 where they have none; places of no numbers."""
    numbers = None if _reads_a_word(dialect) else _at_once(values, dialect)
    if numbers is None:
        return _by_hand(values, np.arange(len(values)), np.zeros(len(values)), dialect)
    left = np.flatnonzero(np.isnan(numbers))
    if not len(left):
        has = np.ones(len(values), np.bool_)
        if dialect.numbers:
            has = ~np.isin(numbers, dialect.numbers)
            numbers = np.where(has, numbers, 0.0)
        return has, numbers, left
    if isinstance(values, list):
        return _by_hand(values, np.arange(len(values)), np.zeros(len(values)), dialect)
    numbers[left] = 0.0
    has, numbers, wrong = _by_hand(values, left, numbers, dialect)
    if dialect.numbers:
        has &= ~np.isin(numbers, dialect.numbers)
        numbers = np.where(has, numbers, 0.0)
    return has, numbers, wrong


def _reads_a_word(dialect: Dialect) -> bool:
    """Whether a word for no value is a number to `float`, and yet stands for itself alone (`inf`,
    `1_000`): read at once it would be that number in some forms of a file, and no value in others.
    """
    read = (number_in(word, dialect) for word in dialect.words)
    return any(number is not None and number not in dialect.numbers for number in read)


def _at_once(values: Any, dialect: Dialect) -> FloatColumn | None:
    """(N,) float64, NaN for what is to be read by hand; None for all of it."""
    if isinstance(values, Values):
        # What numbers in texts are, `parsed` takes from Python alone.
        known = dialect.plain or isinstance(values, NumberColumn)
        return values.parsed(lambda value: number_in(value, dialect)) if known else None
    if isinstance(values, list):
        return _listed_at_once(values, dialect)
    import pyarrow as pa

    if _is_text(values.type):
        return _cast(values) if dialect.plain else None
    if pa.types.is_integer(values.type) or pa.types.is_boolean(values.type):
        whole = values.cast(pa.int8()) if pa.types.is_boolean(values.type) else values
        known = whole.fill_null(0) if whole.null_count else whole
        numbers = known.to_numpy(zero_copy_only=False).astype(np.float64)
        if values.null_count:
            numbers[~np.asarray(values.is_valid())] = np.nan
        return numbers
    return np.array(values.to_numpy(zero_copy_only=False), np.float64)


def _listed_at_once(values: list[object], dialect: Dialect) -> FloatColumn | None:
    """All of a list, ten times as fast as one by one; None unless all are finite numbers."""
    try:
        if not dialect.plain and any(isinstance(value, str) for value in values):
            if dialect.thousands is not None or dialect.decimal != ",":
                return None
            joined = "\n".join(cast(list[str], values))  # else TypeError
            if "." in joined or joined.count("\n") != len(values) - 1:
                return None
            numbers = np.array(joined.replace(",", ".").split("\n"), dtype=np.float64)
        else:
            numbers = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if numbers.ndim == 1 and np.isfinite(numbers).all() else None


def _cast(values: Any) -> FloatColumn:
    """(N,) float64 of texts that are certainly read as `float` reads them; NaN elsewhere."""
    from nacre.data.reading.arrow_values import plain_numbers

    found, _ = plain_numbers(values.fill_null("") if values.null_count else values)
    return np.array(found, np.float64)  # Arrow's own memory is not to be written into


def _by_hand(
    values: Any, places: RowCodes, numbers: FloatColumn, dialect: Dialect
) -> tuple[RowMask, FloatColumn, RowCodes]:
    """The rows at `places` cell by cell, each different value once; the others are in `numbers`."""
    has = np.ones(len(numbers), np.bool_)
    if isinstance(values, Values):
        codes, found = values.coded(places)
    else:
        found, codes = different(_taken(values, places))
    lacking = np.array([lacks_value(value, dialect) for value in found], np.bool_)
    read = [
        None if gone else number_in(value, dialect)
        for value, gone in zip(found, lacking.tolist(), strict=True)
    ]
    numbers[places] = np.array([0.0 if x is None else x for x in read], np.float64)[codes]
    no_number = np.array([x is None for x in read], np.bool_) & ~lacking
    has[places] = ~lacking[codes]
    return has, numbers, places[no_number[codes]]


def _taken(values: Any, places: RowCodes) -> Any:
    if len(places) == len(values):
        return values
    import pyarrow as pa

    return values.take(pa.array(places))


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


__all__ = [
    "PLAIN", "FloatColumn", "RowCodes", "RowMask", "as_column", "different", "lacks_value",
    "number_in", "numbers_in", "shown_value",
]  # fmt: skip

"""CSV and TSV in blocks of bytes, read by Arrow where it must agree with Python's `csv`.

`csv` with `strict=True` says what a file means; Arrow reads ten times as fast, and what it makes of
odd files is its own. So a block goes to Arrow only where the two cannot differ:

- there is no NUL, and no line end but LF and CR LF (blank lines are none to either);
- it does not begin with a byte order mark, which Arrow takes away at the start of whatever it is
  given (that of the file is passed over before);
- quotes come in pairs: the first of a pair begins a value, the second ends one (so none is doubled
  within a value, or stands inside one that does not begin with it), and no value spans lines;
- Arrow finds the same number of values in each row, and valid UTF-8.

From the first block on that is not so, the rest of the file is for `csv`; `plain_blocks` says where
it begins.
"""

# pyarrow carries no types.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportMissingModuleSource=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv

from nacre.data.reading.arrow_values import plain_numbers

_BLOCK = 1 << 23
"""Bytes at a time: the texts of a block are in memory beside what became of those before."""

_TEXT = pa.large_string()
_WORDS = pa.dictionary(pa.int32(), pa.large_string())

_NEWLINE, _RETURN, _BOM = b"\n", b"\r", b"\xef\xbb\xbf"


def plain_blocks(
    opened: BinaryIO,
    numbers: Sequence[bool],  # of each column, whether its texts are wanted as numbers alone
    separator: str,
    quote: str | None,
    block: int = _BLOCK,
) -> Iterator[tuple[int, list[pa.Array]]]:
    """(where the block ends in the file, each column), as long as blocks are plain; the header is a
    row like others. What is left begins where the last block ends.

    A column is float64 where its texts are wanted as numbers, and every one of the block is finite
    and certainly read as `float` reads it; else its texts, or a dictionary of them.
    """
    start = end = 3 if opened.read(3) == _BOM else 0
    opened.seek(start)
    rest = b""
    kinds = [_TEXT] * len(numbers)  # of the first block, since a header is no number
    while True:
        given = opened.read(block)
        cut = given.rfind(_NEWLINE) + 1 if given else 0
        if given and not cut:
            return  # a line longer than a block
        rows = b"".join((rest, memoryview(given)[:cut])) if given else rest
        rest = given[cut:]
        if not rows or not _is_plain(rows, separator, quote):
            return
        found = _columns(rows, kinds, separator, quote)
        if found is None and end:
            found = _columns(rows, [_TEXT] * len(numbers), separator, quote)
            if found is not None:  # it was no number that stopped the first reading
                kinds = _kinds(kinds, found)
        if found is None:
            return
        if not end:
            kinds = [pa.float64() if number else _WORDS for number in numbers]
        end += len(rows)
        yield end, found
        if not given:
            return


def _kinds(kinds: list[pa.DataType], texts: list[pa.Array]) -> list[pa.DataType]:
    """What to ask for from now on: a column that had other texts than numbers will have more."""
    kept = [
        kind if kind == _WORDS or bool(plain_numbers(column)[1].all()) else _TEXT
        for kind, column in zip(kinds, texts, strict=True)
    ]
    # Where no column shows why, none is tried again.
    return kept if kept != kinds else [k if k == _WORDS else _TEXT for k in kinds]


def _is_plain(rows: bytes, separator: str, quote: str | None) -> bool:
    """Whether whole rows mean the same to `csv` and to Arrow, but for the number of values."""
    if rows.startswith(_BOM) or b"\0" in rows:
        return False
    if _RETURN in rows and rows.count(_RETURN) != rows.count(b"\r\n"):
        return False
    if quote is None or quote.encode() not in rows:
        return True
    return _quotes_are_plain(np.frombuffer(rows, np.uint8), separator, quote)


def _quotes_are_plain(rows: np.ndarray, separator: str, quote: str) -> bool:
    quotes = np.flatnonzero(rows == ord(quote))
    if len(quotes) % 2:
        return False
    first, second = quotes[0::2], quotes[1::2]
    before = rows[np.maximum(first - 1, 0)]
    begins = (first == 0) | (before == ord(separator)) | (before == ord(_NEWLINE))
    after = rows[np.minimum(second + 1, len(rows) - 1)]
    ends = (second == len(rows) - 1) | (after == ord(separator)) | (after == ord(_NEWLINE))
    ends |= after == ord(_RETURN)
    lines = np.flatnonzero(rows == ord(_NEWLINE))
    within = np.searchsorted(quotes, lines) % 2
    return bool(begins.all() and ends.all() and not within.any())


def _columns(
    rows: bytes, kinds: list[pa.DataType], separator: str, quote: str | None
) -> list[pa.Array] | None:
    """The columns, each of its kind; None where rows have another number of values, where there is
    no UTF-8, or where what should be a number is none that is finite.

    *Why the numbers are those of `plain_numbers`:* Arrow reads a number of a file by the function
    that casts a text to one, after it has taken blanks away; and words for no number are no null.
    """
    types = {f"f{place}": kind for place, kind in enumerate(kinds)}
    try:
        table = pyarrow.csv.read_csv(
            pa.py_buffer(rows),
            pyarrow.csv.ReadOptions(
                use_threads=False, block_size=len(rows) + 1, column_names=list(types)
            ),
            pyarrow.csv.ParseOptions(
                delimiter=separator,
                quote_char=False if quote is None else quote,
                double_quote=quote is not None,
                ignore_empty_lines=True,
            ),
            pyarrow.csv.ConvertOptions(
                column_types=types,
                null_values=[],
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    found = [c.chunk(0) if c.num_chunks == 1 else c.combine_chunks() for c in table.columns]
    for column, kind in zip(found, kinds, strict=True):
        if kind == pa.float64() and not np.isfinite(column.to_numpy()).all():
            return None
    return found

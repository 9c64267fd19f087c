"""CSV and TSV in blocks of bytes, read by Arrow where it must agree with Python's `csv`.

`csv` with `strict=True` says what a file means; Arrow reads ten times as fast, and what it makes of
odd files is its own. So a block goes to Arrow only where the two cannot differ:

- there is no NUL, no line end but LF and CR LF, and no blank line;
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

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv

_BLOCK = 1 << 23
"""Bytes at a time: the texts of a block are in memory beside what became of those before."""

_NEWLINE, _RETURN, _BOM = b"\n", b"\r", b"\xef\xbb\xbf"


def plain_blocks(
    opened: BinaryIO, columns: int, separator: str, quote: str | None, block: int = _BLOCK
) -> Iterator[tuple[int, list[pa.Array]]]:
    """(where the block ends in the file, the texts of each column), as long as blocks are plain;
    the header is a row like others. What is left begins where the last block ends."""
    start = end = 3 if opened.read(3) == _BOM else 0
    opened.seek(start)
    rest = b""
    while True:
        given = opened.read(block)
        cut = given.rfind(_NEWLINE) + 1 if given else 0
        if given and not cut:
            return  # a line longer than a block
        rows, rest = (rest + given[:cut], given[cut:]) if given else (rest, b"")
        if not rows or not _is_plain(rows, separator, quote):
            return
        texts = _texts(rows, columns, separator, quote)
        if texts is None:
            return
        end += len(rows)
        yield end, texts
        if not given:
            return


def _is_plain(rows: bytes, separator: str, quote: str | None) -> bool:
    """Whether whole rows mean the same to `csv` and to Arrow, but for the number of values."""
    if rows.startswith(_BOM) or b"\0" in rows or rows.count(_RETURN) != rows.count(b"\r\n"):
        return False
    if rows.startswith((b"\n", b"\r")) or b"\n\n" in rows or b"\n\r" in rows:
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


def _texts(rows: bytes, columns: int, separator: str, quote: str | None) -> list[pa.Array] | None:
    """The texts of each column; None where rows have another number of values, or no UTF-8."""
    names = [f"f{place}" for place in range(columns)]
    try:
        table = pyarrow.csv.read_csv(
            pa.py_buffer(rows),
            pyarrow.csv.ReadOptions(
                use_threads=False, block_size=len(rows) + 1, column_names=names
            ),
            pyarrow.csv.ParseOptions(
                delimiter=separator,
                quote_char=False if quote is None else quote,
                double_quote=quote is not None,
                ignore_empty_lines=False,
            ),
            pyarrow.csv.ConvertOptions(
                column_types={name: pa.large_string() for name in names},
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    return [column.combine_chunks() for column in table.columns]

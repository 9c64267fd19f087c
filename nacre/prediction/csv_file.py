"""CSV and TSV read by Arrow, every value as text, a million rows in seconds."""

from __future__ import annotations

import codecs
import csv
import gzip
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.csv as arrow_csv

from nacre.core.errors import DataError
from nacre.data.columns.dialect import PLAIN, Dialect
from nacre.data.files import FileFault
from nacre.data.readers import (
    csv_form,
    csv_header,
    csv_lines,
    encoding_fault,
    open_bytes,
    open_text,
    reading,
    suffix,
)

CHUNK = 1 << 15
"""Rows that are scored together. Always as many, so that a row's answer does not depend on how the
file is stored."""

_OF_UTF_8 = (".parquet", ".pq", ".jsonl", ".ndjson", ".txt")
"""Forms of files that no declared encoding is about."""

NARROW, WIDE = 1 << 20, 1 << 25
"""Bytes that are parsed at once: a row of a table, or of text, may not be longer. Arrow reads some
thirty such blocks ahead."""


def encoding_doubt(file: Path, dialect: Dialect) -> str | None:
    """That a file of rows looks like UTF-8 where the model reads one byte a letter, which takes
    every file and gives other letters; None where it does not. Raises `DataError`."""
    kind = suffix(file.name)
    if dialect.encoding.startswith("utf-8") or kind in _OF_UTF_8 or not file.is_file():
        return None
    decoder, plain = codecs.getincrementaldecoder("utf-8")(), True
    with reading(file), open_bytes(file) as opened:
        while data := opened.read(WIDE):
            plain = plain and data.isascii()
            try:
                decoder.decode(data)
            except UnicodeDecodeError:
                return None
    if plain or decoder.getstate()[0]:
        return None
    return (
        f"{file} looks like UTF-8, and the model reads {dialect.encoding}: letters beyond ASCII "
        f"are read as others; save the file in {dialect.encoding}"
    )


class CsvRows:
    """A file of separated values, plain or .gz, with names in its first row."""

    def __init__(self, file: Path, block: int = NARROW, dialect: Dialect = PLAIN) -> None:
        csv.field_size_limit(sys.maxsize)
        self._form, self._encoding = csv_form(file, dialect), dialect.encoding
        with reading(file), open_text(file, self._encoding) as opened:
            lines = csv_lines(opened, self._form)
            self.names = csv_header(lines, self._form, fixed=True)
            if next(lines, None) is None:
                raise FileFault("holds no rows, so there is nothing to predict; add rows to it")
        once_each(file, self.names)
        self._file, self._block = file, block
        self._bytes: _Counted | None = None
        self._wrong: list[Any] = []

    def tables(self) -> Iterator[Any]:
        """Tables of text columns, `CHUNK` rows in each but the last. Raises `DataError`."""
        with reading(self._file), ExitStack() as stack:
            plain = stack.enter_context(self._file.open("rb"))
            packed = self._file.suffix == ".gz"
            opened = stack.enter_context(gzip.open(plain)) if packed else plain
            quote = self._form.quote
            self._bytes = _Counted(cast(BinaryIO, opened), plain, self._file.stat().st_size, quote)
            yield from _of_one_size(self._batches())
            if self._bytes.quotes % 2:
                self._require_closed()

    def share(self) -> float:
        """How much of the file has been read, from 0 to 1."""
        return 0.0 if self._bytes is None else self._bytes.share()

    def _batches(self) -> Iterator[Any]:
        """Record batches without the row of names."""
        places = [str(place) for place in range(len(self.names))]
        try:
            reader = arrow_csv.open_csv(
                pa.PythonFile(self._bytes, mode="r"),
                arrow_csv.ReadOptions(
                    column_names=places,
                    block_size=self._block,
                    use_threads=False,
                    encoding="utf8" if self._encoding.startswith("utf-8") else self._encoding,
                ),
                arrow_csv.ParseOptions(
                    delimiter=self._form.separator,
                    quote_char=self._form.quote or False,
                    newlines_in_values=self._form.quote is not None,
                    invalid_row_handler=self._note_wrong,
                ),
                arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(places, pa.string()), strings_can_be_null=False
                ),
            )
            skip = 1
            for batch in reader:
                if batch.num_rows > skip:
                    yield batch.slice(skip)
                skip = 0 if batch.num_rows else skip
        except (pa.ArrowInvalid, pa.ArrowException) as error:
            raise FileFault(self._fault(error)) from error

    def _note_wrong(self, row: Any) -> str:
        self._wrong.append(row)
        return "error"

    def _fault(self, error: Exception) -> str:
        """What is wrong with the file, after its name."""
        if self._wrong:
            row = self._wrong[0]
            place = f"row {row.number - 1}" if row.number else "a row"
            return (
                f"{place} has {row.actual_columns} values and the header names "
                f"{row.expected_columns} columns; correct the row or quote values that hold "
                f"{self._form.held()}"
            )
        said = " ".join(str(error).split())
        if "UTF8" in said or "UTF-8" in said:
            return encoding_fault(self._encoding)
        return f"cannot be read as CSV ({said}); write it anew"

    def _require_closed(self) -> None:
        """Arrow takes a quote that is never closed for one that is closed at the end."""
        with open_text(self._file, self._encoding) as opened:
            for _ in csv_lines(opened, self._form):
                pass


class _Counted:
    """A file that is read once from its start; counts its quotes on the way."""

    closed = False

    def __init__(self, opened: BinaryIO, plain: BinaryIO, size: int, quote: str | None) -> None:
        self._opened, self._plain, self._size = opened, plain, max(1, size)
        self._quote = None if quote is None else quote.encode()
        self.quotes = 0

    def read(self, count: int = -1) -> bytes:
        """The next bytes."""
        data = self._opened.read(count)
        if self._quote is not None:
            self.quotes += data.count(self._quote)
        return data

    def readable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Left to who opened it."""

    def share(self) -> float:
        """How much has been read, from 0 to 1."""
        return min(1.0, self._plain.tell() / self._size)


def _of_one_size(batches: Iterator[Any]) -> Iterator[Any]:
    """The same rows in tables of `CHUNK` rows, but for the last."""
    held: list[Any] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        if count < CHUNK:
            continue
        table = pa.Table.from_batches(held)
        whole = count // CHUNK * CHUNK
        for start in range(0, whole, CHUNK):
            yield table.slice(start, CHUNK)
        held = table.slice(whole).to_batches()
        count -= whole
    if count:
        yield pa.Table.from_batches(held)


def once_each(file: Path, names: Sequence[str]) -> None:
    """Raises `DataError` where a name stands over two columns."""
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f"{file} has column {name!r} twice, so it is unclear which one is meant; rename one"
            )

"""CSV, TSV, JSONL, Parquet and plain text as columns of plain values, with nothing guessed."""

# pyarrow carries no types.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import csv
import difflib
import gzip
import io
import math
import sys
import unicodedata
import zlib
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from nacre.core.errors import DataError
from nacre.data.columns.dialect import MISSING, PLAIN, Dialect
from nacre.data.files import FileFault, located, unreadable
from nacre.data.reading.json_lines import json_rows
from nacre.data.reading.values import Values, equal_once

_SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "vertical bars", ",": "commas"}

_NAMED = 8  # columns that a refusal names

_OTHERS = {
    ".json": "write one JSON object a line, as .jsonl",
    ".xlsx": "save the sheet as .csv",
    ".xls": "save the sheet as .csv",
    ".ods": "save the sheet as .csv",
    ".zip": "unpack it, or pack it as .gz",
    ".pdf": "copy its tables or texts into a .csv",
    ".feather": "save it as .parquet",
    ".arrow": "save it as .parquet",
}
"""Endings of tables that are not read -> what to do. Any other ending is read as CSV."""


@dataclass(frozen=True)
class RawTable:
    """The columns of a file as they stand there: text from CSV, any value from Parquet or JSON."""

    file: Path
    columns: dict[str, Values]
    others: tuple[dict[str, Values], ...] = ()
    """The columns by other separators that all lines agree with: `1,5;2,5` has two readings."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def column(self, name: str) -> Values:
        """The values of a column. Raises `DataError` where the file has none of this name."""
        if name not in self.columns:
            near = difflib.get_close_matches(name, self.columns, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else "correct the name"
            raise DataError(
                f"{self.file} has no column {name!r} (it has {_listed(list(self.columns))}), so "
                f"what was declared cannot be followed; {remedy}",
                column=name,
            )
        return self.columns[name]


def _listed(names: list[str]) -> str:
    """The first names, each cut to a length that fits a sentence.

    >>> _listed(["a", "b"]), _listed([f"c{n}" for n in range(12)])
    ('a, b', 'c0, c1, c2, c3, c4, c5, c6, c7 and 4 more')
    """
    first = ", ".join(name if len(name) <= 40 else f"{name[:39]}…" for name in names[:_NAMED])
    return first if len(names) <= _NAMED else f"{first} and {len(names) - _NAMED} more"


def read_table(
    folder: Path, path: str, dialect: Dialect = PLAIN, numbers: Collection[str] = ()
) -> RawTable:
    """The file at `path`: Parquet, JSONL or TSV by its suffix, else CSV; all but Parquet plain or
    .gz. Of the dialect, separator, quotes and encoding count here. Raises `DataError`.

    Of a column among `numbers` nothing is wanted but the numbers that its cells are read as: from
    CSV, a cell of digits is a float there, so `007` is 7. The dialect has to write numbers as
    Python does.
    """
    file = located(folder, path)
    kind = suffix(path)
    others: tuple[dict[str, Values], ...] = ()
    if kind in (".parquet", ".pq"):
        names, columns = _parquet(file)
    elif kind in (".jsonl", ".ndjson"):
        names, columns = _read(file, _jsonl)
    else:
        with reading(file):
            names, columns = _csv(file, dialect, numbers)
        others = _other_readings(file, dialect)
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f"{file} has column {name!r} twice, so it is unclear which one is meant; rename one"
            )
    if not columns or not columns[0]:
        raise DataError(f"{file} holds no rows, so there is nothing to learn from; add rows to it")
    return RawTable(file, dict(zip(names, columns, strict=True)), others)


def form_problem(path: str) -> str | None:
    """Why no table can be read from a file of this name, judged by the name alone; None if it can.

    >>> form_problem("notes.json")
    "path='notes.json' ends in .json, which is not read; write one JSON object a line, as .jsonl"
    """
    remedy = _OTHERS.get(suffix(path))
    if remedy is None:
        return None
    return f"path={path!r} ends in {suffix(path)}, which is not read; {remedy}"


def suffix(path: str) -> str:
    """What a file's name ends in, under a packing: `.jsonl` for notes.jsonl.gz."""
    return Path(path.removesuffix(".gz")).suffix.lower()


def read_lines(folder: Path, path: str) -> RawTable:
    """The lines of a text file, plain or .gz, without their ends, in a column without a name.
    Raises `DataError`."""
    file = located(folder, path)

    def lines(opened: TextIO) -> _Columns:
        return [""], [equal_once([line.rstrip("\r\n") for line in opened])]

    names, columns = _read(file, lines)
    return RawTable(file, dict(zip(names, columns, strict=True)), _other_readings(file, None))


_Columns = tuple[list[str], list[Values]]


def _read(file: Path, reader: Callable[[TextIO], _Columns], encoding: str = "utf-8") -> _Columns:
    with reading(file), open_text(file, encoding) as opened:
        return reader(opened)


@contextmanager
def reading(file: Path) -> Generator[None]:
    """Whatever goes wrong while the block reads `file` becomes a `DataError` that names it."""
    try:
        yield
    except FileFault as fault:
        raise DataError(f"{file} {fault}") from fault
    except UnicodeDecodeError as error:
        raise DataError(f"{file} {encoding_fault(error.encoding)}") from error
    except (csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file} cannot be read ({error}); write it anew") from error
    except OSError as error:
        raise unreadable(file, error) from error


def encoding_fault(encoding: str) -> str:
    """What is wrong with a file of another encoding, as the rest of a sentence.

    >>> encoding_fault("utf-8")
    'is not UTF-8 text; save it in UTF-8, or declare `dialect: {encoding: cp1252}` (or latin-1)'
    """
    if encoding.startswith("utf-8"):
        return (
            "is not UTF-8 text; save it in UTF-8, or declare `dialect: {encoding: cp1252}` (or "
            "latin-1)"
        )
    name = "cp1252" if encoding == "charmap" else encoding  # so Python calls its 8-bit tables
    return f"is no text in {name}; save it in {name}, or correct `dialect.encoding` in the recipe"


_ROWS = 1 << 15
"""Rows that are in memory as Python objects at a time."""


def _csv(file: Path, dialect: Dialect, numbers: Collection[str]) -> _Columns:
    """Plain blocks as Arrow reads them, then the rest by Python's `csv`; see `csv_blocks`."""
    from nacre.data.reading.arrow_values import TextColumn  # half a second to import pyarrow
    from nacre.data.reading.csv_blocks import plain_blocks

    csv.field_size_limit(sys.maxsize)  # a document may be longer than the 128 KiB of the default
    form, encoding = csv_form(file, dialect), dialect.encoding
    with open_text(file, encoding) as opened:
        names = csv_header(csv_lines(opened, form), form)
    columns = [TextColumn(name in numbers) for name in names]
    end = rows = 0  # the header is a row
    if encoding.startswith("utf-8"):
        with open_bytes(file) as given:
            wanted = [name in numbers for name in names]
            for stop, blocks in plain_blocks(given, wanted, form.separator, form.quote):
                end = stop
                for column, block in zip(columns, blocks, strict=True):
                    column.add(block if rows else block[1:])
                rows += len(blocks[0])
            if rows and given.tell() == end and not given.read(1):
                return names, [column.values() for column in columns]
    with open_text(file, encoding, end) as opened:
        lines = csv_lines(opened, form)
        if not rows:
            next(lines)
        checked = _of_width(lines, len(names), max(rows, 1), form)
        while listed := list(islice(checked, _ROWS)):
            for column, cells in zip(columns, zip(*listed, strict=True), strict=True):
                column.add_listed(cells)
    return names, [column.values() for column in columns]


def _of_width(
    lines: Iterable[list[str]], width: int, first: int, form: CsvForm
) -> Iterator[list[str]]:
    """The same lines. Raises `FileFault` at the one of another width; the first is row `first`."""
    for number, line in enumerate(lines, start=first):
        if len(line) != width:
            raise FileFault(
                f"row {number} has {len(line)} values and the header names "
                f"{width} columns; correct the row or quote values that hold {form.held()}"
            )
        yield line


def _other_readings(file: Path, dialect: Dialect | None) -> tuple[dict[str, Values], ...]:
    """The columns by each other separator that makes several of the header and as many of every
    line; nearly always none. `dialect` is the one that the file was read in, None for lines."""
    encoding = "utf-8" if dialect is None else dialect.encoding
    found: list[dict[str, Values]] = []
    for separator in _SEPARATORS:
        if dialect is not None and separator == csv_form(file, dialect).separator:
            continue
        for quote in ('"', "none"):
            other = Dialect(
                separator="tab" if separator == "\t" else cast(Any, separator),
                quote=cast(Any, quote),
                encoding=encoding,
            )
            with suppress(DataError), reading(file):
                with open_text(file, encoding) as opened:
                    form = csv_form(file, other)
                    if len(csv_header(csv_lines(opened, form), form)) < 2:
                        continue
                _, columns = _csv(file, other, ())
                found.append({str(place): column for place, column in enumerate(columns)})
                break
    return tuple(found)


@dataclass(frozen=True)
class CsvForm:
    """What stands between the values of a line, and around them."""

    separator: str
    quote: str | None  # None where nothing does

    def held(self) -> str:
        """The separators as a sentence names them."""
        return _SEPARATORS[self.separator]


def csv_form(name: str | Path, dialect: Dialect = PLAIN) -> CsvForm:
    """The form of a file, by what is declared, or else by its name.

    >>> csv_form("rows.tsv"), csv_form("rows.csv", Dialect(separator=";"))
    (CsvForm(separator='\\t', quote=None), CsvForm(separator=';', quote='"'))
    """
    # The registered form of TSV (text/tab-separated-values) knows no quotes.
    tabs = dialect.separator is None and suffix(Path(name).name) == ".tsv"
    separator = "\t" if tabs or dialect.separator == "tab" else dialect.separator or ","
    quote = dialect.quote or ("none" if tabs else '"')
    return CsvForm(separator, None if quote == "none" else quote)


def separation_fault(names: list[str], form: CsvForm, *, fixed: bool = False) -> str | None:
    """What is wrong with a header that was read by the wrong separator, as the rest of a sentence
    that begins with the file's name; None where nothing is. A form is `fixed` where a model reads
    it, and no recipe is at hand to declare another.

    >>> separation_fault(["a;b"], csv_form("rows.csv"))
    'is separated by semicolons; declare `dialect: {separator: ";"}`, or save it with commas'
    """
    if len(names) != 1:
        return None
    other = next((c for c in "\t;|," if c in names[0] and c != form.separator), None)
    if other is None or (other == "," and form.separator == "\t"):
        return None
    word = "tab" if other == "\t" else f'"{other}"'
    declared = f"; declare `dialect: {{separator: {word}}}`, or"
    if fixed:
        declared = f", and the model reads {form.held()}:"
    return f"is separated by {_SEPARATORS[other]}{declared} save it with {form.held()}"


def csv_header(lines: Iterator[list[str]], form: CsvForm, *, fixed: bool = False) -> list[str]:
    """The names of the columns, from the first of the lines. Raises `FileFault`."""
    names = next(lines, None)
    if names is None:
        raise FileFault("is empty, so it has no header; its first line names columns")
    if fault := separation_fault(names, form, fixed=fixed):
        raise FileFault(fault)
    return names


def csv_lines(opened: TextIO, form: CsvForm) -> Iterator[list[str]]:
    """The values of each line that is not blank, without the spaces around them."""
    if form.quote is None:
        quoting, quote = csv.QUOTE_NONE, None
    else:
        quoting, quote = csv.QUOTE_MINIMAL, form.quote
    reader = csv.reader(
        opened, delimiter=form.separator, quoting=quoting, quotechar=quote, strict=True
    )
    for line in reader:
        if line:
            yield [value.strip() for value in line]


def _jsonl(opened: TextIO) -> _Columns:
    """One object a line; a key that a row lacks is None there."""
    columns: dict[str, list[object]] = {}
    for count, row in enumerate(json_rows(opened), start=1):
        for name, value in row.items():
            columns.setdefault(name, [None] * (count - 1)).append(value)
        for column in columns.values():
            if len(column) < count:
                column.append(None)
    return list(columns), [equal_once(column) for column in columns.values()]


def open_text(file: Path, encoding: str = "utf-8", start: int = 0) -> TextIO:
    """A file of text, plain or .gz, from this byte on, with the ends of its lines as they are."""
    known = encoding
    if encoding.startswith("utf-8"):
        known = "utf-8" if start else "utf-8-sig"  # which takes a mark at the start, or none
    opened = open_bytes(file)
    opened.seek(start)
    return io.TextIOWrapper(opened, encoding=known, newline="")


def open_bytes(file: Path) -> BinaryIO:
    """The bytes of a file, plain or .gz."""
    return cast(BinaryIO, gzip.open(file, "rb")) if file.suffix == ".gz" else file.open("rb")


def _parquet(file: Path) -> _Columns:
    from nacre.data.reading.arrow_values import parquet_columns  # which takes Arrow

    try:
        return parquet_columns(file)
    except Exception as error:  # damaged bytes make pyarrow raise more than its own errors
        reason = " ".join(str(error).split())
        raise DataError(f"{file} cannot be read as Parquet ({reason}); write it anew") from error


def text(value: object) -> str:
    """A value as the recipe would write it: 1.0 as `1`, True as `true`, nothing as ``."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value).strip()


def unit_name(value: object) -> str:
    """A value that names a unit or a party, as Unicode NFC: one name in two forms is one unit."""
    return unicodedata.normalize("NFC", text(value))


def as_number(value: object) -> float | None:
    """A value as a float, possibly infinite; None where it is no number."""
    try:
        found = float(value if isinstance(value, int | float) else str(value))
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(found) else found


def is_missing(value: object) -> bool:
    """Whether this stands for no value."""
    return text(value).lower() in MISSING

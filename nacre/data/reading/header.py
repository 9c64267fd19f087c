"""The names of a table's columns, and nothing that follows them in the file.

A CSV is read byte by byte up to the end of its header; of Parquet the names and types are taken,
and nothing of what its footer says of values. So tables of other rows have the same header.
"""

# pyarrow carries no types.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import csv
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from nacre.core.errors import DataError
from nacre.data.columns.dialect import PLAIN, Dialect
from nacre.data.readers import CsvForm, as_number, csv_form, form_problem, separation_fault, suffix

LONGEST_HEADER = 1 << 20
"""Bytes that a header may have."""

ColumnForm = Literal["unknown", "number", "truth", "text", "other"]
"""What a file says of the type of a column; a CSV says nothing."""


@dataclass(frozen=True)
class TableHeader:
    """The columns of a table, in their order."""

    file: Path
    forms: dict[str, ColumnForm]
    dialect: Dialect = PLAIN
    """What the header alone says of how the file writes values: separator and encoding."""

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self.forms)


class _HeaderFault(Exception):
    """What is wrong with a header, as the rest of a sentence that begins with the file's name."""


def table_header(file: Path) -> TableHeader:
    """The header of a CSV, TSV or Parquet file. Raises `DataError`."""
    if problem := form_problem(str(file)):
        raise DataError(problem)
    if suffix(str(file)) in (".jsonl", ".ndjson"):
        raise DataError(
            f"{file} has no header: its names stand in its rows, which are not read here; declare "
            "its columns by hand in the recipe of `nacre init table`, or save it as .csv"
        )
    try:
        if file.is_dir():
            raise _HeaderFault("is a folder; name the table itself, as CSV or Parquet")
        if suffix(str(file)) in (".parquet", ".pq"):
            return TableHeader(file, _forms(_parquet_columns(file)))
        names, dialect = _csv_names(file)
        if fault := row_in_place_of_names(names):  # a recipe would publish it
            raise _HeaderFault(fault)
        return TableHeader(file, _forms([(name, "unknown") for name in names]), dialect)
    except _HeaderFault as fault:
        raise DataError(f"{file} {fault}") from fault
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(
            f"{file} cannot be read ({reason}); name the table itself, as CSV or Parquet"
        ) from error
    except ValueError as error:  # a NUL in the name
        raise DataError(f"{str(file)!r} is no name of a file ({error}); correct it") from error


def named_columns(file: Path, dialect: Dialect) -> list[str] | None:
    """The names of a table's columns, as reading its rows in this dialect finds them.

    None where they do not stand in a header (JSON lines, plain text), or where the file is absent
    or has none that can be read: reading the rows says why. Raises `DataError` where the
    header is separated by another sign than declared.
    """
    kind = suffix(str(file))
    if kind in (".jsonl", ".ndjson", ".txt") or not file.is_file():
        return None
    try:
        if kind in (".parquet", ".pq"):
            import pyarrow.parquet  # half a second to import, and only needed here

            return [str(name) for name in pyarrow.parquet.read_schema(file).names]
        form = csv_form(file, dialect)
        with FileIO(file) as opened:
            names = _first_line(_text_of(opened, file, dialect.encoding), form)
    except Exception:  # also pyarrow's own, of which damaged bytes make several
        return None
    names = [name.strip() for name in names]
    if fault := separation_fault(names, form):
        raise DataError(f"{file} {fault}")
    return names or None


def _forms(columns: list[tuple[str, ColumnForm]]) -> dict[str, ColumnForm]:
    """The columns, once it is certain that each has a name of its own."""
    found: dict[str, ColumnForm] = {}
    for place, (name, form) in enumerate(columns, start=1):
        if not name:
            raise _HeaderFault(
                f"has no name for column {place} of its {len(columns)}, so nothing can be declared "
                "of it; name it in the header (pandas writes its index so: `index=False`)"
            )
        if name in found:
            raise _HeaderFault(
                f"has column {name!r} twice, so it is unclear which one is meant; rename one"
            )
        found[name] = form
    return found


def row_in_place_of_names(names: list[str]) -> str | None:
    """What is wrong with a first line that looks like a row, as the rest of a sentence that begins
    with the file's name and shows no value; None for names."""
    numbers = [float(name) for name in names if as_number(name) is not None]
    counted = len(numbers) > 2 and all(b - a == 1 for a, b in pairwise(numbers))
    if 2 * len(numbers) < len(names) or counted:
        return None
    return (
        f"begins with {len(numbers)} numbers in {len(names)} columns, which look like a row and "
        "not like names; put a line of names in front"
    )


def _csv_names(file: Path) -> tuple[list[str], Dialect]:
    """(the names, what they show of the dialect)"""
    csv.field_size_limit(sys.maxsize)
    with FileIO(file) as opened:
        text = _text_of(opened, file)
        try:
            names, separator = _separated(text, csv_form(file))
        except csv.Error as error:
            raise _HeaderFault(
                f"has a header that is no CSV ({error}); correct its quotes, or save it anew"
            ) from error
        except (zlib.error, EOFError) as error:
            raise _HeaderFault("is no whole .gz file; pack it anew") from error
    encoding = "cp1252" if text.western else "utf-8"
    return [name.strip() for name in names], Dialect(separator=separator, encoding=encoding)


Separator = Literal[",", ";", "|", "tab"]
_SEPARATORS: dict[str, Separator] = {"\t": "tab", ";": ";", "|": "|", ",": ","}


def _separated(text: _HeaderText, form: CsvForm) -> tuple[list[str], Separator | None]:
    """(the names, the separator where it is not the one that the file's name says)

    Other separators are tried on the lines that were read for the first one alone: a wrong one
    might take a row for a part of the header.
    """
    fault = None
    try:
        names = _first_line(text, form)
    except csv.Error as error:  # `"a";"b"`, where a comma is looked for
        names, fault = [], error
    if len(names) > 1:
        return names, None
    found: dict[str, list[str]] = {}
    for sign in _SEPARATORS:
        with suppress(csv.Error):
            found[sign] = _first_line(text.lines, CsvForm(sign, '"'))
    sign = max(found, key=lambda sign: len(found[sign]), default=form.separator)
    if found and len(found[sign]) > max(1, len(names)):
        return found[sign], _SEPARATORS[sign]
    if fault is not None:
        raise fault
    if not names:
        raise _HeaderFault("is empty, so it has no header; its first line names columns")
    return names, None


def _first_line(lines: Iterable[str], form: CsvForm) -> list[str]:
    if form.quote is None:
        reader = csv.reader(lines, delimiter=form.separator, quoting=csv.QUOTE_NONE, strict=True)
    else:
        reader = csv.reader(lines, delimiter=form.separator, quotechar=form.quote, strict=True)
    return next((line for line in reader if line), [])


def _text_of(opened: FileIO, file: Path, encoding: str | None = None) -> _HeaderText:
    signs = _unpacked(opened) if file.suffix == ".gz" else _plain(opened)
    return _HeaderText(signs, encoding)


class _HeaderText:
    """The lines of a header with their ends, each read and decoded when it is asked for: in the
    encoding that is declared, or else in UTF-8 or that of Western Windows."""

    def __init__(self, signs: Iterator[bytes], encoding: str | None = None) -> None:
        self._signs = signs
        self._encoding = encoding
        self.lines: list[str] = []
        """Those that were asked for."""
        self.western = False
        """Whether a line is no UTF-8, so that it was read in the encoding of Western Windows."""

    def __iter__(self) -> Iterator[str]:
        line = bytearray()
        for count, sign in enumerate(self._signs, start=1):
            line += sign
            if count > LONGEST_HEADER:
                raise _HeaderFault(
                    f"has no header that ends within {LONGEST_HEADER >> 20} MiB; close its quotes, "
                    "or put a line of names in front"
                )
            if sign in (b"\n", b"\r"):
                yield self._decoded(line)
                line = bytearray()
        if line:
            yield self._decoded(line)

    def _decoded(self, line: bytearray) -> str:
        known = self._encoding or "utf-8"
        if known.startswith("utf-8"):
            known = "utf-8" if self.lines else "utf-8-sig"
        try:
            text = line.decode(known)
        except UnicodeDecodeError as error:
            if self._encoding is not None:
                raise
            text = self._in_western(line, error)
        # A PDF begins with a line of plain text, whatever its name.
        if "\0" in text or (self._encoding is None and text.startswith("%PDF-")):
            raise _HeaderFault("is binary and no text; save it as CSV or as Parquet")
        self.lines.append(text)
        return text

    def _in_western(self, line: bytearray, error: UnicodeDecodeError) -> str:
        try:
            if b"\0" in line or line.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16
                raise error
            self.western = True
            return line.decode("cp1252")
        except UnicodeDecodeError as fault:
            raise _HeaderFault(
                "is not UTF-8 text; save it as CSV in UTF-8, or as Parquet"
            ) from fault


def _plain(file: FileIO) -> Iterator[bytes]:
    while sign := file.read(1):
        yield sign


def _unpacked(file: FileIO) -> Iterator[bytes]:
    """A .gz file, one byte after the other; what lies behind the last one is not unpacked."""
    unpacker = zlib.decompressobj(wbits=31)
    while not unpacker.eof:
        packed = unpacker.unconsumed_tail or file.read(64) or b""
        sign = unpacker.decompress(packed, 1)
        if sign:
            yield sign
        elif not packed:
            raise EOFError


def _parquet_columns(file: Path) -> list[tuple[str, ColumnForm]]:
    import pyarrow.parquet  # half a second to import, and only needed here

    with FileIO(file):
        pass  # raises what the system says
    try:
        schema = pyarrow.parquet.read_schema(file)
        return [(str(column.name).strip(), _form(column.type)) for column in schema]
    except Exception as error:  # damaged bytes make pyarrow raise more than its own errors
        reason = " ".join(str(error).split())
        raise _HeaderFault(f"cannot be read as Parquet ({reason}); write it anew") from error


def _form(kind: Any) -> ColumnForm:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        return _form(kind.value_type)
    if types.is_boolean(kind):
        return "truth"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    return "text" if types.is_string(kind) or types.is_large_string(kind) else "other"

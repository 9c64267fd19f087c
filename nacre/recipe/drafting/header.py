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
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from nacre.core.errors import DataError
from nacre.data.readers import as_number, form_problem, separation_fault, suffix

LONGEST_HEADER = 1 << 20
"""Bytes that a header may have."""

ColumnForm = Literal["unknown", "number", "truth", "text", "other"]
"""What a file says of the type of a column; a CSV says nothing."""


@dataclass(frozen=True)
class TableHeader:
    """The columns of a table, in their order."""

    file: Path
    forms: dict[str, ColumnForm]

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
        names = _csv_names(file)
        _refuse_rows(names)
        return TableHeader(file, _forms([(name, "unknown") for name in names]))
    except _HeaderFault as fault:
        raise DataError(f"{file} {fault}") from fault
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(
            f"{file} cannot be read ({reason}); name the table itself, as CSV or Parquet"
        ) from error
    except ValueError as error:  # a NUL in the name
        raise DataError(f"{str(file)!r} is no name of a file ({error}); correct it") from error


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


def _refuse_rows(names: list[str]) -> None:
    """Refuses a first line that looks like a row: a recipe would publish it. No value is shown."""
    numbers = [float(name) for name in names if as_number(name) is not None]
    counted = len(numbers) > 2 and all(b - a == 1 for a, b in pairwise(numbers))
    if 2 * len(numbers) >= len(names) and not counted:
        raise _HeaderFault(
            f"begins with {len(numbers)} numbers in {len(names)} columns, which look like a row "
            "and not like names; put a line of names in front"
        )


def _csv_names(file: Path) -> list[str]:
    csv.field_size_limit(sys.maxsize)
    by_tabs = suffix(str(file)) == ".tsv"
    with FileIO(file) as opened:
        lines = _lines(_unpacked(opened) if file.suffix == ".gz" else _plain(opened))
        plain = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
        reader = plain if by_tabs else csv.reader(lines, strict=True)
        try:
            names = next((line for line in reader if line), None)
        except csv.Error as error:
            raise _HeaderFault(
                f"has a header that is no CSV ({error}); correct its quotes, or save it anew"
            ) from error
        except (zlib.error, EOFError) as error:
            raise _HeaderFault("is no whole .gz file; pack it anew") from error
    if names is None:
        raise _HeaderFault("is empty, so it has no header; its first line names columns")
    if fault := separation_fault(names, by_tabs):
        raise _HeaderFault(fault)
    return [name.strip() for name in names]


def _lines(signs: Iterator[bytes]) -> Iterator[str]:
    """Lines with their ends, each decoded when it is asked for."""
    line, first = bytearray(), True
    for count, sign in enumerate(signs, start=1):
        line += sign
        if count > LONGEST_HEADER:
            raise _HeaderFault(
                f"has no header that ends within {LONGEST_HEADER >> 20} MiB; close its quotes, or "
                "put a line of names in front"
            )
        if sign in (b"\n", b"\r"):
            yield _decoded(line, first)
            line, first = bytearray(), False
    if line:
        yield _decoded(line, first)


def _decoded(line: bytearray, first: bool) -> str:
    try:
        text = line.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise _HeaderFault("is not UTF-8 text; save it as CSV in UTF-8, or as Parquet") from error
    if "\0" in text:
        raise _HeaderFault("is binary and no text; save it as CSV or as Parquet")
    return text


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

"""CSV and Parquet files as columns of plain values, with nothing guessed."""

# pyarrow carries no types.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from nacre.core.errors import DataError
from nacre.data.files import located, unreadable

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
"""What stands for no value in a CSV file, in any case; declared categories come first."""


@dataclass(frozen=True)
class RawTable:
    """The columns of a file as they stand there: text from CSV, any value from Parquet."""

    file: Path
    columns: dict[str, list[object]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def column(self, name: str) -> list[object]:
        """The values of a column. Raises `DataError` where the file has none of this name."""
        if name not in self.columns:
            has = ", ".join(self.columns)
            raise DataError(
                f"{self.file} has no column {name!r} (it has {has}), so the recipe cannot be "
                "followed; correct the name"
            )
        return self.columns[name]


def read_table(folder: Path, path: str) -> RawTable:
    """The file at `path`: Parquet by its suffix, else CSV, plain or .gz. Raises `DataError`."""
    file = located(folder, path)
    names, columns = _parquet(file) if file.suffix in (".parquet", ".pq") else _csv(file)
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f"{file} has column {name!r} twice, so it is unclear which one is meant; rename one"
            )
    if not columns or not columns[0]:
        raise DataError(f"{file} holds no rows, so there is nothing to learn from; add rows to it")
    return RawTable(file, dict(zip(names, columns, strict=True)))


def _csv(file: Path) -> tuple[list[str], list[list[object]]]:
    try:
        lines = _lines(file)
        names = next(lines, None)
        if names is None:
            raise DataError(f"{file} is empty, so it has no header; its first line names columns")
        columns: list[list[object]] = [[] for _ in names]
        for number, line in enumerate(lines, start=1):
            if len(line) != len(names):
                raise DataError(
                    f"{file} row {number} has {len(line)} values and the header names "
                    f"{len(names)} columns; correct the row or quote values that hold commas"
                )
            for column, value in zip(columns, line, strict=True):
                column.append(value)
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text; save it as CSV in UTF-8") from error
    except (csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file} cannot be read as CSV ({error}); write it anew") from error
    except OSError as error:
        raise unreadable(file, error) from error
    return names, columns


def _lines(file: Path) -> Iterator[list[str]]:
    """The values of each line that is not blank, without the spaces around them."""
    with _opened(file) as lines:
        for line in csv.reader(lines, strict=True):
            if line:
                yield [value.strip() for value in line]


def _opened(file: Path) -> TextIO:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", newline="")
    return file.open(encoding="utf-8-sig", newline="")


def _parquet(file: Path) -> tuple[list[str], list[list[object]]]:
    import pyarrow.parquet  # half a second to import, and only needed here

    try:
        # One file: with a data set reader, folders named `a=b` would turn into columns.
        table = pyarrow.parquet.ParquetFile(file).read()
        return list(table.column_names), [column.to_pylist() for column in table.columns]
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


def number(value: object) -> float | None:
    """A value as a float, possibly infinite; None where it is no number."""
    try:
        found = float(value if isinstance(value, int | float) else str(value))
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(found) else found


def missing(value: object) -> bool:
    """Whether this stands for no value."""
    return text(value).lower() in MISSING

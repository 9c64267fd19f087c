"""Files that rows come from: found, and named in refusals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nacre.core.errors import DataError


def located(folder: Path, path: str) -> Path:
    """The file at `path`, relative to `folder`. Raises `DataError` unless it can be read."""
    file = folder / path
    try:
        if file.is_dir():
            raise DataError(
                f"{file} is a folder where a file of rows is needed; name the file itself"
            )
        with file.open("rb") as opened:
            opened.read(1)
    except OSError as error:
        raise unreadable(file, error) from error
    return file


def unreadable(file: Path, error: OSError) -> DataError:
    """The refusal for a file that the system will not give."""
    reason = (error.strerror or str(error)).lower()
    return DataError(
        f"{file} cannot be read ({reason}), so there are no rows; correct the path (in a recipe "
        "it is relative to the recipe) or its rights"
    )


def rows_named(rows: Sequence[int]) -> str:
    """Rows counted and the first one named; the first row of a file is row 1.

    >>> rows_named([0]), rows_named([2, 8])
    ('row 1', '2 rows (first: row 3)')
    """
    first = f"row {int(rows[0]) + 1}"
    return first if len(rows) == 1 else f"{len(rows)} rows (first: {first})"


class FileFault(Exception):
    """What is wrong with a file, as the rest of a sentence that begins with its name."""

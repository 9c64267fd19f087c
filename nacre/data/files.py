"""Files that rows come from: found, opened, and fingerprinted under a key."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from pathlib import Path

from nacre.core.errors import DataError

_CHUNK = 1 << 20  # bytes


def located(folder: Path, path: str) -> Path:
    """The file at `path`, relative to `folder`. Raises `DataError` unless it can be read."""
    file = folder / path
    if file.is_dir():
        raise DataError(f"{file} is a folder where a file of rows is needed; name the file itself")
    try:
        with file.open("rb") as opened:
            opened.read(1)
    except OSError as error:
        raise unreadable(file, error) from error
    return file


def unreadable(file: Path, error: OSError) -> DataError:
    """The refusal for a file that the system will not give."""
    reason = (error.strerror or str(error)).lower()
    return DataError(
        f"{file} cannot be read ({reason}), so there are no rows; correct the path (it is "
        "relative to the recipe) or its rights"
    )


def keyed_digest(files: Iterable[Path], key: bytes) -> str:
    """Hex HMAC-SHA-256 over the files' lengths and bytes, in order."""
    state = hmac.new(key, b"nacre data", hashlib.sha256)
    for file in files:
        try:
            state.update(file.stat().st_size.to_bytes(8, "big"))
            with file.open("rb") as opened:
                while chunk := opened.read(_CHUNK):
                    state.update(chunk)
        except OSError as error:
            raise unreadable(file, error) from error
    return state.hexdigest()


def rows_named(rows: Sequence[int]) -> str:
    """Rows counted and the first one named; the first row of a file is row 1.

    >>> rows_named([0]), rows_named([2, 8])
    ('row 1', '2 rows (first: row 3)')
    """
    first = f"row {int(rows[0]) + 1}"
    return first if len(rows) == 1 else f"{len(rows)} rows (first: {first})"

"""JSON of files that anyone may have put there: no links, no pipes, nothing without an end.

This folder imports no torch: a listing answers at once, and runs no code of a run.
"""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import Any, cast

from nacre.core.strict import parsed

LARGEST = 1 << 26
"""Bytes of a file that is read as a whole: pictures of an audit may take some of them."""


class UnfitFile(Exception):
    """Why a file says nothing, as the rest of a sentence that begins with its name."""


class AbsentFile(UnfitFile):
    """There is no such file."""


def plain_file(path: Path, *, first: int = LARGEST, last: int | None = None) -> bytes:
    """The bytes of a regular file that is no link: the first ones, or the last, where a number of
    them is given. Raises `UnfitFile`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise AbsentFile("is not there") from error
    except OSError as error:
        raise UnfitFile(f"cannot be read ({_reason(path, error)})") from error
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise UnfitFile("is no file")
        if last is not None:
            file.seek(max(0, found.st_size - last))
        elif first == LARGEST < found.st_size:
            raise UnfitFile(f"is larger than {LARGEST >> 20} MiB")
        try:
            return file.read(first)
        except OSError as error:
            raise UnfitFile(f"cannot be read ({_reason(path, error)})") from error


def _reason(path: Path, error: OSError) -> str:
    return "it is a link" if path.is_symlink() else (error.strerror or str(error)).lower()


def object_in(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises `UnfitFile`."""
    try:
        value: object = parsed(plain_file(path))
    except ValueError as error:
        known = str(error).endswith(("twice", "finite", "deep"))
        raise UnfitFile(f"is damaged ({error})" if known else "is damaged (not JSON)") from error
    if not isinstance(value, dict):
        raise UnfitFile("is damaged (no JSON object)")
    return cast(dict[str, Any], value)


def whole_number(value: object, least: int = 0) -> int:
    """A whole number of at least `least`. Raises `ValueError`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 1 << 53:
        raise ValueError("a whole number is missing")
    return value


def finite_number(value: object) -> float:
    """A finite number. Raises `ValueError`."""
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 1e308:
        raise ValueError("a number is missing")
    if not math.isfinite(value):
        raise ValueError("a number is not finite")
    return float(value)

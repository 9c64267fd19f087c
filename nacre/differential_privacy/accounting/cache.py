"""Prices and coefficients that were computed once, on disk. Losing them costs seconds
and nothing else.

An entry is keyed by everything that the price depends on, the accountant's version included, and
holds its key, so that a collision or a renamed file is found. What cannot be read or does not fit
is computed again and written over; where nothing can be written, nothing is remembered.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nacre.core.errors import FileDamaged, NacreError
from nacre.core.files import read_json, write_json

EventKey = Mapping[str, str | float | int]


def folder() -> Path:
    """`$NACRE_CACHE`, or `nacre` in the user's cache folder (XDG base directory)."""
    if own := os.environ.get("NACRE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nacre"


def remembered(key: EventKey, compute: Callable[[], float]) -> float:
    """The number that `compute` gives for `key`, from disk where it is known."""
    path, text = _place(key)
    match _read(path, text):
        case float(value) if 0 <= value < math.inf:
            return value
        case _:
            value = compute()
    if math.isfinite(value):
        _write(path, text, float(value))
    return value


def remembered_numbers(
    key: EventKey,
    count: int,
    compute: Callable[[], Sequence[float]],  # -> `count` numbers
) -> list[float]:
    """The numbers that `compute` gives for `key`, from disk where they are known, bit for bit."""
    path, text = _place(key)
    match _read(path, text):
        case [*values] if len(values) == count and all(_finite(value) for value in values):
            return [float(value) for value in values]
        case _:
            found = [float(value) for value in compute()]
    if all(math.isfinite(value) for value in found):
        _write(path, text, found)
    return found


def _finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _place(key: EventKey) -> tuple[Path, str]:
    """Where an entry lies, and the key that it has to hold."""
    text = json.dumps(key, sort_keys=True)
    return folder() / f"{hashlib.sha256(text.encode()).hexdigest()}.json", text


def _read(path: Path, key: str) -> Any:
    """What is under `key`, or None where the entry is absent, damaged or another one's."""
    try:
        entry = read_json(path)
    except FileDamaged:
        return None
    match entry:
        case {"key": found, "value": value} if found == key:
            return value
        case _:
            return None


def _write(path: Path, key: str, value: float | list[float]) -> None:
    # A full or read-only disk must not stop a run whose price is already known.
    with contextlib.suppress(NacreError, OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"key": key, "value": value})

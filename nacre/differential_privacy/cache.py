"""Prices that were computed once, on disk. Losing them costs seconds and nothing else.

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
from collections.abc import Callable, Mapping
from pathlib import Path

from nacre.core.errors import FileDamaged, NacreError
from nacre.core.files import read_json, write_json

Key = Mapping[str, str | float | int]


def folder() -> Path:
    """`$NACRE_CACHE`, or `nacre` in the user's cache folder (XDG base directory)."""
    if own := os.environ.get("NACRE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nacre"


def remembered(key: Key, compute: Callable[[], float]) -> float:
    """The number that `compute` gives for `key`, from disk where it is known."""
    text = json.dumps(key, sort_keys=True)
    path = folder() / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    known = _read(path, text)
    if known is not None:
        return known
    value = compute()
    if math.isfinite(value):
        _write(path, text, value)
    return value


def _read(path: Path, key: str) -> float | None:
    """The number under `key`, or None where the entry is absent, damaged or another one's."""
    try:
        entry = read_json(path)
    except FileDamaged:
        return None
    match entry:
        case {"key": found, "value": float(value)} if found == key and 0 <= value < math.inf:
            return value
        case _:
            return None


def _write(path: Path, key: str, value: float) -> None:
    # A full or read-only disk must not stop a run whose price is already known.
    with contextlib.suppress(NacreError, OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"key": key, "value": float(value)})

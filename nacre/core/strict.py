"""JSON in which each key stands once (of two values of one key a reader would take either), and
each number is finite (a NaN passes whatever compares it with a range); and its one written form."""

from __future__ import annotations

import json
import math
from typing import Any


def parsed(text: str | bytes) -> Any:
    """What `text` says as JSON. Raises `ValueError` where it is none, names a key twice, holds a
    number that is not finite, or is nested deeper than Python reads.

    >>> parsed('{"epsilon": 1}')
    {'epsilon': 1}
    >>> parsed('{"epsilon": 1, "epsilon": 100}')
    Traceback (most recent call last):
    ValueError: key 'epsilon' stands there twice
    """
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=_not_finite, parse_float=_finite
        )
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


# Made once: `json.dumps` would make one for every entry of a ledger.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical(value: Any) -> str:
    """The one JSON text of `value`: sorted keys, no spaces, ASCII; floats survive exactly.

    Raises `ValueError` for NaN and infinities, `TypeError` for what JSON has no word for.
    """
    return _ENCODER.encode(value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"key {name!r} stands there twice")
        found[name] = value
    return found


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _not_finite(text)  # 1e999


def _not_finite(name: str) -> float:
    raise ValueError(f"the number {name} is not finite")

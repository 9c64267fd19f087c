"""JSON in which each key stands once: of two values of one key a reader would take either."""

from __future__ import annotations

import json
from typing import Any


def parsed(text: str | bytes) -> Any:
    """What `text` says as JSON. Raises `ValueError` where it is none, or names a key twice.

    >>> parsed('{"epsilon": 1}')
    {'epsilon': 1}
    >>> parsed('{"epsilon": 1, "epsilon": 100}')
    Traceback (most recent call last):
    ValueError: key 'epsilon' stands there twice
    """
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"key {name!r} stands there twice")
        found[name] = value
    return found

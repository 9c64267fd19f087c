"""JSON Lines: one object a line, no key twice, and nothing so deep that a reader would fall."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TextIO

from nacre.data.files import FileFault

_DEEPEST = 32  # lists or objects in each other: a reader of the value may recurse


def json_rows(opened: TextIO) -> Iterator[dict[str, object]]:
    """The object of each line that is not blank. Raises `FileFault`, with
    the number of the line."""
    for number, line in enumerate(opened, start=1):
        if not line.strip():
            continue
        try:
            row: object = json.loads(line, object_pairs_hook=_object)
        except FileFault as fault:
            raise FileFault(f"line {number} {fault}") from fault
        except (ValueError, RecursionError) as error:
            raise FileFault(
                f"line {number} is not JSON ({error}); write one object a line"
            ) from error
        if not isinstance(row, dict):
            raise FileFault(f"line {number} is no JSON object; write one object a line")
        found: dict[str, object] = row
        if any(_nested(value, _DEEPEST) for value in found.values()):
            raise FileFault(
                f"line {number} holds lists in lists, more than {_DEEPEST} deep; write it flatter"
            )
        yield found


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The object, once it is certain that no key stands in it twice: the last one would win."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise FileFault("names a key twice, so it is unclear which value is meant; keep one")
    return found


def _nested(value: object, left: int) -> bool:
    """Whether values stand in each other more than `left` deep."""
    if not isinstance(value, list | dict):
        return False
    parts = value.values() if isinstance(value, dict) else value
    return left == 0 or any(_nested(part, left - 1) for part in parts)

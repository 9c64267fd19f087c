"""Frames between a run and its workers: a header in JSON and bytes, through pipes of their own.

Nothing of it is executed on the other side, and no other program is connected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import IO, Any

_LENGTH = 8  # bytes


def send(into: IO[bytes], header: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """Writes a frame. Raises `OSError` where nobody reads any more."""
    text = json.dumps({**header, "blobs": [len(blob) for blob in blobs]}).encode()
    for data in (len(text).to_bytes(_LENGTH, "big") + text, *blobs):
        left = memoryview(data)
        while left:  # a pipe may take a part
            left = left[into.write(left) :]
    into.flush()


def receive(source: IO[bytes]) -> tuple[dict[str, Any], list[bytes]] | None:
    """The next frame; None where the other side has closed, in the middle of one too."""
    try:
        header = json.loads(_exactly(source, int.from_bytes(_exactly(source, _LENGTH), "big")))
        sizes: list[int] = header.pop("blobs")
        return header, [_exactly(source, size) for size in sizes]
    except EOFError:
        return None


def _exactly(source: IO[bytes], count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        part = source.read(count)  # a pipe may give less
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)

"""Small pictures as PNG inside the page: no file beside it, no library."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from typing import Any, cast


def pixel_list(pixels: Sequence[Any]) -> list[float]:
    """Nested or flat pixels as one list. Raises `ValueError` for what is no number.

    >>> pixel_list([[0, 0.5], [1, 1]])
    [0.0, 0.5, 1.0, 1.0]
    """
    found: list[float] = []
    for entry in pixels:
        if isinstance(entry, list):
            found += pixel_list(cast(list[Any], entry))
        elif isinstance(entry, int | float):
            found.append(float(entry))
        else:
            raise ValueError(f"a pixel should be a number, not {entry!r}")
    return found


def difference(clean: Sequence[Any], attacked: Sequence[Any]) -> list[float]:
    """What moved: middle grey where nothing did, white and black for the largest move."""
    moves = [b - a for a, b in zip(pixel_list(clean), pixel_list(attacked), strict=True)]
    largest = max((abs(move) for move in moves), default=0.0) or 1.0
    return [0.5 + 0.5 * move / largest for move in moves]


def png(shape: Sequence[int], pixels: Sequence[Any]) -> str:
    """A `data:` address of the picture: three channels in colour, else the first one in grey.

    `pixels` run from 0 (black) to 1 and lie channel by channel, row by row.
    """
    height, width = shape[-2:]
    values = pixel_list(pixels)
    area = height * width
    colours = 3 if len(shape) == 3 and shape[0] == 3 else 1
    bright = bytes(round(255 * min(1.0, max(0.0, value))) for value in values[: colours * area])
    # PNG wants the channels of a pixel side by side, and a filter byte before each row.
    mixed = bytes(
        bright[channel * area + place] for place in range(area) for channel in range(colours)
    )
    step = width * colours
    rows = b"".join(b"\0" + mixed[start : start + step] for start in range(0, len(mixed), step))
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if colours == 3 else 0, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows, 9)) + _chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

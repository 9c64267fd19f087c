"""PNG bytes say what the pixels said."""

from __future__ import annotations

import base64
import struct
import zlib

import pytest

from nacre.report.sections.pictures import difference, pixel_list, png


def decoded(address: str) -> tuple[tuple[int, ...], bytes]:
    """(header, rows) of a PNG of one IDAT; every checksum is verified."""
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    found: dict[bytes, bytes] = {}
    place = 8
    while place < len(data):
        (size,) = struct.unpack_from(">I", data, place)
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        assert struct.unpack_from(">I", data, place + 8 + size)[0] == zlib.crc32(kind + body)
        found[kind] = body
        place += 12 + size
    assert list(found) == [b"IHDR", b"IDAT", b"IEND"]
    return struct.unpack(">IIBBBBB", found[b"IHDR"]), zlib.decompress(found[b"IDAT"])


@pytest.mark.parametrize("shape", [[2, 3], [1, 2, 3], [2, 2, 3]])
def test_grey(shape: list[int]) -> None:
    pixels = [0, 1, 0.5, -1, 2, 0.2] * (2 if shape[0] == 2 and len(shape) == 3 else 1)
    header, rows = decoded(png(shape, pixels))
    assert header == (3, 2, 8, 0, 0, 0, 0)
    assert rows == bytes([0, 0, 255, 128, 0, 0, 255, 51])


def test_colours() -> None:
    header, rows = decoded(png([3, 1, 2], [[[1, 0]], [[0, 1]], [[0, 0]]]))
    assert header == (2, 1, 8, 2, 0, 0, 0)
    assert rows == bytes([0, 255, 0, 0, 0, 255, 0])


def test_difference() -> None:
    assert difference([[0, 1]], [0.5, 0.75]) == [1.0, 0.25]
    assert difference([1, 1], [1, 1]) == [0.5, 0.5]
    assert difference([], []) == []


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="'x'"):
        pixel_list([[0, "x"]])

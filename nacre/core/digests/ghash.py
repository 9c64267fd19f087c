"""The tag of AES-256-GCM over data that is only authenticated: GHASH in a secret point.

OpenSSL makes it where there is no compiled twin, or a processor without the instructions for it.
The twin (`_ghash.c`) gives the same bits, as a test demands, at twice the speed where tensors are
larger than a cache, and may be looked at before it ends. It multiplies and adds in GF(2**128); the
key schedule and what is encrypted are OpenSSL's in both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

try:
    from nacre.core.digests import _ghash as _made
except ImportError:  # not built when Nacre was installed
    _made = None

compiled: Any = _made
COMPILED = bool(compiled is not None and compiled.supported())
"""Whether the twin is here, on a processor that it runs on."""

_NONCE = bytes(12)
LIMIT = 1 << 30  # bytes a call of OpenSSL's, which takes fewer than 2**31


class Tag:
    """One tag of data that comes in pieces; how it is cut does not matter."""

    def __init__(self, key: bytes) -> None:
        if COMPILED:
            self._state, self._mask = _begun(key)
        else:
            self._cipher = Cipher(algorithms.AES256(key), modes.GCM(_NONCE)).encryptor()

    def update(self, data: Any) -> None:
        """Takes in the bytes of a contiguous buffer."""
        if COMPILED:
            compiled.update(self._state, data)
            return
        view = memoryview(data)
        for start in range(0, len(view), LIMIT):
            self._cipher.authenticate_additional_data(view[start : start + LIMIT])

    def copy(self) -> Tag:
        """The same, of which each goes on by itself. Only where `COMPILED`: OpenSSL makes none."""
        other = Tag.__new__(Tag)
        other._state, other._mask = self._state.copy(), self._mask
        return other

    def finish(self) -> bytes:
        """The 16 bytes; where `COMPILED`, more may follow, otherwise nothing more is taken in."""
        if COMPILED:
            return _masked(compiled.finish(self._state), self._mask)
        self._cipher.finalize()
        return self._cipher.tag


def tagging(key: bytes) -> Callable[[memoryview], bytes]:
    """What gives the tag of each piece of data by itself: 16 bytes for each `LIMIT` of it."""
    if not COMPILED:
        cipher = AESGCM(key)
        return lambda data: b"".join(cipher.encrypt(_NONCE, b"", part) for part in _cut(data))
    begun, mask = _begun(key)

    def tag(data: memoryview) -> bytes:
        tags: list[bytes] = []
        for part in _cut(data):
            state = begun.copy()
            compiled.update(state, part)
            tags.append(_masked(compiled.finish(state), mask))
        return b"".join(tags)

    return tag


def _cut(data: memoryview) -> list[memoryview]:
    return [data[start : start + LIMIT] for start in range(0, len(data), LIMIT)]


def _begun(key: bytes) -> tuple[bytearray, int]:
    """An empty hash under the cipher's own point, and what hides it (SP 800-38D, 7.1)."""
    cipher = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
    blocks = cipher.update(bytes(16) + _NONCE + (1).to_bytes(4, "big"))
    return compiled.begin(blocks[:16]), int.from_bytes(blocks[16:], "big")


def _masked(found: bytes, mask: int) -> bytes:
    return (int.from_bytes(found, "big") ^ mask).to_bytes(16, "big")

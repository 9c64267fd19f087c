"""Masks: the keystream of AES-256 in counter mode, added in the ring of integers modulo 2**bits.

A vector of the ring lies in memory as uint16, uint32 or uint64, in the order of the machine,
little-endian on the wire: the low `bits` of an entry count. Addition modulo 2**16, 2**32 or 2**64
is also addition of those low bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

RingVector = NDArray[Any]
"""(d,) uint16, uint32 or uint64."""

_CHUNK = 1 << 16  # bytes at a time
_ZEROS = memoryview(bytes(_CHUNK))


def ring_type(bits: int) -> np.dtype[Any]:
    """How an entry of the ring of 2**bits lies in memory."""
    return np.dtype({16: "<u2", 64: "<u8"}.get(bits, "<u4"))


def add_masks(
    total: RingVector,  # changed in place
    masks: Iterable[
        tuple[bytes, int]
    ],  # seed of 32 bytes, for this mask alone; 1, or -1: take away
) -> None:
    """Adds the masks of some seeds, or takes them away.

    All masks of one part come before the next part, which is then still in the processor's cache.

    *Guarantee:* without a seed a vector with its mask cannot be distinguished from uniform entries
    of the ring, as far as AES-256 in counter mode cannot.
    """
    streams = [
        (
            Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor(),
            np.add if sign > 0 else np.subtract,
        )
        for seed, sign in masks
    ]
    room = bytearray(_CHUNK + 15)  # what `update_into` asks for beyond its input
    chunk = np.frombuffer(room, dtype=total.dtype, count=_CHUNK // total.itemsize)
    for start in range(0, len(total), len(chunk)):
        part = total[start : start + len(chunk)]
        zeros, mask = _ZEROS[: part.nbytes], chunk[: len(part)]
        for stream, combine in streams:
            stream.update_into(zeros, room)
            combine(part, mask, out=part)


def packed(vector: RingVector, bits: int) -> bytes:
    """The low `bits` of each entry, `bits / 8` bytes each."""
    if bits == 24:
        return vector.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return vector.tobytes()


def unpacked(data: bytes | memoryview, bits: int) -> RingVector:
    """What `packed` wrote, in memory of its own."""
    if bits == 24:
        whole = np.zeros((len(data) // 3, 4), dtype=np.uint8)
        whole[:, :3] = np.frombuffer(data, dtype=np.uint8).reshape(-1, 3)
        return whole.reshape(-1).view(ring_type(bits))
    return np.frombuffer(data, dtype=ring_type(bits)).copy()

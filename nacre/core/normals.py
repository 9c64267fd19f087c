"""Standard normals by the million: keyed and secure, at less than an ordinary generator's price.

*How.* Bits are AES-256 in counter mode, under a key derived from the source: the encryption of
zeros in GCM, whose tag is never made, as its implementation encrypts many blocks in one
instruction. Nobody without the key tells q blocks from uniform bits but with an advantage of
q**2 / 2**129 beyond breaking AES: 1e-24 for the 2.5e7 blocks of 1e8 draws.

Two words of 32 bits become two normals (Box and Muller 1958): a radius sqrt(-2 ln U) and an angle,
whose cosine and sine are taken from the tangent of its half.

*How exact.* U has 32 bits, and where they lie below 2**20 (one pair in 4096) 64 fresh bits follow
them; so a radius ends at sqrt(2 * 96 ln 2) = 11.5 deviations. Cutting there moves the law of 1e8
draws by 5e7 * 2**-96 = 6e-22 in total variation, which is also all that it adds to a delta. Inside,
a draw is the exact one rounded: U and the angle to 24 significant bits, the functions to a few
units in the last place of float32. Rounding is what attacks on floating-point noise use (Mironov
2012); it is a stated limit, as for every generator of floating-point normals.

*Repeatable.* Numbers depend on the key and on how many are asked for; not on threads, nor on how
they are cut into tensors. Another processor or NumPy may round the functions otherwise, so bits
are promised on one machine.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
import threading

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

from nacre.core.random import Source

_PAIRS = 1 << 18  # a block: large enough to hide the price of a call, small enough for a cache
_RARE = np.uint32(1 << 20)
_ZEROS = memoryview(bytes(1 << 16))
_SPARE = 64  # 64-bit words for rare pairs, at least: of h pairs one in 4096 needs one,
_SHARE = 256  # and h / 256 are at hand; more are needed with a chance below 1e-100

# 2**32 / U > 1 even where U was rounded up to 2**32, so the logarithm is never negative.
_WHOLE = np.float32(2**32 * (1 + 2.0**-23))
_HALF_TURN = np.float32(math.pi / 2**32)
_ONE = np.float32(1)
_SCALE = 2 * math.sqrt(2 * math.log(2))  # a block holds normals divided by this


class _Workspace(threading.local):
    """Memory that a thread's blocks are made in: fresh pages would cost as much as the numbers."""

    def __init__(self) -> None:
        size = 8 * _PAIRS + 8 * (_SPARE + _PAIRS // _SHARE)
        self.bits = memoryview(bytearray(size + 15))  # the cipher asks for room for one more block
        self.numbers = np.empty(2 * _PAIRS, np.float32)
        self.rare = np.empty(_PAIRS, np.bool_)


_workspace = _Workspace()


class Normals:
    """`count` standard normals of a source, in order.

    They are made block by block in memory that all `Normals` of a thread share, so one of them is
    used up before the next one starts.

    >>> normals = Normals(Source(bytes(32)), 5)
    >>> noised = normals.onto(torch.zeros(5), 2.0, torch.empty(5))
    >>> bool(noised.isfinite().all())
    True
    """

    def __init__(self, source: Source, count: int) -> None:
        self._algorithm = algorithms.AES256(source.secret("normals"))
        self._left = count
        self._number = 0
        self._block = torch.empty(0)
        self._used = 0

    def onto(self, value: Tensor, deviation: float, out: Tensor) -> Tensor:
        """`out` = `value` + `deviation` times the next normals; one pass, no copies.

        Both are flat float32 tensors of one length, on one device; `out` may be `value` itself.
        Raises `ValueError` where more are asked for than were announced.
        """
        count, start = value.numel(), 0
        while start < count:
            if self._used == len(self._block):
                self._fill()
            take = min(count - start, len(self._block) - self._used)
            some = self._block[self._used : self._used + take].to(value.device)
            here = slice(start, start + take)
            torch.add(value[here], some, alpha=_SCALE * deviation, out=out[here])
            start, self._used = start + take, self._used + take
        return out

    def _fill(self) -> None:
        """Makes the next block."""
        if self._left == 0:
            raise ValueError("more normals were asked for than were announced")
        pairs = min(_PAIRS, (self._left + 1) // 2)
        block = _pairs(*_words(self._algorithm, self._number, pairs))
        self._block, self._used = block[: min(self._left, 2 * pairs)], 0
        self._left -= len(self._block)
        self._number += 1


def _words(
    algorithm: algorithms.AES256, number: int, pairs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Uniform bits under nonce `number`: (pairs,) uint32, (pairs,) int32, and spare uint64."""
    memory = _workspace
    spare = _SPARE + pairs // _SHARE
    size = 8 * (pairs + spare)
    encryptor = Cipher(algorithm, modes.GCM(number.to_bytes(12, "big"))).encryptor()
    for start in range(0, size, len(_ZEROS)):
        encryptor.update_into(_ZEROS[: size - start], memory.bits[start:])
    words = np.frombuffer(memory.bits, dtype="<u4", count=2 * pairs)
    fresh = np.frombuffer(memory.bits, dtype="<u8", count=spare, offset=8 * pairs)
    return words[:pairs], words[pairs:].view("<i4"), fresh


def _pairs(words: np.ndarray, angles: np.ndarray, fresh: np.ndarray) -> Tensor:
    """(h,) uint32, (h,) int32 and spare uint64 bits -> 2 h normals divided by `_SCALE`, float32.

    The result is overwritten by the next call, the memory of `words` by this one.
    With L = log2(1 / U) the radius is sqrt(2 ln 2 L), and with t the tangent of half the angle the
    pair is radius * (2 / (1 + t²) - 1) and radius * 2 t / (1 + t²).
    """
    memory, pairs = _workspace, len(words)
    length, t = memory.numbers[:pairs], memory.numbers[pairs : 2 * pairs]
    rare = memory.rare[:pairs]
    np.copyto(length, words, casting="unsafe")
    np.copyto(t, angles, casting="unsafe")
    np.less(words, _RARE, out=rare)
    found = rare.nonzero()[0]
    length[found] = words[found] + (fresh[: len(found)] + 0.5) * 2.0**-64
    np.divide(_WHOLE, length, out=length)
    np.log2(length, out=length)
    np.sqrt(length, out=length)
    np.multiply(t, _HALF_TURN, out=t)
    np.tan(t, out=t)
    share = words.view(np.float32)  # the words are spent: their memory holds L / (1 + t²)
    np.multiply(t, t, out=share)
    np.add(share, _ONE, out=share)
    np.divide(length, share, out=share)
    np.multiply(share, t, out=t)
    first = torch.from_numpy(length)
    torch.sub(torch.from_numpy(share), first, alpha=0.5, out=first)
    return torch.from_numpy(memory.numbers[: 2 * pairs])

"""Standard normals by the million: keyed and secure, at less than an ordinary generator's price.

*How.* Bits are AES-256 in counter mode, under a key derived from the source. Two of the cipher's
modes give the same ones: CTR, and the encryption of zeros in GCM, whose tag is never made.
Processors of which GCM encrypts many blocks in one instruction are quicker by it, others by CTR
(by 1.7), so a process takes the one that was quicker on its first blocks. Nobody without the key
tells q blocks from uniform bits but with an advantage of q**2 / 2**129 beyond breaking AES: 1e-24
for the 2.5e7 blocks of 1e8 draws. Two words of 32 bits become two normals (Box and Muller 1958), a
radius sqrt(-2 ln U) and an angle.

*How exact.* The words are the first 32 bits of numbers that go on for ever: where more of them
matter, they are made from the pair's place (`refined.py`). A normal of this module lies within
`ERROR` of the one that all bits would give; that was computed for every word and for every angle
(`benchmarks/noise.py --exhaustive`). Pairs of which the first 32 bits say too little, 6 in
100,000, are computed in float64 from 96. So there is no largest draw below 11.5 deviations.

*Who uses it.* Noise that is independent from step to step is not added in floating point at all:
`rounded.py` rounds the noised sum to a grid as the exact one would be. The draws of this module as
they are serve correlated noise, which keeps them: there, attacks on the rounding of floating-point
noise (Mironov 2012) are a stated limit.

*Repeatable.* Numbers depend on the key and on how many are asked for; not on threads, nor on how
they are cut into tensors, nor on the processor: each operation is one that IEEE 754 fixes
(`plain.py`). Those of the rare pairs alone may differ in the last place between libraries.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray
from torch import Tensor

from nacre.core.normals import plain, refined
from nacre.core.random import Source

try:
    from nacre.core.normals import _normals as _made_by
except ImportError:  # not built when Nacre was installed; `nacre plan` says so
    _made_by = plain

COMPILED = _made_by is not plain
"""Whether the compiled twin of `plain.py` is here; it is ten times as fast and gives equal bits."""

normals, rounded = _made_by.normals, _made_by.rounded

ERROR = 40 * 2.0**-24
"""How far a normal in float32 may be from the exact one. All words and all angles were tried
(`benchmarks/noise.py --exhaustive`), and the errors of radius, angle and product add up to 32.6."""

PAIRS = 1 << 16
"""A block: large enough to hide the price of a call, small enough for a cache."""

_ZEROS = memoryview(bytes(1 << 16))
_STREAM = 1 << 32  # pairs under one nonce of GCM, which takes fewer than 2**36 bytes


class _Workspace(threading.local):
    """Memory that a thread's blocks are made in: fresh pages would cost as much as the numbers."""

    def __init__(self) -> None:
        self.bits = memoryview(bytearray(8 * PAIRS + 15))  # the cipher asks for a block more
        self.numbers = np.empty(2 * PAIRS, np.float32)
        self.holder: object = None


_workspace = _Workspace()


@dataclass(frozen=True)
class NormalBlock:
    """Pairs of normals that follow each other; the memory is used again by the next block."""

    first: int
    """The place of the first pair in the whole stream."""
    words: NDArray[np.uint32]  # (h,)
    angles: NDArray[np.uint32]  # (h,)
    normals: NDArray[np.float32]  # (2 h,): cosines, then sines; NaN where a word is rare

    def bits(self, places: NDArray[np.int64]) -> refined.Bits:
        """What the normals at these places of the block were made from."""
        second = places >= len(self.words)
        pair = places - len(self.words) * second
        numbers = (self.first + pair).astype(np.uint64)
        return refined.Bits(numbers, self.words[pair], self.angles[pair], second)


def keystream(algorithm: algorithms.AES256, nonce: bytes, counter: bool) -> CipherContext:
    """An encryptor of zeros by CTR or GCM: the same bytes, of which it gives fewer than 2**36.

    GCM counts in the last 32 bits, from 2 on (NIST SP 800-38D, section 7.1); CTR in all 128.
    """
    mode = modes.CTR(nonce + (2).to_bytes(4, "big")) if counter else modes.GCM(nonce)
    return Cipher(algorithm, mode).encryptor()


@cache
def counter_is_quicker() -> bool:
    """Whether CTR was quicker than GCM on this processor: a fifth of a millisecond, once. Numbers
    do not depend on it."""
    algorithm = algorithms.AES256(bytes(32))
    by_mode = {counter: keystream(algorithm, bytes(12), counter) for counter in (True, False)}
    least, room = dict.fromkeys(by_mode, 1 << 62), bytearray(len(_ZEROS) + 15)
    for _ in range(4):
        for counter, encryptor in by_mode.items():
            start = time.thread_time_ns()
            encryptor.update_into(_ZEROS, room)
            least[counter] = min(least[counter], time.thread_time_ns() - start)
    return least[True] < least[False]


class Blocks:
    """The blocks of `count` normals of a source, in order."""

    def __init__(self, source: Source, count: int) -> None:
        self._algorithm = algorithms.AES256(source.secret("normals", 2))
        self._left = (count + 1) // 2
        self._made = 0

    def next(self) -> NormalBlock:
        """The next one. Raises `ValueError` where more are asked for than were announced."""
        if not self._left:
            raise ValueError("more normals were asked for than were announced")
        pairs = min(PAIRS, self._left)
        if self._made % _STREAM == 0:
            nonce = (self._made // _STREAM).to_bytes(12, "big")
            self._encryptor = keystream(self._algorithm, nonce, counter_is_quicker())
        memory, size = _workspace, 8 * pairs
        memory.holder = self
        for start in range(0, size, len(_ZEROS)):
            self._encryptor.update_into(_ZEROS[: size - start], memory.bits[start:])
        drawn = np.frombuffer(memory.bits, dtype="<u4", count=2 * pairs)
        block = NormalBlock(self._made, drawn[:pairs], drawn[pairs:], memory.numbers[: 2 * pairs])
        normals(block.words, block.angles, block.normals)
        self._left -= pairs
        self._made += pairs
        return block


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
        self._blocks = Blocks(source, count)
        self._fine = refined.Fine(source)
        self._left = count
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
            elif _workspace.holder is not self._blocks:
                raise RuntimeError("other normals of this thread took the memory of these")
            take = min(count - start, len(self._block) - self._used)
            some = self._block[self._used : self._used + take].to(value.device)
            here = slice(start, start + take)
            torch.add(value[here], some, alpha=deviation, out=out[here])
            start, self._used = start + take, self._used + take
        return out

    def _fill(self) -> None:
        """Makes the next block, rare pairs included."""
        block = self._blocks.next()
        rare = np.flatnonzero(plain.rare(block.words))
        if len(rare):
            places = np.concatenate([rare, rare + len(block.words)])
            bits = block.bits(places)
            block.normals[places] = refined.doubles(bits, self._fine.words(bits.pairs))
        self._block, self._used = torch.from_numpy(block.normals[: self._left]), 0
        self._left -= len(self._block)

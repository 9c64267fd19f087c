"""Random numbers keyed by what they are for.

A run has one secret key, drawn from the operating system. From it every stream is derived by its
purpose, the step and a digest of everything that enters the step, so that

- the same step on the same inputs draws the same numbers (a resumed run continues bit for bit),
- the same step on *other* inputs draws independent ones (asking round 17 twice with different
  weights cannot subtract the noise away).

*Guarantee:* numbers are AES-256 in counter mode under keys derived by HMAC-SHA-256, both from
`cryptography` and the standard library; none of ours. Whoever lacks the run key cannot tell them
from random. `torch.Generator` seeds its CPU engine with 32 bits and is never used for noise or
sampling.

*Limit:* a normal is the inverse normal distribution function of a 53-bit uniform. Its support is
finite and its tails end at 8.2 deviations (probability 2e-16 a draw); floating-point attacks on
Gaussian noise (Mironov 2012) are a stated limit.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import hashlib
import hmac
import math
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

from nacre.core.types import Tensors

Label = str | int | bytes


def _encode(label: Label) -> bytes:
    """A label as bytes that no other label, and no other list of labels, encodes to."""
    if isinstance(label, bytes):
        kind, body = b"b", label
    elif isinstance(label, str):
        kind, body = b"s", label.encode()
    else:
        kind, body = b"i", str(int(label)).encode()
    return kind + len(body).to_bytes(8, "big") + body


class Source:
    """A node in the tree of keys; its children are independent of it and of each other.

    >>> root = Source(bytes(32))
    >>> a = root.child("noise", 1).stream().uniform(3)
    >>> bool((a == Source(bytes(32)).child("noise", 1).stream().uniform(3)).all())
    True
    >>> bool((a == root.child("noise", 2).stream().uniform(3)).any())
    False
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise ValueError(f"a key has 32 bytes, got len(key)={len(key)}")
        self._key = key

    @classmethod
    def fresh(cls) -> Source:
        """A new root, keyed by the operating system."""
        return cls(os.urandom(32))

    def child(self, *labels: Label) -> Source:
        """The source for this purpose: the same labels give the same child."""
        message = b"".join(_encode(label) for label in labels)
        return Source(hmac.new(self._key, b"child" + message, hashlib.sha256).digest())

    def number(self, *labels: Label) -> int:
        """One number from 0 to 2**63 - 1 for these labels: to name many things, not for noise."""
        message = b"".join(_encode(label) for label in labels)
        code = hmac.new(self._key, b"number" + message, hashlib.sha256).digest()
        return int.from_bytes(code[:8], "big") >> 1

    def stream(self) -> Stream:
        """Random numbers under this key, from the start."""
        return Stream(hmac.new(self._key, b"stream", hashlib.sha256).digest())

    def __repr__(self) -> str:
        return "Source(<secret>)"


class Stream:
    """Random numbers under one key. Each call continues where the last one stopped."""

    __slots__ = ("_cipher", "_position")

    _SEQUENCE = (1 << 64) - 1  # the row id that `uniform` uses; rows use ids below it

    def __init__(self, key: bytes) -> None:
        # Encrypting distinct counter blocks one by one is counter mode; choosing the blocks
        # ourselves lets row i of a batch be keyed by its unit instead of by its place.
        self._cipher = Cipher(algorithms.AES256(key), modes.ECB())
        self._position = 0

    def _blocks(self, high: np.ndarray, low: np.ndarray) -> np.ndarray:
        """Encrypts the counter blocks (high, low); two uint64 words a block."""
        blocks = np.empty((high.size, 2), dtype="<u8")
        blocks[:, 0], blocks[:, 1] = high.ravel(), low.ravel()
        encryptor = self._cipher.encryptor()
        data = encryptor.update(blocks.tobytes()) + encryptor.finalize()
        return np.frombuffer(data, dtype="<u8")

    def words(self, count: int) -> np.ndarray:
        """`count` uniform 64-bit words, (count,) uint64."""
        if count <= 0:
            return np.zeros(0, dtype=np.uint64)
        size = (count + 1) // 2
        low = np.arange(self._position, self._position + size, dtype=np.uint64)
        self._position += size
        return self._blocks(np.full(size, self._SEQUENCE, dtype=np.uint64), low)[:count]

    def uniform(self, *shape: int) -> Tensor:
        """Float64 numbers strictly between 0 and 1, on a grid of 2**-53."""
        return _open_unit(self.words(math.prod(shape))).reshape(shape)

    def normal(self, *shape: int) -> Tensor:
        """Float64 standard normals; cast them after scaling."""
        return torch.special.ndtri(self.uniform(*shape))

    def rows(self, units: Tensor, width: int) -> Tensor:
        """(B, width) float64 uniforms; row i depends on the key and on `units[i]` alone.

        Every call with the same units gives the same numbers: take another child for more.
        """
        size = (width + 1) // 2
        ids = units.detach().cpu().numpy().astype(np.uint64)
        high = np.repeat(ids, size)
        low = np.tile(np.arange(size, dtype=np.uint64), ids.size)
        words = self._blocks(high, low) if ids.size and size else np.zeros(0, dtype=np.uint64)
        return _open_unit(words.reshape(ids.size, 2 * size)[:, :width])

    def permutation(self, count: int) -> Tensor:
        """A uniformly random order of 0 … count - 1, (count,) int64."""
        return torch.from_numpy(np.argsort(self.words(count), kind="stable").astype(np.int64))

    def seed(self) -> int:
        """A seed for `torch.manual_seed`: dropout and initial weights only, never noise."""
        return int(self.words(1)[0] >> np.uint64(1))


def _open_unit(words: np.ndarray) -> Tensor:
    """uint64 words -> float64 in (0, 1): the middle of each of 2**53 equal cells, rounded."""
    top = (words >> np.uint64(12)).astype(np.float64)  # 52 bits, exact
    return torch.from_numpy((top + 0.5) * 2.0**-52)


def digest(*parts: Tensors | Tensor | Label | Sequence[int]) -> bytes:
    """SHA-256 of everything that enters a step, in order; names, shapes and types included."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, dict):
            state.update(_encode("tensors") + _encode(len(part)))
            for name in sorted(part):
                state.update(_encode(name))
                _update(state, part[name])
        elif isinstance(part, Tensor):
            _update(state, part)
        elif isinstance(part, str | int | bytes):
            state.update(_encode(part))
        else:
            state.update(_encode(",".join(str(int(value)) for value in part)))
    return state.digest()


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...


def _update(state: _Hash, tensor: Tensor) -> None:
    value = tensor.detach().cpu().contiguous()
    state.update(_encode(str(value.dtype)) + _encode(str(tuple(value.shape))))
    state.update(value.reshape(-1).view(torch.uint8).numpy().data)

"""Random numbers keyed by what they are for.

A run has one secret key, drawn from the operating system. From it every stream is derived by its
purpose, the step and a digest of everything that enters the step, so that

- the same step on the same inputs draws the same numbers (a resumed run continues bit for bit),
- on *other* inputs independent ones (no second answer to a round subtracts the noise away).

*Guarantee:* numbers are AES-256 of distinct blocks under keys derived by HMAC-SHA-256: without the
run key nobody tells them from random. `torch.Generator` has a seed of 32 bits: no noise is its.

*Limit:* `Stream.normal` is the inverse normal distribution function of a 53-bit uniform: its tails
end at 8.2 deviations. Floating-point attacks (Mironov 2012) are a limit of it and of correlated
noise; independent noise is rounded by `nacre.core.normals.rounded`.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import ctypes
import hashlib
import hmac
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from torch import Tensor

from nacre.core.types import Tensors

Label = str | int | bytes
Part = Tensors | Tensor | Label | Sequence[int]
"""What a digest is taken of."""


def _encode(label: Label) -> bytes:
    """A label as bytes that no other label, and no other list of labels, encodes to."""
    if isinstance(label, bytes):
        kind, body = b"b", label
    elif isinstance(label, str):
        kind, body = b"s", label.encode()
    else:
        kind, body = b"i", str(int(label)).encode()
    return kind + len(body).to_bytes(8, "big") + body


def keyed_hash(key: bytes, start: bytes) -> Callable[[bytes], bytes]:
    """HMAC-SHA-256 of `start` and a message, as a function of the message: key and start are taken
    in once, which is most of the work where messages are short."""
    (begun := HMAC(key, SHA256())).update(start)

    def code(message: bytes) -> bytes:
        state = begun.copy()
        state.update(message)
        return state.finalize()

    return code


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
        return Source(hmac.digest(self._key, b"child" + b"".join(map(_encode, labels)), "sha256"))

    def number(self, *labels: Label) -> int:
        """One number from 0 to 2**63 - 1 for these labels: to name many things, not for noise."""
        code = keyed_hash(self._key, b"number")(b"".join(map(_encode, labels)))
        return int.from_bytes(code[:8], "big") >> 1

    def numbers(self, names: Iterable[bytes]) -> np.ndarray:
        """(N,) int64: `number(name, 1)` of each name, `number(name, 2)` of the second of two equal
        ones, and so on. The key is taken in once."""
        code, first, found = keyed_hash(self._key, b"number"), _encode(1), bytearray()
        seen = Counter[bytes]()
        for name in names:
            seen[name] += 1
            last = _encode(seen[name]) if seen[name] > 1 else first
            found += code(b"b" + len(name).to_bytes(8, "big") + name + last)[:8]
        return (np.frombuffer(found, dtype=">u8") >> np.uint64(1)).astype(np.int64)

    def secret(self, *labels: Label) -> bytes:
        """32 secret bytes for these labels: the key of a cipher, never shown."""
        return hmac.digest(self._key, b"secret" + b"".join(map(_encode, labels)), "sha256")

    def digest(self, *parts: Part) -> bytes:
        """32 bytes that stand for `parts`, at the speed of memory; equal for equal parts.

        *Guarantee:* a pseudo-random function of the parts under this key, so without the key it
        reveals nothing of them and may be published; and without the key two lists of parts with
        one digest are found with a chance of at most their bytes / 2**131 a pair.

        *Why:* GHASH under a secret key is a polynomial in a random point of GF(2**128), so two
        messages of n blocks meet at most n + 1 of 2**128 points; SHA-256 as a keyed function then
        hides which (Wegman and Carter 1981; hash, then a PRF). The tag of GHASH never leaves: it
        is made with the same nonce every time, and would give its key away.

        `digest` in this module is for what others must be able to recompute.
        """
        tag = _Tag(self.secret("digest", "tag"))
        _enter(tag, parts)
        message = tag.finish()
        return hmac.digest(self.secret("digest", "out"), message, "sha256")

    def tagging(self) -> Callable[[Tensor], bytes]:
        """What gives a tag of a tensor's bytes, 16 for each GiB: GHASH as in `digest`, without what
        hides it, at a tenth of a digest's price where tensors are small.

        *Guarantee:* without the key two tensors of one type and shape have one tag with a chance of
        at most their bytes / 2**131. *Limit:* tags give the key away to who knows two tensors of
        them, so they are compared in this process, and go nowhere.
        """
        cipher, nonce = AESGCM(self.secret("tag")), bytes(12)

        def tag(tensor: Tensor) -> bytes:
            value = _plain(tensor)  # held: a copy would be gone before its memory is read
            memory = _memory(value)
            return b"".join(
                cipher.encrypt(nonce, b"", memory[start : start + _Tag.LIMIT])
                for start in range(0, len(memory), _Tag.LIMIT)
            )

        return tag

    def for_worker(self) -> bytes:
        """The key, which strips noise off: for a worker process, by a pipe and never on a disk."""
        return self._key

    def stream(self) -> Stream:
        """Random numbers under this key, from the start."""
        return Stream(hmac.digest(self._key, b"stream", "sha256"))

    def __repr__(self) -> str:
        return "Source(<secret>)"


class Stream:
    """Random numbers under one key. Each call continues where the last one stopped."""

    __slots__ = ("_cipher", "_position")

    _SEQUENCE = (1 << 64) - 1  # the row id that `uniform` uses; rows use ids below it
    _COINS = np.uint64(1 << 63)  # set in the second word of the blocks that `below` uses
    _TIES = np.uint64(1 << 62)  # the second word of the blocks that settle a tie of `heads`
    _CHUNK = 1 << 14  # blocks at a time

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

    def heads(self, count: int, probability: float) -> np.ndarray:
        """Which of `count` coins show heads, (k,) int64 in order; each has the same chance, exactly
        that of `uniform() < probability`, and no coin depends on how many there are.

        16 bits settle all but one coin in 65,536; where they are those of the probability itself,
        36 bits of the coin's own follow. Raises `ValueError` for a probability outside 0 … 1.
        """
        if not 0 <= probability <= 1:
            raise ValueError(f"probability={probability} must lie in [0, 1]")
        first, rest = divmod(_cells(probability), 2**36)
        blocks = np.empty((min(self._CHUNK, (count + 7) // 8), 2), dtype="<u8")
        blocks[:, 0] = self._SEQUENCE
        blocks[:, 1] = np.arange(self._position, self._position + len(blocks), dtype=np.uint64)
        before = 8 * self._position  # so that no two calls share the bits of a tie
        self._position += (count + 7) // 8
        out = bytearray(blocks.nbytes + 15)  # the cipher asks for room for one more block
        encryptor = self._cipher.encryptor()
        found: list[np.ndarray] = []
        for start in range(0, count, 8 * self._CHUNK):
            size = min(len(blocks), (count - start + 7) // 8)
            encryptor.update_into(blocks[:size].reshape(-1).view(np.uint8).data, out)
            draws = np.frombuffer(out, dtype="<u2", count=min(8 * size, count - start))
            low = np.flatnonzero(draws <= min(first, 2**16 - 1))
            equal = draws[low] == first
            ties = (low[equal] + start + before).astype(np.uint64)
            bits = self._blocks(ties, np.full(ties.size, self._TIES))[::2] >> np.uint64(28)
            stays = ~equal
            stays[equal] = bits < np.uint64(rest)
            found.append(low[stays] + start)
            blocks[:, 1] += np.uint64(len(blocks))
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def normal(self, *shape: int) -> Tensor:
        """Float64 standard normals, for the few that statistics need; `Normals` are for many."""
        return torch.special.ndtri(self.uniform(*shape))

    def rows(self, units: Tensor, width: int, turns: Tensor | None = None) -> Tensor:
        """(B, width) float64 uniforms; row i depends on the key and on `units[i]` alone.

        Every call with the same units gives the same numbers: take another child for more, or other
        `turns`, (B,) int64 from 0, independent where all are asked for with one width.
        """
        asked = None if turns is None else turns.detach().cpu().numpy()
        return _open_unit(self.words_of(units.detach().cpu().numpy(), width, asked))

    def words_of(self, units: np.ndarray, width: int, turn: np.ndarray | None = None) -> np.ndarray:
        """(B, width) uniform uint64 words; row i depends on the key and on row i of both alone, and
        a wider row of turn 0 begins with a narrower one."""
        size = (width + 1) // 2
        ids = units.astype(np.uint64)
        high = np.repeat(ids, size)
        low = np.tile(np.arange(size, dtype=np.uint64), ids.size)
        if turn is not None:
            low += np.repeat(turn.astype(np.uint64) * np.uint64(size), size)
        words = self._blocks(high, low) if ids.size and size else np.zeros(0, dtype=np.uint64)
        return words.reshape(ids.size, 2 * size)[:, :width]

    def below(self, units: Tensor, width: int, share: float) -> Tensor:
        """(B, width) bool, each True with chance `share`; row i belongs to its unit as in `rows`.

        For dropout: 16 bits a draw, so the chance is `share` to within 2**-17. Every call with the
        same units gives the same draws, independent of those of `rows`. Raises `ValueError` for a
        share outside 0 … 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share={share} must lie in [0, 1]")
        limit = round(share * 2**16)
        ids = units.detach().cpu().numpy().astype(np.uint64)
        if limit in (0, 2**16) or not ids.size or not width:
            return torch.full((ids.size, width), limit > 0)
        drawn = np.empty((ids.size, width), dtype=np.bool_)
        size = (width + 7) // 8
        some = min(max(1, self._CHUNK // size), ids.size)  # so that their blocks fit a cache
        blocks = np.empty((some, size, 2), dtype="<u8")
        blocks[:, :, 1] = np.arange(size, dtype=np.uint64) | self._COINS
        out = bytearray(blocks.nbytes + 15)  # the cipher asks for room for one more block
        encryptor = self._cipher.encryptor()
        for start in range(0, ids.size, some):
            rows = ids[start : start + some]
            blocks[: rows.size, :, 0] = rows[:, None]
            encryptor.update_into(blocks[: rows.size].reshape(-1).view(np.uint8).data, out)
            draws = np.frombuffer(out, dtype="<u2", count=rows.size * size * 8)
            draws = draws.reshape(rows.size, 8 * size)[:, :width]
            np.less(draws, np.uint16(limit), out=drawn[start : start + some])
        return torch.from_numpy(drawn)

    def permutation(self, count: int) -> Tensor:
        """A uniformly random order of 0 … count - 1, (count,) int64."""
        return torch.from_numpy(np.argsort(self.words(count), kind="stable").astype(np.int64))

    def seed(self) -> int:
        """A seed for `seed_torch`: dropout and initial weights only, never noise."""
        return int(self.words(1)[0] >> np.uint64(1))


@lru_cache(maxsize=64)
def _cells(probability: float) -> int:
    """How many of 2**52 equal cells of 0 … 1 have their middle below a probability."""
    return math.ceil(Fraction(probability) * 2**52 - Fraction(1, 2))


def _open_unit(words: np.ndarray) -> Tensor:
    """uint64 words -> float64 in (0, 1): the middle of each of 2**53 equal cells, rounded."""
    top = (words >> np.uint64(12)).astype(np.float64)  # 52 bits, exact
    return torch.from_numpy((top + 0.5) * 2.0**-52)


def seed_torch(seed: int) -> None:
    """Seeds PyTorch's own generators, of which dropout and initial weights draw."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # `manual_seed` keeps a stack for each kind of device that is not there: up to 2 ms
        torch.default_generator.manual_seed(seed)


def digest(*parts: Part) -> bytes:
    """SHA-256 of the parts, in order; names, shapes and types included. For what is stored or sent:
    anyone can recompute it. `Source.digest` is ten times faster where the run's key is at hand."""
    state = hashlib.sha256()
    _enter(state, parts)
    return state.digest()


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...


class _Tag:
    """GHASH: the tag of AES-256-GCM over data that is only authenticated."""

    LIMIT = 1 << 30  # bytes a call; the cipher takes fewer than 2**31

    def __init__(self, key: bytes) -> None:
        self._cipher = Cipher(algorithms.AES256(key), modes.GCM(bytes(12))).encryptor()

    def update(self, data: Any) -> None:
        view = memoryview(data)
        for start in range(0, len(view), self.LIMIT):
            self._cipher.authenticate_additional_data(view[start : start + self.LIMIT])

    def finish(self) -> bytes:
        self._cipher.finalize()
        return self._cipher.tag


def _enter(state: _Hash, parts: Sequence[Part]) -> None:
    """Writes an encoding that no other list of parts of the same kinds has."""
    for part in parts:
        if isinstance(part, dict):
            state.update(_encode("tensors") + _encode(len(part)))
            for name in sorted(part):
                _enter_tensor(state, part[name], name)
        elif isinstance(part, Tensor):
            _enter_tensor(state, part, None)
        elif isinstance(part, str | int | bytes):
            state.update(_encode(part))
        else:
            state.update(_encode(",".join(str(int(value)) for value in part)))


def _enter_tensor(state: _Hash, tensor: Tensor, name: str | None) -> None:
    value = _plain(tensor)
    state.update(_form(name, value.dtype, value.shape))
    if value.numel():
        state.update(_memory(value))


@lru_cache(maxsize=4096)
def _form(name: str | None, kind: torch.dtype, shape: torch.Size) -> bytes:
    return (
        (b"" if name is None else _encode(name)) + _encode(str(kind)) + _encode(str(tuple(shape)))
    )


def _plain(tensor: Tensor) -> Tensor:
    """On the processor and contiguous; nearly always it is, and asking is cheaper than a view."""
    if type(tensor) in _KINDS and tensor.is_cpu and tensor.is_contiguous():
        return tensor
    return tensor.detach().cpu().contiguous()


_KINDS = (Tensor, torch.nn.Parameter)


def raw_bytes(tensor: Tensor) -> bytes:
    """A copy of what a tensor holds, row by row, wherever it lies."""
    return bytes(_memory(_plain(tensor)))


def _memory(value: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the processor, read in place: `numpy()` would forbid for
    ever to let go of its memory, which weights that are gathered for a step are freed by."""
    size = value.numel() * value.element_size()
    return memoryview((ctypes.c_ubyte * size).from_address(value.data_ptr())).cast("B")

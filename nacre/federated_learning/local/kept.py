"""What a party remembers between rounds: SCAFFOLD's control, what a compressor left out, layers of
its own.

It is tied to the round after which it holds, so that a round that is taken again after a crash
begins with what it began with the first time. It is private, and encrypted on disk as answers are.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from safetensors.torch import load

from nacre.core.errors import FileDamaged, PartyError
from nacre.core.files import tensors_to_bytes, write_bytes
from nacre.core.random import Source
from nacre.core.types import Tensors


class Memory(Protocol):
    """Round -> the tensors that a party held after it."""

    def before(self, round_number: int) -> Tensors:
        """What was held after the last answered round below this one; nothing before the first."""
        ...

    def keep(self, round_number: int, tensors: Tensors) -> None:
        """Holds these after this round; durable, where the memory is, once this returns."""
        ...


class InMemory:
    """For as long as the process lives: for runs that are never resumed."""

    def __init__(self) -> None:
        self._kept: dict[int, Tensors] = {}

    def before(self, round_number: int) -> Tensors:
        """What was held after the last answered round below this one; nothing before the first."""
        known = _latest(self._kept, round_number)
        return {} if known is None else self._kept[known]

    def keep(self, round_number: int, tensors: Tensors) -> None:
        """Holds these after this round."""
        self._kept[round_number] = tensors
        for old in sorted(self._kept)[:-_ROUNDS]:
            del self._kept[old]


class OnDisk:
    """In a folder, encrypted under `key`, which is kept elsewhere and destroyed with the run.

    The last two rounds are kept: the one before the last is what a round that was cut off after it
    had kept its own, and before its reply was stored, begins with again.
    """

    def __init__(self, folder: Path, key: bytes) -> None:  # of 32 bytes
        self._folder = folder
        self._cipher = AESGCM(key)

    def __repr__(self) -> str:
        return f"OnDisk({str(self._folder)!r}, <secret>)"

    def before(self, round_number: int) -> Tensors:
        """What was held after the last answered round below this one; nothing before the first.

        Raises `FileDamaged` where the file is not what was kept.
        """
        known = _latest(self._rounds(), round_number)
        if known is None:
            return {}
        path = self._path(known)
        data = path.read_bytes()
        try:
            plain = self._cipher.decrypt(data[:_NONCE], data[_NONCE:], path.name.encode())
        except (InvalidTag, ValueError) as error:
            raise FileDamaged(
                f"{path} is not what this party remembered of its last round, so it cannot take "
                "part in another; put the file back from a copy, or end the run"
            ) from error
        return load(plain)

    def keep(self, round_number: int, tensors: Tensors) -> None:
        """Holds these after this round; durable once this returns."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path, nonce = self._path(round_number), os.urandom(_NONCE)
        plain = tensors_to_bytes(tensors, {})
        sealed = nonce + self._cipher.encrypt(nonce, plain, path.name.encode())
        write_bytes(path, sealed, mode=0o600)
        for old in sorted(self._rounds())[:-_ROUNDS]:
            self._path(old).unlink(missing_ok=True)

    def _rounds(self) -> list[int]:
        return [int(path.stem) for path in self._folder.glob("[0-9]*.kept")]

    def _path(self, round_number: int) -> Path:
        return self._folder / f"{round_number:010d}.kept"


class Memories:
    """The memories of the parties of one process, each made when it is asked for; on disk where
    the run has a folder."""

    def __init__(self, folder: Path | None, source: Source) -> None:
        self._folder, self._source = folder, source
        self._in_memory: dict[str, InMemory] = {}

    def of(self, name: str) -> Memory:
        """The memory of one party, which is the same whenever it is asked for."""
        if self._folder is None:
            return self._in_memory.setdefault(name, InMemory())
        # Who a column names may have any name: none that leads elsewhere, or says who took part.
        folder = self._source.secret("memory folder", name).hex()
        return OnDisk(self._folder / folder, self._source.secret("memory", name))


def _latest(rounds: Collection[int], before: int) -> int | None:
    """The last of these rounds below `before`; None where a party has not taken part yet."""
    known = [number for number in rounds if number < before]
    if not known and len(rounds) == _ROUNDS:
        raise PartyError(
            f"round {before} lies before all that this party remembers; resume the run from its "
            "own checkpoint"
        )
    return max(known) if known else None


_ROUNDS = 2
_NONCE = 12  # bytes, random: a collision among 2**32 files has probability 2**-33

"""What a party answered, so that it answers each step once.

A file is two SHA-256 digests and the reply: of the request, of the reply, the reply's bytes. It is
written whole or not at all, before the reply leaves.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from nacre.core.errors import FileDamaged
from nacre.core.files import write_bytes

_DIGEST = 32  # bytes


class Answers(Protocol):
    """Step -> (digest of the request, bytes of the reply)."""

    def get(self, step: str) -> tuple[bytes, bytes] | None:
        """What was answered at this step; None where nothing was."""
        ...

    def put(self, step: str, request: bytes, reply: bytes) -> None:
        """Keeps an answer; durable, where the answers are, once this returns."""
        ...


class Remembered:
    """Answers for as long as the process lives: for runs that are never resumed."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[bytes, bytes]] = {}

    def get(self, step: str) -> tuple[bytes, bytes] | None:
        """What was answered at this step; None where nothing was."""
        return self._kept.get(step)

    def put(self, step: str, request: bytes, reply: bytes) -> None:
        """Keeps an answer."""
        self._kept[step] = (request, reply)


class Stored:
    """Answers in a folder, which is made where it does not exist."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def get(self, step: str) -> tuple[bytes, bytes] | None:
        """The stored request of this step and the reply to it; None where none is stored.

        Raises `FileDamaged`, since a party that cannot read its reply must not compute another.
        """
        path = self._path(step)
        if not path.exists():
            return None
        data = path.read_bytes()
        request, check, reply = data[:_DIGEST], data[_DIGEST : 2 * _DIGEST], data[2 * _DIGEST :]
        if hashlib.sha256(reply).digest() != check:
            raise FileDamaged(
                f"{path} is not what this party once answered, so it cannot answer this step "
                "again; put the file back from a copy, or end the run"
            )
        return request, reply

    def put(self, step: str, request: bytes, reply: bytes) -> None:
        """Keeps an answer; durable once this returns."""
        write_bytes(self._path(step), request + hashlib.sha256(reply).digest() + reply, mode=0o600)

    def _path(self, step: str) -> Path:
        return self._folder / f"{step}.answer"

"""What a party answered, so that it answers each step once.

A file is a nonce of 12 bytes, and AES-256-GCM over the digest of the request and the reply, with
the step as associated data. It is written whole or not at all, before the reply leaves. Under
privacy of whole parties a reply is a raw change, and the file shows none of it without the key.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from nacre.core.errors import FileDamaged
from nacre.core.files import write_bytes

_DIGEST = 32  # bytes
_NONCE = 12  # bytes, random: a collision among 2**32 answers has probability 2**-33


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
    """Answers in a folder, which is made where it does not exist; encrypted under `key`, which has
    to be kept elsewhere and destroyed with the run."""

    def __init__(self, folder: Path, key: bytes) -> None:  # of 32 bytes
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._cipher = AESGCM(key)

    def __repr__(self) -> str:
        return f"Stored({str(self._folder)!r}, <secret>)"

    def get(self, step: str) -> tuple[bytes, bytes] | None:
        """The stored request of this step and the reply to it; None where none is stored.

        Raises `FileDamaged`, since a party that cannot read its reply must not compute another.
        """
        path = self._path(step)
        if not path.exists():
            return None
        data = path.read_bytes()
        try:
            both = self._cipher.decrypt(data[:_NONCE], data[_NONCE:], step.encode())
        except (InvalidTag, ValueError) as error:  # the second for a file that is too short
            raise FileDamaged(
                f"{path} is not what this party once answered, so it cannot answer this step "
                "again; put the file back from a copy, or end the run"
            ) from error
        return both[:_DIGEST], both[_DIGEST:]

    def put(self, step: str, request: bytes, reply: bytes) -> None:
        """Keeps an answer; durable once this returns."""
        nonce = os.urandom(_NONCE)
        data = nonce + self._cipher.encrypt(nonce, request + reply, step.encode())
        write_bytes(self._path(step), data, mode=0o600)

    def _path(self, step: str) -> Path:
        return self._folder / f"{step}.answer"

"""What a party answered, so that it answers each step once.

A party's own file is a nonce of 12 bytes, and AES-256-GCM over the digest of the request and the
reply, with the step as associated data. It is written whole or not at all, before the reply leaves.
Under privacy of whole parties a reply is a raw change, and the file shows none of it without the
key.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from nacre.core.errors import FileDamaged, PartyError
from nacre.core.files import whole_file, write_bytes

_DIGEST = 32  # bytes
_TAG = 16  # bytes that AES-GCM adds
_NONCE = 12  # bytes, random: a collision among 2**32 answers has probability 2**-33


class Answers(Protocol):
    """Step -> (digest of the request, bytes of the reply)."""

    def get(self, step: str) -> tuple[bytes, bytes] | None:
        """What was answered at this step; None where nothing was."""
        ...

    def put(self, step: str, request: bytes, reply: bytes) -> None:
        """Keeps an answer; durable, where the answers are, once this returns. Those of `RoundFiles`
        are once it has kept them all, which is before any of them is handed on."""
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


class RoundFiles:
    """The answers of all parties of one process, a file a round.

    *Guarantee:* nothing that was put leaves before `keep` has returned, and then all of it is on
    the disk, whole or not at all. A crash before that releases nothing. So one sync makes a round
    durable, where parties with a file each would take one each.

    A file is a line of JSON (of each party the length of its answer, the digest of its request and
    the nonce) and the answers under AES-256-GCM, with step, party and request as associated data.
    Without a folder the answers of the last round alone are remembered, and an earlier one is
    refused.
    """

    def __init__(self, folder: Path | None = None, key: bytes | None = None) -> None:
        """`key` has 32 bytes, and is kept elsewhere and destroyed with the run."""
        if (folder is None) != (key is None):
            raise ValueError("folder and key are given together or not at all")
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._cipher = None if key is None else AESGCM(key)
        self._step = ""
        self._known: dict[str, tuple[bytes, bytes]] = {}
        self._new = False

    def __repr__(self) -> str:
        return f"RoundFiles({str(self._folder)!r}, <secret>)"

    def of(self, name: str) -> Answers:
        """The answers of one party."""
        return _OfParty(self, name)

    def get(self, name: str, step: str) -> tuple[bytes, bytes] | None:
        """What this party answered. Raises `FileDamaged` for a file that is not what was kept."""
        self._turn(step)
        return self._known.get(name)

    def put(self, name: str, step: str, request: bytes, reply: bytes) -> None:
        """Takes an answer; durable once `keep` has returned."""
        self._turn(step)
        self._known[name] = (request, reply)
        self._new = True

    def keep(self) -> None:
        """Makes all that was put durable."""
        if self._folder is not None and self._new:
            assert self._cipher is not None
            entries = {
                name: (len(reply) + _TAG, request.hex(), os.urandom(_NONCE))
                for name, (request, reply) in self._known.items()
            }
            index = {n: [size, asked, nonce.hex()] for n, (size, asked, nonce) in entries.items()}
            with whole_file(self._path(self._folder, self._step), mode=0o600) as file:
                file.write(json.dumps(index).encode() + b"\n")
                for name, (_, asked, nonce) in entries.items():
                    about = self._about(name, self._step, asked)
                    file.write(self._cipher.encrypt(nonce, self._known[name][1], about))
        self._new = False

    def _turn(self, step: str) -> None:
        """To the answers of this step."""
        if step == self._step:
            return
        if self._new:
            raise ValueError(f"the answers of {self._step} were not kept before {step} was asked")
        if self._folder is None and _number(step) < _number(self._step):
            raise PartyError(
                f"{step} was answered before {self._step} and is remembered no more; ask rounds in "
                "their order"
            )
        self._known = {} if self._folder is None else self._read(self._folder, step)
        self._step = step

    def _read(self, folder: Path, step: str) -> dict[str, tuple[bytes, bytes]]:
        path = self._path(folder, step)
        if not path.exists():
            return {}
        assert self._cipher is not None
        found: dict[str, tuple[bytes, bytes]] = {}
        try:
            with path.open("rb") as file:
                for name, (size, asked, nonce) in dict(json.loads(file.readline())).items():
                    about = self._about(name, step, asked)
                    reply = self._cipher.decrypt(bytes.fromhex(nonce), file.read(size), about)
                    found[name] = bytes.fromhex(asked), reply
        except (InvalidTag, ValueError, TypeError, AttributeError) as error:
            raise FileDamaged(
                f"{path} is not what these parties once answered, so they cannot answer this step "
                "again; put the file back from a copy, or end the run"
            ) from error
        return found

    @staticmethod
    def _about(name: str, step: str, asked: str) -> bytes:
        """What is authenticated beside the reply."""
        return json.dumps([step, name, asked]).encode()

    @staticmethod
    def _path(folder: Path, step: str) -> Path:
        return folder / f"{step}.answers"


def _number(step: str) -> int:
    """The round of a step; -1 before the first."""
    return int(step.rpartition("-")[2]) if step else -1


@dataclass(frozen=True)
class _OfParty:
    """One party's part of `RoundFiles`."""

    files: RoundFiles
    name: str

    def get(self, step: str) -> tuple[bytes, bytes] | None:
        return self.files.get(self.name, step)

    def put(self, step: str, request: bytes, reply: bytes) -> None:
        self.files.put(self.name, step, request, reply)

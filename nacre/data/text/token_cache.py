"""Tokens of private text, kept between two readings of the same rows: under `local/` alone."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from nacre.core.errors import NacreError
from nacre.core.files import load_tensors, save_tensors
from nacre.core.random import digest


class TokenCache:
    """Tensors by name: in memory until there is a folder for them, and from then on in files.

    They hold what private text says, so the folder has to be one that never leaves the machine. A
    name is an HMAC: who sees it learns nothing of the text.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._held: dict[str, dict[str, Tensor]] = {}

    def get(self, name: str) -> dict[str, Tensor] | None:
        """What was put under this name; None where nothing was, or a file of it is damaged."""
        if name in self._held or self._folder is None:
            return self._held.get(name)
        try:
            tensors, facts = load_tensors(self._file(self._folder, name))
        except (OSError, NacreError):
            return None  # it can be made again
        whole = facts.get("name") == name and facts.get("digest") == digest(tensors).hex()
        return tensors if whole else None

    def put(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Keeps these for the next reading; not where the disk has no room, since they can be made
        again."""
        if self._folder is None:
            self._held[name] = tensors
            return
        with contextlib.suppress(NacreError):
            facts = {"name": name, "digest": digest(tensors).hex()}
            save_tensors(self._file(self._folder, name), tensors, facts)

    def into(self, folder: Path) -> None:
        """Moves all of it to files there, and keeps whatever comes next there too."""
        held, self._held, self._folder = self._held, {}, folder
        for name, tensors in held.items():
            self.put(name, tensors)

    @staticmethod
    def _file(folder: Path, name: str) -> Path:
        return folder / f"tokens-{name[:32]}.safetensors"


def keyed_name(key: bytes, texts: Sequence[str], *facts: object) -> str:
    """Hex HMAC-SHA-256 of texts and of what is done to them."""
    state = hmac.new(key, b"nacre kept tokens", hashlib.sha256)
    state.update(json.dumps([repr(fact) for fact in facts]).encode())
    for text in texts:
        data = text.encode()
        state.update(len(data).to_bytes(8, "little") + data)
    return state.hexdigest()


def _nobody(what: str, done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class Aids:
    """What makes reading rows a second time faster, and who is informed of the progress."""

    kept: TokenCache = field(default_factory=TokenCache)
    advance: Callable[[str, int, int], None] = _nobody
    """Called with what is being read, and (done, total) of its parts."""

"""released.jsonl: one line for each thing that left the private side, in order."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from nacre.core.files import write_bytes
from nacre.core.types import Inherited, Noised, Release


def line(number: int, release: Release) -> dict[str, Any]:
    """What left at this step and by what right."""
    how = release.how
    facts: dict[str, Any] = {"step": number, "how": type(how).__name__.lower()}
    if isinstance(how, Noised):
        facts["deviation"] = how.deviation
    elif isinstance(how, Inherited):
        facts["sources"] = list(how.sources)
    else:
        facts["reason"] = how.reason
    return facts


class Log:
    """Appends to released.jsonl; on resume the steps that will be answered again are cut off."""

    def __init__(self, path: Path, done: int) -> None:
        kept = [text for text in _lines(path) if json.loads(text)["step"] <= done]
        # Whole or not at all: a crash between cutting and writing would lose what had left.
        write_bytes(path, "".join(f"{text}\n" for text in kept).encode())
        self._file = path.open("a", encoding="utf-8")

    def add(self, number: int, release: Release) -> None:
        """One more line, on its way to the disk."""
        self._file.write(json.dumps(line(number, release)) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Makes the lines durable; called before a checkpoint that counts on them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Ends the log."""
        self._file.close()


def _lines(path: Path) -> list[str]:
    """The whole lines of the log; a last line that a crash cut short is not one."""
    if not path.exists():
        return []
    found: list[str] = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            json.loads(text)["step"]
        except (ValueError, KeyError, TypeError):
            break
        found.append(text)
    return found

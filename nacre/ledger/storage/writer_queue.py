"""Writers of one ledger, one after another.

SQLite lets one process write at a time, and the others look again now and then, more seldom the
longer they wait: whoever has just written comes first again, and of sixteen processes one works
while the others sleep. Here they ask for a lock of the operating system, each a thousand times a
second, so that all come by.

The lock is for speed and fairness alone: that two never write at once is SQLite's own doing. So
where a file system has no such locks, or where the wait has been too long, all goes on without.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import time
from collections.abc import Generator
from pathlib import Path

_PAUSE = 1e-3  # seconds between two tries, on average


class Turns:
    """The writers' lock of a folder. Nothing is written anywhere."""

    def __init__(self, folder: Path, seconds: float) -> None:
        """`seconds` is how long a writer waits before it goes on without its turn."""
        self._folder, self._seconds = folder, seconds
        self._file: int | None = None

    @contextlib.contextmanager
    def one(self) -> Generator[None]:
        """Waits for this writer's turn, which lasts as long as the block. For one thread at a
        time."""
        file = self._taken()
        try:
            yield
        finally:
            if file is not None:
                fcntl.flock(file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Lets go of the folder."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _taken(self) -> int | None:
        """The descriptor that holds the turn; None where there is none to be had."""
        end = time.monotonic() + self._seconds
        try:
            if self._file is None:
                self._file = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
            while time.monotonic() < end:
                try:
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return self._file
                except BlockingIOError:
                    time.sleep(random.uniform(0.5, 1.5) * _PAUSE)
        except OSError:  # a file system without such locks, or a folder that cannot be read
            pass
        return None

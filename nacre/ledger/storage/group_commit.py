"""Journal entries that wait at the same time share one commit, and so one sync of the disk.

A sync of the disk takes as long for one entry as for sixteen. The first thread to come writes its
own entry; those that come while it waits for the disk are written together by one of them. Each
returns once its own entry is durable, or raises why it is not.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nacre.core.errors import LedgerError


@dataclass(eq=False)
class PendingStep:
    """A step to be journalled, and what became of it."""

    account: str
    run: str
    step: int
    entered: str
    done: bool = False
    error: Exception | None = None


class Together:
    """Lines from any thread, written in turns of one or more."""

    def __init__(self, write: Callable[[Sequence[PendingStep]], None]) -> None:
        """`write` makes all lines durable but those whose `error` it sets, or raises for all."""
        self._write = write
        self._waiting: deque[PendingStep] = deque()
        self._turn = threading.Lock()

    def add(self, line: PendingStep) -> None:
        """Returns once `line` is durable. Raises what `write` set or raised."""
        self._waiting.append(line)
        with self._turn:
            if not line.done:  # nobody wrote it meanwhile, so it is among those that wait
                self._take([self._waiting.popleft() for _ in range(len(self._waiting))])
        if line.error is not None:
            raise line.error

    def _take(self, lines: Sequence[PendingStep]) -> None:
        failed: Exception | None = LedgerError(
            "the thread that wrote for this one was interrupted, so nobody knows whether the step "
            "was journalled; journal it again"
        )
        try:
            self._write(lines)
            failed = None
        except Exception as error:
            failed = error
        finally:
            for line in lines:
                line.error = line.error or failed
                line.done = True

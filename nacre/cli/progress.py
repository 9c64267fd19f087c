"""Long work as bars on a terminal, as plain lines elsewhere; always on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from nacre.cli.output import note

if TYPE_CHECKING:
    from nacre.runs.progress import Advance

EVERY = 10.0
"""Seconds between two lines of one stage."""


class Bars:
    """A bar a stage; stages may stand inside each other."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._open = 0

    @contextmanager
    def stage(self, name: str, total: int | None) -> Generator[Advance]:
        """A bar of `total` parts (None: unknown), until the block is left."""
        bars = self._progress
        if not self._open:
            bars.start()
        self._open += 1
        task = bars.add_task(name, total=total, note="")

        def advance(count: int = 1, note: str = "", total: int | None = None) -> None:
            bars.update(task, advance=count, note=note, total=total)

        try:
            yield advance
        finally:
            self._open -= 1
            if not self._open:
                self._close()

    def tell(self, sentence: str) -> None:
        """A line above the bars."""
        self._progress.console.print(sentence, markup=False, highlight=False)

    def _close(self) -> None:
        """Leaves the bars on the screen and forgets them, lest the next start draws them again."""
        self._progress.stop()
        for task in self._progress.task_ids:
            self._progress.remove_task(task)


class Lines:
    """A line at each stage's start and end, and at most one every `EVERY` seconds between."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock

    @contextmanager
    def stage(self, name: str, total: int | None) -> Generator[Advance]:
        """Lines about `total` parts (None: unknown), until the block is left."""
        start = told = self._clock()
        done, parts = 0, total
        note(f"{name}: started")

        def advance(count: int = 1, note: str = "", total: int | None = None) -> None:
            nonlocal told, done, parts
            done += count
            parts = total or parts
            if self._clock() - told >= EVERY:
                told = self._clock()
                _tell(name, done, parts, note)

        try:
            yield advance
        except BaseException:
            note(f"{name}: stopped after {self._clock() - start:.0f} s")
            raise
        note(f"{name}: done in {self._clock() - start:.0f} s")

    def tell(self, sentence: str) -> None:
        """A line."""
        note(sentence)


def _tell(name: str, done: int, total: int | None, words: str) -> None:
    share = f"{done}" if total is None else f"{done} of {total}"
    note(f"{name}: {share}" + (f", {words}" if words else ""))


def watcher() -> Bars | Lines:
    """Bars where stderr is a terminal that can move its cursor, lines elsewhere."""
    console = Console(stderr=True)
    return Bars(console) if console.is_terminal and not console.is_dumb_terminal else Lines()

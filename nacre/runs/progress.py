"""What long work tells whoever watches: stages, and how far each has come."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Protocol


class Advance(Protocol):
    """Says that `count` more of a stage's parts are done.

    `note` is a few words, never private; `total` corrects the number of parts once it is known.
    """

    def __call__(self, count: int = 1, note: str = "", total: int | None = None) -> None: ...


class Progress(Protocol):
    """A watcher."""

    def stage(self, name: str, total: int | None) -> AbstractContextManager[Advance]:
        """Opens a stage of `total` parts (None: unknown); leaving the block ends it."""
        ...

    def tell(self, sentence: str) -> None:
        """Shows a sentence on the local terminal. It may count private rows: never keep it."""
        ...


class Silent:
    """Watches nothing."""

    def stage(self, name: str, total: int | None) -> AbstractContextManager[Advance]:
        """A stage that nobody sees."""

        def advance(count: int = 1, note: str = "", total: int | None = None) -> None:
            pass

        return nullcontext(advance)

    def tell(self, sentence: str) -> None:
        """Shows nothing."""


class Named:
    """Another watcher, told of stages under a longer name."""

    def __init__(self, watch: Progress, prefix: str) -> None:
        self._watch, self._prefix = watch, prefix

    def stage(self, name: str, total: int | None) -> AbstractContextManager[Advance]:
        """The stage, its name after the prefix."""
        return self._watch.stage(f"{self._prefix}: {name}", total)

    def tell(self, sentence: str) -> None:
        """The sentence as it is."""
        self._watch.tell(sentence)


@contextmanager
def stages(watch: Progress) -> Generator[Callable[[str, int, int], None]]:
    """A function that is told (what, done, total), and shows each `what` as a stage of its own."""
    with ExitStack() as stack:
        seen: dict[str, int] = {}
        bars: dict[str, Advance] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in bars:
                stack.close()
                bars[what] = stack.enter_context(watch.stage(what, total))
            bars[what](done - seen.get(what, 0))
            seen[what] = done

        yield tell

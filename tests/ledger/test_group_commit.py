"""Threads that journal at once share a commit, and each is told of its own entry alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from nacre.core.errors import LedgerError
from nacre.ledger import Ledger, Request
from nacre.ledger.storage.group_commit import PendingStep, Together

from .conftest import GAUSSIAN

RUNS = 8
STEPS = 12


@pytest.mark.slow
def test_every_thread_finds_its_own_entries_on_disk(ledger: Ledger) -> None:
    ledger.grant("clinic", "example", 1e4, 1e-5)
    charges = [
        ledger.reserve(
            "clinic",
            Request.of(f"{n}", GAUSSIAN, steps=STEPS, unit="example", adjacency="add_or_remove"),
        )
        for n in range(RUNS)
    ]
    with Ledger.open(ledger.place) as other, ThreadPoolExecutor(RUNS) as pool:

        def work(number: int) -> None:
            for step in range(1, STEPS + 1):
                charges[number].journal(step, f"{number}")
                assert other.run("clinic", f"{number}").journalled == step
            with pytest.raises(LedgerError, match=f"reserved {STEPS} steps"):
                charges[number].journal(STEPS + 1)

        list(pool.map(work, range(RUNS)))
    assert ledger.head().number == 1 + RUNS + RUNS * STEPS
    assert ledger.verify() == []


class Slow:
    """Writes that wait to be let through, and what they were given."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self.fail: BaseException | None = None

    def __call__(self, lines: Sequence[PendingStep]) -> None:
        self.entered.release()
        self.go.acquire()
        self.batches.append([line.step for line in lines])
        if self.fail is not None:
            raise self.fail
        for line in lines:
            if line.step == 3:
                line.error = LedgerError("three is refused")


def told(together: Together, step: int) -> str:
    try:
        together.add(PendingStep("a", "r", step, ""))
    except BaseException as error:
        return str(error)
    return "durable"


def run(slow: Slow) -> list[str]:
    """Line 1 holds the turn while 2, 3 and 4 come to wait."""
    together = Together(slow)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(told, together, 1)
        slow.entered.acquire()
        rest = [pool.submit(told, together, step) for step in (2, 3, 4)]
        while len(together._waiting) < 3:  # pyright: ignore[reportPrivateUsage]
            pass
        slow.go.release()
        slow.entered.acquire()
        slow.go.release()
        return [first.result(), *(each.result() for each in rest)]


def test_lines_that_wait_are_written_together_and_judged_alone() -> None:
    slow = Slow()
    assert run(slow) == ["durable", "durable", "three is refused", "durable"]
    assert [slow.batches[0], sorted(slow.batches[1])] == [[1], [2, 3, 4]]


def test_what_fails_for_one_write_fails_for_all_its_lines() -> None:
    slow = Slow()
    slow.fail = LedgerError("no room")
    assert run(slow) == ["no room", "no room", "no room", "no room"]


def test_an_interrupt_leaves_nobody_waiting() -> None:
    slow = Slow()
    slow.fail = KeyboardInterrupt("stop")
    said = run(slow)
    assert said[0] == "stop" and said[1:].count("stop") == 1
    assert sum("nobody knows whether" in each for each in said) == 2


@pytest.mark.slow
def test_a_commit_that_fails_leaves_no_trace_in_memory(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The book runs ahead inside a transaction, and is thrown away with it."""
    from nacre.ledger.storage.writer import Page

    ledger.grant("clinic", "example", 8.0, 1e-5)
    charge = ledger.reserve(
        "clinic", Request.of("one", GAUSSIAN, steps=4, unit="example", adjacency="add_or_remove")
    )
    journal = Page.journal

    def broken(page: Page, line: PendingStep) -> None:
        journal(page, line)
        raise LedgerError("the power went")

    monkeypatch.setattr(Page, "journal", broken)
    with pytest.raises(LedgerError, match="the power went"):
        charge.journal(2)
    monkeypatch.undo()
    assert (charge.journalled, ledger.head().number) == (0, 2)
    charge.journal(1)
    assert ledger.verify() == []

"""Processes that share a ledger, processes that die, and disks that fill up or lose their power."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from nacre.ledger import Ledger, Request
from nacre.ledger.rules import Zcdp
from nacre.ledger.storage import writer
from tests.forks import served

from . import worker
from .conftest import GAUSSIAN


@contextlib.contextmanager
def started(
    task: Any, place: Path | str, name: str
) -> Iterator[tuple[BaseProcess, Connection[Any, Any]]]:
    """A process that does `task`, and what it says."""
    context = served()
    ours, theirs = context.Pipe()
    process = context.Process(target=task, args=(place, name, theirs))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        ours.close()  # a process that waits for a word is told that none will come
        process.join()


def heard(pipe: Connection[Any, Any]) -> list[Any]:
    """Everything that a process says until it is gone."""
    said: list[Any] = []
    with contextlib.suppress(EOFError, ConnectionResetError):
        while True:
            said.append(pipe.recv())
    return said


@pytest.mark.slow
def test_processes_cannot_spend_the_same_budget_twice(place: Path | str) -> None:
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(started(worker.spend, place, str(number))) for number in range(4)
        ]
        for _, pipe in workers:
            assert pipe.recv() == "ready"
        for _, pipe in workers:
            pipe.send("go")
        said = [heard(pipe) for _, pipe in workers]
    assert [process.exitcode for process, _ in workers] == [0, 0, 0, 0]
    released = sum(map(sum, said))
    with Ledger.open(place) as ledger:
        assert ledger.verify() == []
        summary = ledger.summary("shared")
    grant, rho = summary.grants[0], 1 / (2 * 4.0**2)
    allowance = Zcdp(6.0, 1e-5).allowance
    assert len(summary.runs) == sum(map(len, said)) > 4
    assert released * rho == pytest.approx(grant.spent * allowance)
    assert grant.spent + grant.reserved <= 1.0
    # They stopped because another run did not fit, not because they got in each other's way.
    assert grant.left * allowance < 2 * rho


def granted(place: Path | str) -> None:
    with Ledger.open(place, create=True) as ledger:
        ledger.grant("shared", "example", 1e6, 1e-5)


@pytest.mark.slow
def test_killed_processes_have_journalled_at_least_what_they_were_told(place: Path | str) -> None:
    granted(place)
    draw = random.Random()
    for _ in range(3):
        with started(worker.journal, place, "run") as (process, pipe):
            lines = [pipe.recv() for _ in range(draw.randint(1, 60))]
            process.kill()
            lines += heard(pipe)  # said before the signal came
        with Ledger.open(place) as ledger:
            assert ledger.verify() == []
            assert lines[-1] <= ledger.run("shared", "run").journalled <= lines[-1] + 1


@pytest.mark.slow
@pytest.mark.parametrize("limit", [33_333, 41_111, 50_001])
def test_a_disk_that_fills_up_loses_nothing_that_was_acknowledged(path: Path, limit: int) -> None:
    granted(path)
    with started(worker.cramped, path, str(limit)) as (process, pipe):
        *steps, why = heard(pipe)
    assert process.exitcode == 0
    assert "nothing was written: make room" in why
    with Ledger.open(path) as ledger:
        assert ledger.verify() == []
        before = ledger.run("shared", "run").journalled
        assert before == len(steps)
        ledger.journal("shared", "run", before + 1)  # there is room again
        assert ledger.run("shared", "run").journalled == before + 1


@pytest.mark.slow
def test_a_power_cut_loses_nothing_that_was_synced(path: Path, tmp_path: Path) -> None:
    """The log may be cut, or torn, anywhere behind what was synced when an entry returned."""
    granted(path)
    log, cut = path.with_name(path.name + "-wal"), tmp_path / "cut.db"
    with Ledger.open(path) as ledger:
        charge = ledger.reserve(
            "shared",
            Request.of("run", GAUSSIAN, steps=9, unit="example", adjacency="add_or_remove"),
        )
        sizes: list[int] = []
        for step in range(1, 4):
            charge.journal(step)
            sizes.append(log.stat().st_size)
        database, logged = path.read_bytes(), log.read_bytes()
    assert len(set(sizes)) == 3
    for size in [*sizes, *range(sizes[0], len(logged), 211)]:
        for rest in (b"", b"\xff" * (len(logged) - size)):
            cut.with_name("cut.db-shm").unlink(missing_ok=True)
            cut.write_bytes(database)
            cut.with_name("cut.db-wal").write_bytes(logged[:size] + rest)
            with Ledger.open(cut) as ledger:
                synced = sum(each <= size for each in sizes)
                assert ledger.run("shared", "run").journalled == synced
                assert ledger.verify() == []


def test_nothing_depends_on_the_clock(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[object] = []
    years = iter(range(2999, 0, -1))
    for each in (ledger, Ledger.open(tmp_path / "backwards.db", create=True)):
        each.grant("clinic", "example", 8.0, 1e-5)
        charge = each.reserve(
            "clinic",
            Request.of("one", GAUSSIAN, steps=8, unit="example", adjacency="add_or_remove"),
        )
        for step in range(1, 5):
            charge.journal(step)
        charge.settle()
        each.reserve(
            "clinic",
            Request.of("two", GAUSSIAN, steps=4, unit="example", adjacency="add_or_remove"),
        )
        states.append((each.summary("clinic").grants, each.run("clinic", "one").end))
        assert each.verify() == []
        each.close()
        monkeypatch.setattr(writer, "now", lambda: f"{next(years):04}-01-01T00:00:00+00:00")
    assert states[0] == states[1]
    assert next(years) < 2995

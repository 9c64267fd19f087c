"""Writers wait for each other in a queue, and go on without it where there is none."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from nacre.ledger.storage.writer_queue import Turns


def test_turns_do_not_overlap_and_all_come(tmp_path: Path) -> None:
    inside, most, order = 0, 0, list[int]()

    def work(number: int) -> None:
        nonlocal inside, most
        turns = Turns(tmp_path, 30.0)
        for _ in range(20):
            with turns.one():
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                order.append(number)
                inside -= 1
        turns.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert sorted(order) == sorted(n for n in range(6) for _ in range(20))


def test_a_turn_that_does_not_come_is_done_without(tmp_path: Path) -> None:
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    turns = Turns(tmp_path, 0.05)
    begin = time.monotonic()
    with turns.one():
        assert time.monotonic() - begin > 0.04
    os.close(other)
    with turns.one():
        second = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(second)
    turns.close()


def test_no_queue_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Turns(tmp_path / "absent", 1.0).one():
        pass

    def refused(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    turns = Turns(tmp_path, 1.0)
    with turns.one():
        pass
    turns.close()


def test_nothing_is_written(tmp_path: Path) -> None:
    turns = Turns(tmp_path, 1.0)
    with turns.one():
        pass
    turns.close()
    assert list(tmp_path.iterdir()) == []

"""Bars on a terminal, lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from nacre.cli.progress import Bars, Lines, watcher
from nacre.runs.progress import Progress


class Clock:
    """Seconds that pass when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Lines(clock).stage("steps", 40) as advance:
        for _ in range(20):
            clock.now += 1
            advance(note="quietly")
        clock.now += 9
        advance(2, total=50)
    assert capsys.readouterr().err.splitlines() == [
        "steps: started",
        "steps: 10 of 40, quietly",
        "steps: 20 of 40, quietly",
        "steps: done in 29 s",
    ]


def test_a_stage_without_a_total_and_one_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with pytest.raises(KeyboardInterrupt), Lines(clock).stage("audit", None) as advance:
        clock.now += 10
        advance(3)
        advance(total=8)
        raise KeyboardInterrupt
    assert capsys.readouterr() == ("", "audit: started\naudit: 3\naudit: stopped after 10 s\n")


def test_bars_stand_inside_each_other_and_are_drawn_once() -> None:
    screen = io.StringIO()
    bars: Progress = Bars(Console(file=screen, force_terminal=True, width=80))
    with bars.stage("outer", 2) as outer:
        with bars.stage("inner", None) as inner:
            inner(5, note="found", total=5)
        outer(2)
    with pytest.raises(ValueError, match="x"), bars.stage("later", 1):
        raise ValueError("x")
    first, later = screen.getvalue().split("later", 1)
    assert "outer" in first and "inner" in first and "5/5" in first and "found" in first
    assert "outer" not in later


def test_which_one_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert isinstance(watcher(), Lines)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(watcher(), Bars)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(watcher(), Lines)

"""Every planted fault still has its line: a fault that is planted nowhere is noticed by nobody."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_each_fault_has_its_line_and_its_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    planted = importlib.import_module("planted")
    assert planted.misplaced() == []
    names = [fault.what for fault in planted.FAULTS]
    assert len(set(names)) == len(names)
    for fault in planted.FAULTS:
        for test in fault.tests.split():
            file, _, name = test.partition("::")
            assert (ROOT / file).is_file(), fault.what
            assert not name or f"def {name.split('[')[0]}(" in (ROOT / file).read_text(), test

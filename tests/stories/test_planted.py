"""Every planted fault still has its line, and a test that is there: a fault that is planted nowhere
is noticed by nobody."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    return importlib.import_module("planted")


def test_each_fault_has_its_line_and_its_tests(planted: Any) -> None:
    assert planted.misplaced() == []
    names = [fault.what for fault in planted.FAULTS]
    assert len(set(names)) == len(names) >= 60
    for fault in planted.FAULTS:
        for test in fault.tests.split():
            file, _, name = test.partition("::")
            assert (ROOT / file).is_file(), fault.what
            assert not name or f"def {name.split('[')[0]}(" in (ROOT / file).read_text(), test


@pytest.mark.slow
def test_a_wrong_line_is_noticed_and_a_sound_one_is_not(planted: Any, tmp_path: Path) -> None:
    planted.copied(tmp_path)
    test = "tests/core/test_rounded.py"
    sign = next(fault for fault in planted.FAULTS if "sign of a zero" in fault.what)
    for fault, seen in ((sign, True), (sign._replace(instead=sign.line), False)):
        assert planted.noticed(fault._replace(tests=test), tmp_path)[0] is seen

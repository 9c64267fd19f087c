"""What a failing test prints beside its traceback, and the order of the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import dealt

pytestmark = pytest.mark.slow

CONFTEST = Path(__file__).with_name("conftest.py")
LAWS = '''"""Laws of every sum of two numbers."""


def test_a_sum_is_commutative():
    """The order of two numbers does not move their sum."""
    assert 1 + 2 == 4


def test_a_sum_is_finite():
    """A sum of two finite numbers is finite."""
'''


def test_a_failed_law_is_printed_and_one_that_holds_is_not(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
    (tmp_path / "test_sums.py").write_text(LAWS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    heading = next(place for place, line in enumerate(lines) if "what this test states" in line)
    assert lines[heading + 1] == "Laws of every sum of two numbers."
    assert lines[heading + 3] == "The order of two numbers does not move their sum."
    assert "finite" not in "".join(lines[heading:])


def test_every_worker_begins_with_slow_tests_and_no_test_is_lost() -> None:
    slow: Any = [f"slow {number}" for number in range(5)]
    fast: Any = [f"fast {number}" for number in range(9)]
    for workers in (1, 2, 3):
        order: Any = dealt(slow, fast, workers)
        assert sorted(order) == sorted(slow + fast)
        starts = [name for name, before in zip(order, ["fast", *order], strict=False)
                  if name[:4] == "slow" and before[:4] == "fast"]  # fmt: skip
        assert len(starts) == workers

"""What a failing test prints beside its traceback, which tests are run, and their order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import dealt, new

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


PAIRS = """
import pytest

@pytest.mark.diagonal(always=("a",))
@pytest.mark.parametrize("letter", "abc")
@pytest.mark.parametrize(("number", "square"), [(n, n * n) for n in range(5)])
def test_pairs(letter, number, square):
    pass

@pytest.mark.parametrize("letter", "abc")
@pytest.mark.parametrize("number", range(5))
def test_all(letter, number):
    pass
"""


def collected(folder: Path, argument: str, **told: str) -> list[str]:
    """The names of the cases that pytest would run."""
    environment = {key: text for key, text in os.environ.items() if key != "NACRE_ALL"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", argument,
         "-o", "addopts=-q", "-W", "ignore"],
        cwd=folder, env=environment | told, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [line.split("::")[1] for line in done.stdout.splitlines() if "::" in line]


def test_a_diagonal_meets_every_value_and_all_is_all(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
    (tmp_path / "test_pairs.py").write_text(PAIRS)
    found = collected(tmp_path, "test_pairs.py")
    pairs = {name.removeprefix("test_pairs")[1:-1] for name in found if "pairs" in name}
    assert len(found) == len(pairs) + 15, "what is not marked is whole"
    assert {f"{n}-{n * n}-a" for n in range(5)} <= pairs
    others = {name for name in pairs if not name.endswith("a")}
    assert {name[-1] for name in others} == {"b", "c"}
    assert len(others) in (3, 4), "one letter for each number, of which a is met by all"
    assert len(collected(tmp_path, "test_pairs.py", NACRE_ALL="1")) == 30
    assert len(collected(tmp_path, "test_pairs.py::test_pairs")) == 15, "asked for by name"


def test_a_case_is_new_where_one_of_its_values_is(request: pytest.FixtureRequest) -> None:
    """Coverage is measured in such cases: this one has been met once it was asked about."""
    item: Any = request.node
    new(item)
    assert not new(item)


def test_every_worker_begins_with_slow_tests_and_no_test_is_lost() -> None:
    slow: Any = [f"slow {number}" for number in range(5)]
    fast: Any = [f"fast {number}" for number in range(9)]
    for workers in (1, 2, 3):
        order: Any = dealt(slow, fast, workers)
        assert sorted(order) == sorted(slow + fast)
        starts = [name for name, before in zip(order, ["fast", *order], strict=False)
                  if name[:4] == "slow" and before[:4] == "fast"]  # fmt: skip
        assert len(starts) == workers

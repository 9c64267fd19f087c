"""What every test has in common: a failed law says which it is, and slow tests come first."""

from __future__ import annotations

import inspect
import os
from collections.abc import Generator
from pathlib import Path

import pytest

_MEASURED = (
    "core", "gradient_clipping", "fine_tuning", "federated_learning", "differential_privacy",
    "adversarial_training", "laws", "oracles", "statistics", "ledger",
)  # fmt: skip
_MEASURED_THOUGH_SLOW = ("test_taped_sums.py",)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the docstrings of a failed test and of its file, so that a reader learns whether a law
    is broken, which one, and for which members of its list it has to hold."""
    report = yield
    law = stated(item)
    if report.failed and call.when == "call" and law:
        report.sections.insert(0, ("what this test states", law))
    return report


def stated(item: pytest.Item) -> str:
    """The docstring of a test's file and its own, the latter last; "" where there is neither."""
    if not isinstance(item, pytest.Function):
        return ""
    found = (inspect.getdoc(item.module), inspect.getdoc(item.function))
    return "\n\n".join(text for text in found if text)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Coverage is measured where it is asked for; where several processes share the tests, none is
    left with a long one at the end."""
    for item in items:
        if not measured(item):
            item.add_marker("no_cover")
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        fast = [item for item in items if not item.get_closest_marker("slow")]
        items[:] = dealt(slow, fast, int(workers))


def measured(item: pytest.Item) -> bool:
    """Whether a test counts for the coverage that `scripts/check` asks of the core and of the five
    techniques: their own tests and laws do. Whole runs would show little more of them, and slow
    tests take half as long again while each of their lines is noted."""
    folders = [Path(__file__).parent / name for name in _MEASURED]
    if not any(folder in item.path.parents for folder in folders):
        return False
    return item.path.name in _MEASURED_THOUGH_SLOW or not item.get_closest_marker("slow")


def dealt(slow: list[pytest.Item], fast: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Each worker begins with one stretch of the list: of the slow tests, then of the others."""
    order: list[pytest.Item] = []
    for number in range(workers):
        for kind in (slow, fast):
            start, stop = (len(kind) * end // workers for end in (number, number + 1))
            order += kind[start:stop]
    return order

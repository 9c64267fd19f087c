"""What every test has in common: a failed law says which it is, slow tests come first, and coverage
is measured where it counts."""

from __future__ import annotations

import gc
import importlib
import inspect
import os
from collections.abc import Generator
from pathlib import Path

import coverage
import pytest

_PACKAGE = Path(__file__).parents[1] / "nacre"
_COUNTED = (
    "core", "gradient_clipping", "fine_tuning", "federated_learning", "differential_privacy",
    "adversarial_training",
)  # fmt: skip
_MEASURED = tuple(
    [f"tests/{name}/" for name in (*_COUNTED, "laws", "oracles", "statistics", "ledger")]
    + [f"nacre/{name}/" for name in _COUNTED]
)
_MEASURED_THOUGH_SLOW = ("tests/gradient_clipping/", "tests/laws/")
_TOO_SLOW = "tests/laws/test_gradient_sums.py"  # what it runs, the sums of the tape run too
_tracer: list[coverage.Coverage] = []  # pytest-cov's, while it is stopped


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


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Where coverage is asked for, it is measured while the measured folders are imported, and then
    in some tests alone: collecting the others takes twice as long while each line is noted."""
    if tracer := coverage.Coverage.current():
        for folder in _COUNTED:
            for path in sorted((_PACKAGE / folder).rglob("*.py")):
                parts = path.relative_to(_PACKAGE.parent).with_suffix("").parts
                importlib.import_module(".".join(parts).removesuffix(".__init__"))
        tracer.stop()
        _tracer.append(tracer)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Coverage is measured in the tests that count for it."""
    if not (_tracer and measured(item)):
        return (yield)
    _tracer[0].start()
    try:
        return (yield)
    finally:
        _tracer[0].stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the tests, none is left with a long one at the end."""
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        fast = [item for item in items if not item.get_closest_marker("slow")]
        items[:] = dealt(slow, fast, int(workers))


def pytest_collection_finish() -> None:
    """What was imported stays to the end: the garbage collector need not look at it again."""
    gc.freeze()


def measured(item: pytest.Item) -> bool:
    """Whether a test counts for the coverage that `scripts/check` asks of the core and of the five
    techniques: their own tests and laws do. Whole runs would show little more of them, and slow
    tests take half as long again while each of their lines is noted."""
    if not item.nodeid.startswith(_MEASURED):
        return False
    if item.nodeid.startswith(_MEASURED_THOUGH_SLOW):
        return not item.nodeid.startswith(_TOO_SLOW)
    return not item.get_closest_marker("slow")


def dealt(slow: list[pytest.Item], fast: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Each worker begins with one stretch of the list: of the slow tests, then of the others."""
    order: list[pytest.Item] = []
    for number in range(workers):
        for kind in (slow, fast):
            start, stop = (len(kind) * end // workers for end in (number, number + 1))
            order += kind[start:stop]
    return order

"""What every test has in common: a failed law says which it is, slow tests come first, a law over
pairs meets each of both lists rather than every pair, and coverage is measured where it counts."""

from __future__ import annotations

import gc
import importlib
import inspect
import os
import zlib
from collections.abc import Generator, Sequence
from pathlib import Path

import coverage
import pytest
from hypothesis import HealthCheck, settings

ALL = os.environ.get("NACRE_ALL") == "1"
"""Whether every pair and as many random cases as ever are asked for: `make test ALL=1`."""

# No drawn case is ever too slow: a busy machine is no fault of what is tested.
settings.register_profile(
    "patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")

_PACKAGE = Path(__file__).parents[1] / "nacre"
_COUNTED = (
    "core", "gradient_clipping", "fine_tuning", "federated_learning", "differential_privacy",
    "adversarial_training",
)  # fmt: skip
_MEASURED = tuple(
    [f"tests/{name}/" for name in (*_COUNTED, "laws", "oracles", "statistics", "ledger", "across")]
    + [f"nacre/{name}/" for name in _COUNTED]
)
_MEASURED_THOUGH_SLOW = ("tests/gradient_clipping/", "tests/laws/")
# What the first runs, the sums of the tape run too; the second plans more than it computes.
_TOO_SLOW = ("tests/laws/test_gradient_sums.py", "tests/laws/test_execution.py")
_tracer: list[coverage.Coverage] = []  # pytest-cov's, while it is stopped
_met: set[tuple[str, object]] = set()  # by file: tests and values of their parameters


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
    """Coverage is measured in the tests that count for it, and of many cases of one test in those
    that bring something new."""
    if not (_tracer and measured(item) and new(item)):
        return (yield)
    _tracer[0].start()
    try:
        return (yield)
    finally:
        _tracer[0].stop()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `diagonal` are thinned, unless all is asked for or a test by its name. Where
    several processes share the tests, none is left with a long one at the end."""
    if not ALL and not any("::" in argument for argument in config.args):
        tests: dict[str, list[pytest.Item]] = {}
        for item in items:
            tests.setdefault(_function(item), []).append(item)
        taken = {case for cases in tests.values() for case in run(cases)}
        config.hook.pytest_deselected(items=[item for item in items if item not in taken])
        items[:] = [item for item in items if item in taken]
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        fast = [item for item in items if not item.get_closest_marker("slow")]
        items[:] = dealt(slow, fast, int(workers))


def pytest_collection_finish() -> None:
    """What was imported stays to the end: the garbage collector need not look at it again, and
    seldom at what the tests leave."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def measured(item: pytest.Item) -> bool:
    """Whether a test counts for the coverage that `scripts/check` asks of the core and of the five
    techniques: their own tests and laws do. Whole runs would show little more of them, and slow
    tests take half as long again while each of their lines is noted."""
    if not item.nodeid.startswith(_MEASURED):
        return False
    if item.nodeid.startswith(_MEASURED_THOUGH_SLOW):
        return not item.nodeid.startswith(_TOO_SLOW)
    return not item.get_closest_marker("slow")


def new(item: pytest.Item) -> bool:
    """Whether a case is the first of its test, or has a parameter of a value that no case of its
    file had before it in this process. A law that runs one network under three sums takes half as
    long again while each of its lines is noted, and shows no more of them."""
    values = ((name, id(value)) for name, value in _parameters(item).items())
    brought = {(item.nodeid.split("::")[0], thing) for thing in (_function(item), *values)}
    fresh = not brought <= _met
    _met.update(brought)
    return fresh


def run(cases: Sequence[pytest.Item]) -> Sequence[pytest.Item]:
    """Of one test's cases those that are run where not all are asked for: all, unless it is marked
    `diagonal`. Such a test meets each value of each of its parameters once at least: the n-th of
    the longest list with the n-th of each other, which begin again at their end. With which they
    begin hangs on the test's name, so that one value is not met by the same in every test. A case
    with a value that the mark names (`always=…`) is run as well.
    """
    mark = cases[0].get_closest_marker("diagonal")
    if mark is None:
        return cases
    kept = mark.kwargs.get("always", ())
    table = [_parameters(case) for case in cases]
    axes: dict[tuple[int, ...], int] = {}  # numbers of a parameter's values, and how many there are
    for name in table[0]:
        column = [id(row[name]) for row in table]
        first = list(dict.fromkeys(column))
        axes[tuple(map(first.index, column))] = len(first)
    longest = max(axes, key=axes.__getitem__)
    turn = zlib.crc32(_function(cases[0]).encode())
    return [
        case
        for number, case in enumerate(cases)
        if any(type(one) is type(v) and one == v for one in kept for v in table[number].values())
        or all(
            axis is longest or axis[number] == (longest[number] + turn) % size
            for axis, size in axes.items()
        )
    ]


def _function(item: pytest.Item) -> str:
    """File and name of the test that a case is of."""
    return item.nodeid.split("[")[0]


def _parameters(item: pytest.Item) -> dict[str, object]:
    """The values of a case's parameters, by name; {} where it has none."""
    callspec = getattr(item, "callspec", None)
    return {} if callspec is None else callspec.params


def dealt(slow: list[pytest.Item], fast: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Each worker begins with one stretch of the list: of the slow tests, then of the others."""
    order: list[pytest.Item] = []
    for number in range(workers):
        for kind in (slow, fast):
            start, stop = (len(kind) * end // workers for end in (number, number + 1))
            order += kind[start:stop]
    return order

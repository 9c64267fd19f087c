"""What every test has in common: a law that fails says which law it is."""

from __future__ import annotations

import inspect
from collections.abc import Generator

import pytest


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

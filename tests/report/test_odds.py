"""What epsilon allows: the bound is met by randomized response, and the words follow it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from nacre.report import gather
from nacre.report.page import render
from nacre.report.sections.odds import detected, sure
from tests.report import sample
from tests.report.test_page import Walk


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0, 4.0, 8.0])
def test_randomized_response_meets_both_bounds(epsilon: float) -> None:
    """It tells the truth with probability e^epsilon / (1 + e^epsilon) and is epsilon-DP (Warner
    1965), so no smaller bound is true; from even odds its answer makes as sure."""
    truth = math.exp(epsilon) / (1 + math.exp(epsilon))
    assert detected(epsilon, 0.0, 1 - truth) == pytest.approx(truth)
    assert sure(epsilon) == pytest.approx(truth)


@pytest.mark.parametrize("epsilon", [0.0, 4.0, 1e6])
@pytest.mark.parametrize("slack", [0.0, 1e-5, 0.3])
def test_the_share_lies_between_the_rate_and_one(epsilon: float, slack: float) -> None:
    for rate in (0.0, 0.01, 0.5, 1.0):
        assert rate <= detected(epsilon, slack, rate) + 1e-12 <= 1 + 1e-9


@pytest.mark.parametrize(
    ("epsilon", "with_it", "limit"),
    [(0.5, "at most 2 out of 100", "about 62% sure. Epsilon 0.50 allows that, and epsilon 4"),
     (4.0, "at most 55 out of 100", "about 98% sure. Epsilon 4.00 allows that, and epsilon 1"),
     (8.0, "at most 100 out of 100", "more than 99% sure")],
)  # fmt: skip
def test_the_words(tmp_path: Path, epsilon: float, with_it: str, limit: str) -> None:
    plan = sample.plan()
    plan["parties"] = [sample.party("all rows", 313, epsilon)]
    text = Walk(render(gather(sample.write(tmp_path / "run", plan=plan)))).text
    assert "with one row left out, 1 out of 100 possible outcomes" in text
    assert with_it in text and limit in text

"""The accuracy from noised votes: against Wilson's interval, and its coverage on made-up votes."""

from __future__ import annotations

import numpy as np
import pytest

from nacre.figures.intervals import wilson
from nacre.figures.protected import expected_accuracy, protected_accuracy


@pytest.mark.parametrize(("right", "wrong"), [(0, 30), (20, 10), (30, 0)])
def test_without_noise_and_with_every_unit_it_is_wilsons(right: int, wrong: int) -> None:
    found = protected_accuracy([[right, wrong], [0, 0]], draws=1, rate=1.0, deviation=0.0)
    assert found["value"] == right / 30
    assert [found["low"], found["high"]] == pytest.approx(wilson(right, 30), abs=1e-9)


@pytest.mark.parametrize(
    ("units", "classes", "draws", "rate", "deviation"),
    [(500, 2, 1, 1.0, 4.0), (400, 4, 10, 0.1, 1.0), (2000, 2, 5, 0.05, 1.5), (300, 3, 8, 0.5, 0.5)],
)
def test_the_interval_covers(
    units: int, classes: int, draws: int, rate: float, deviation: float
) -> None:
    """Of 400 made-up runs 95 % are covered: below 91 % once in ten thousand. Each time the units
    are drawn from a population, then the draws, then the noise."""
    rng = np.random.default_rng(1)
    share, held, narrower = 0.9, 0, 0
    for _ in range(400):
        right = rng.random(units) < share
        label = rng.integers(0, classes, units)
        answer = np.where(right, label, (label + 1) % classes)
        times = rng.binomial(draws, rate, units)
        votes = np.zeros((classes, classes))
        np.add.at(votes, (label, answer), times)
        votes += rng.normal(0, deviation * draws**0.5, votes.shape)
        found = protected_accuracy(votes.tolist(), draws=draws, rate=rate, deviation=deviation)
        blind = protected_accuracy(votes.tolist(), draws=1, rate=1.0, deviation=0.0)
        assert found["low"] is not None and found["high"] is not None
        held += found["low"] <= share <= found["high"]
        narrower += blind["low"] is not None and not blind["low"] <= share <= blind["high"]
    assert held >= 364
    assert narrower > 400 - held  # an interval that counts rows alone is wrong more often


def test_a_foretold_interval_is_that_of_even_votes() -> None:
    given = {"draws": 4, "rate": 0.25, "deviation": 1.5}
    votes = [[90, 5, 5], [5, 90, 5], [5, 5, 90]]
    foretold = expected_accuracy(300, 3, **given, share=0.9)
    assert foretold == pytest.approx(protected_accuracy(votes, **given))
    assert expected_accuracy(10, 3, **given, share=0.9)["low"] is None


def test_votes_that_drown_in_noise_are_undefined() -> None:
    found = protected_accuracy([[3.0, -2.0], [1.0, 2.0]], draws=4, rate=0.1, deviation=5.0)
    assert found["value"] is None and "do not stand out of the noise" in str(found["why"])

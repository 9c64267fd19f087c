"""What holds for every aggregate: order does not matter, and how many liars it takes to win."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.core.tensors import norm, subtract
from nacre.core.types import BoundedSum
from nacre.differential_privacy.noise.independent import Gaussian
from nacre.federated_learning import AGGREGATES, MeanAggregate, Median

aggregates = pytest.mark.parametrize("kind", AGGREGATES)
numbers = st.floats(-100, 100, width=32)
columns = st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=7)


def _contributions(rows):
    return [{"a": torch.tensor(row[:2]), "b": torch.tensor(row[2:])} for row in rows]


def _aggregate(kind, contributions, expected=None):
    expected = len(contributions) if expected is None else expected
    total = kind().total(contributions, expected)
    return {name: value / expected for name, value in total.items()}


@pytest.mark.slow
@aggregates
@given(columns, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_parties_does_not_matter(kind, rows, random):
    given_order = _aggregate(kind, _contributions(rows))
    random.shuffle(rows)
    assert norm(subtract(given_order, _aggregate(kind, _contributions(rows)))) <= 1e-4


@aggregates
def test_equal_contributions_aggregate_to_themselves(kind):
    one = {"a": torch.tensor([3.0, -7.0])}
    for count in (1, 2, 5):
        assert torch.allclose(_aggregate(kind, [one] * count)["a"], one["a"])


@aggregates
def test_names_and_shapes_stay_in_order(kind):
    one = {"z": torch.zeros(2, 3), "a": torch.zeros(())}
    total = kind().total([one, one], 2.0)
    assert [(name, value.shape) for name, value in total.items()] == [
        ("z", torch.Size([2, 3])),
        ("a", torch.Size([])),
    ]


@given(columns)
@settings(max_examples=30, deadline=None)
def test_the_mean_is_the_arithmetic_mean(rows):
    mean = _aggregate(MeanAggregate, _contributions(rows))
    assert torch.allclose(torch.cat([mean["a"], mean["b"]]), torch.tensor(rows).mean(0), atol=1e-4)


@given(columns, st.floats(0.5, 50))
@settings(max_examples=30, deadline=None)
def test_the_median_is_numpys_whatever_is_expected(rows, expected):
    import numpy as np

    median = _aggregate(Median, _contributions(rows), expected)
    found = torch.cat([median["a"], median["b"]]).numpy()
    assert np.allclose(found, np.median(np.array(rows), axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@given(st.integers(1, 6), st.lists(numbers, min_size=13, max_size=13), st.data())
@settings(max_examples=50, deadline=None)
def test_fewer_than_half_cannot_move_the_median_out_of_the_honest_range(liars, values, data):
    honest = values[: liars + 1]
    lies = data.draw(
        st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=liars, max_size=liars)
    )
    contributions = [{"a": torch.tensor([value])} for value in honest + lies]
    median = float(_aggregate(Median, contributions, 1.0)["a"])
    slack = 1e-5 * max(1.0, *(abs(value) for value in honest))
    assert min(honest) - slack <= median <= max(honest) + slack


def test_half_of_them_can_move_the_median_and_one_the_mean():
    def contributions(*values):
        return [{"a": torch.tensor([value])} for value in values]

    assert _aggregate(Median, contributions(0.0, 0.0, 1e6, 1e6))["a"] > 1e5
    assert _aggregate(MeanAggregate, contributions(0.0, 0.0, 0.0, 1e6))["a"] > 1e5


def test_large_numbers_do_not_overflow_the_median():
    contributions = [{"a": torch.tensor([3e38])}] * 2
    assert math.isfinite(float(_aggregate(Median, contributions, 1.0)["a"]))


@aggregates
def test_a_finite_bound_is_kept_under_neighbours(kind):
    bound = kind().bound(1.0)
    if math.isinf(bound):
        from nacre.core.errors import Unbounded
        from nacre.core.random import Source

        with pytest.raises(Unbounded):
            total = BoundedSum({"a": torch.zeros(1)}, bound)
            Gaussian(multiplier=1.0).add(total, None, Source(bytes(32)), "add_or_remove")
        return
    stream = torch.Generator().manual_seed(0)
    units = [
        torch.nn.functional.normalize(torch.randn(4, generator=stream), dim=0) for _ in "12345"
    ]
    contributions = [{"a": unit} for unit in units]
    whole, without = (kind().total(c, 5.0) for c in (contributions, contributions[1:]))
    assert norm(subtract(whole, without)) <= bound + 1e-6

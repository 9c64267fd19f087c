"""Private numbers about a table. Random checks fail once in about 10**6 runs each."""

from __future__ import annotations

import math
from typing import Any

import dp_accounting as dp
import numpy as np
import pandas as pd
import pytest
from opendp.mod import GLOBAL_FEATURES

from nacre.core.errors import DataError
from nacre.core.random import Source
from nacre.differential_privacy.accounting.price import epsilon
from nacre.differential_privacy.accounting.rdp import zcdp_rho
from nacre.differential_privacy.queries import Count, Histogram, Mean, QueryOption, Sum
from nacre.statistics.answers import Answer, answer, query_event

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("searched_once")]

HUGE = 1e6  # an epsilon at which the noise is too small to see
TABLE = pd.DataFrame(
    {
        "who": ["a", "a", "a", "b", "c", None],
        "age": [10.0, 20.0, 30.0, 200.0, math.inf, math.nan],
        "visits": [1, 2, 3, 4, 5, 6],
        "ward": ["east", "east", "west", "north", None, "west"],
    }
)


def clear(query: type[Any], **fields: Any) -> Answer:
    """The answer with next to no noise."""
    return answer(TABLE, query(name="q", epsilon=HUGE, **fields), Source(bytes(32)))


def test_count() -> None:
    assert clear(Count).value == pytest.approx(6, abs=0.01)
    assert clear(Count, unit="who").value == pytest.approx(3, abs=0.01), "nobody: left out"
    assert clear(Count, unit="who", rows_per_unit=2).value == pytest.approx(4, abs=0.01)


def test_sum_clamps_and_leaves_out_what_is_missing() -> None:
    assert clear(Sum, column="age", low=0, high=100).value == pytest.approx(260, abs=0.01)
    assert clear(Sum, column="age", low=15, high=25).value == pytest.approx(110, abs=0.01)
    assert clear(Sum, column="age", low=-3, high=-2).value == pytest.approx(-10, abs=0.01)
    assert clear(Sum, column="visits", low=0, high=9).value == pytest.approx(21, abs=0.01)


def test_one_persons_rows_are_kept_by_the_key() -> None:
    query = Sum(name="q", epsilon=HUGE, unit="who", column="visits", low=0, high=9)
    found = {round(answer(TABLE, query, Source(bytes([k]) * 32)).value) for k in range(20)}
    assert found == {10, 11, 12}, "one of a's three rows, whichever the key says"
    same = {round(answer(TABLE, query, Source(bytes(32))).value) for _ in range(3)}
    assert len(same) == 1
    assert round(answer(TABLE, query).value) in found


def test_a_persons_choice_does_not_depend_on_others() -> None:
    query = Sum(name="q", epsilon=HUGE, unit="who", column="visits", low=0, high=9)
    alone = answer(TABLE[TABLE["who"] == "a"], query, Source(bytes(32))).value
    assert answer(TABLE, query, Source(bytes(32))).value == pytest.approx(alone + 9, abs=0.01)


def test_a_missing_value_renames_nobody_else() -> None:
    query = Histogram(name="q", epsilon=HUGE, column="ward", categories=("1", "2"))
    for rows in ([1, 2, 2], [1, 2, 2, None]):  # of which pandas makes whole numbers, and floats
        found = answer(pd.DataFrame({"ward": rows}), query)
        assert found.values == pytest.approx((1, 2, 0), abs=0.01)
        by = Count(name="q", epsilon=HUGE, by="ward", groups=("1", "2"))
        assert answer(pd.DataFrame({"ward": rows}), by).values == pytest.approx((1, 2), abs=0.01)


def test_a_row_counts_once() -> None:
    twice = pd.DataFrame([[1.0, 1.0]], columns=["age", "age"])
    with pytest.raises(DataError, match="'age' twice"):
        answer(twice, Sum(name="q", epsilon=1.0, column="age", low=0, high=1))


def test_mean() -> None:
    assert clear(Mean, column="age", low=0, high=100).value == pytest.approx(52, abs=0.01)
    # A public size is the divisor whatever the rows: the middle plus (260 - 5 * 50) / 10.
    assert clear(Mean, column="age", low=0, high=100, size=10).value == pytest.approx(51, abs=0.01)
    empty = answer(
        TABLE[:0], Mean(name="q", epsilon=1.0, column="age", low=0, high=1), Source(bytes(32))
    )
    assert 0 <= empty.low[0] <= empty.value <= empty.high[0] <= 1


def test_histogram() -> None:
    by_age = clear(Histogram, column="age", edges=(0.0, 20.0, 50.0))
    assert by_age.labels == ("0 to 20", "20 to 50")
    assert by_age.values == pytest.approx((1, 4), abs=0.01), "outliers go to the last bar"
    by_ward = clear(Histogram, column="ward", categories=("east", "west"))
    assert by_ward.labels == ("east", "west", "other")
    assert by_ward.values == pytest.approx((2, 2, 1), abs=0.01)
    with pytest.raises(ValueError, match="3 values"):
        _ = by_ward.value


def test_an_undeclared_category_adds_no_label() -> None:
    before = clear(Histogram, column="ward", categories=("east",))
    assert before.labels == ("east", "other")
    assert before.values == pytest.approx((2, 3), abs=0.01)


@pytest.mark.parametrize(
    ("query", "scale", "gaussian"),
    [
        (Count(name="q", epsilon=0.5), 2.0, False),
        (Count(name="q", epsilon=0.5, unit="who", rows_per_unit=3), 6.0, False),
        (Sum(name="q", epsilon=2.0, column="age", low=-50, high=20), 25.0, False),
        (Histogram(name="q", epsilon=0.5, column="ward", categories=("east",)), 2.0, False),
        (Count(name="q", epsilon=1.0, delta=1e-6), None, True),
        (Sum(name="q", epsilon=1.0, delta=1e-6, column="age", low=0, high=1), None, True),
    ],
)
def test_the_noise_has_the_right_scale(
    query: QueryOption, scale: float | None, gaussian: bool
) -> None:
    """150 answers; the mean square of a Laplace is 2 b**2 with deviation 20**0.5 b**2 of one."""
    answers = [answer(TABLE[:0], query) for _ in range(150)]
    stated = answers[0].scale
    if scale is not None:
        assert stated == pytest.approx(scale, rel=1e-6)
    square = float(np.mean([np.square(a.values).mean() for a in answers])) / stated**2
    expected, spread = (1.0, math.sqrt(2)) if gaussian else (2.0, math.sqrt(20))
    discrete = 0.6 / stated**2 if isinstance(query, Count | Histogram) else 0.0
    assert abs(square - expected) < 4.9 * spread / math.sqrt(150) + discrete
    margin = answers[0].high[0] - answers[0].values[0]
    assert margin == pytest.approx(stated * (1.959964 if gaussian else math.log(20)), rel=1e-6)


def test_gaussian_scale_is_the_zcdp_scale() -> None:
    """rho = (rows * reach)**2 / (2 deviation**2), and rho's curve stays within the budget."""
    query = Sum(
        name="q", epsilon=1.0, delta=1e-6, unit="who", rows_per_unit=3, column="age", low=0, high=4
    )
    rho = zcdp_rho(query_event(query))
    assert answer(TABLE, query).scale == pytest.approx(3 * 4 / math.sqrt(2 * rho), rel=1e-6)
    assert 1 - 1e-6 < epsilon(query_event(query), 1e-6).epsilon <= 1.0


def test_events_are_known_before_a_row_is_read() -> None:
    mean = Mean(name="q", epsilon=1.0, column="age", low=0, high=1)
    event = query_event(mean)
    assert event.count == 2 and isinstance(event.event, dp.RandomizedResponseDpEvent)
    assert epsilon(event, 1e-12, "pld").epsilon == pytest.approx(1.0, rel=2e-3)
    assert answer(TABLE, mean).event == event
    known = Mean(name="q", epsilon=1.0, column="age", low=0, high=1, size=6)
    assert query_event(known).count == 1
    gaussian = Mean(name="q", epsilon=1.0, delta=1e-6, column="age", low=0, high=1)
    assert epsilon(query_event(gaussian), 1e-6).epsilon <= 1.0


def test_intervals_cover() -> None:
    """100 means, 95 % stated: fewer than 82 hits happen once in 10**6 runs, if coverage holds."""
    table = pd.DataFrame({"x": np.linspace(0, 10, 400)})
    query = Mean(name="q", epsilon=0.5, column="x", low=0, high=10)
    answers = [answer(table, query) for _ in range(100)]
    assert sum(a.low[0] <= 5.0 <= a.high[0] for a in answers) >= 82
    assert max(a.high[0] - a.low[0] for a in answers) < 4


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Count(name="q", epsilon=0.0), "epsilon=0.0"),
        (lambda: Count(name="q", epsilon=1.0, delta=1.0), "delta=1 "),
        (lambda: Count(name="q", epsilon=1.0, unit="who", rows_per_unit=0), "rows_per_unit=0"),
        (lambda: Count(name="q", epsilon=1.0, rows_per_unit=2), "needs `unit`"),
        (lambda: Sum(name="q", epsilon=1.0, column="x", low=1, high=1), "low=1"),
        (lambda: Mean(name="q", epsilon=1.0, column="x", low=0, high=math.inf), "high=inf"),
        (lambda: Mean(name="q", epsilon=1.0, column="x", low=1e308, high=1.7e308), "high=1.7e"),
        (lambda: Sum(name="q", epsilon=1.0, column="x", low=0, high=5e-324), "apart"),
        (lambda: Mean(name="q", epsilon=1.0, column="x", low=0, high=1, size=0), "size=0"),
        (lambda: Histogram(name="q", epsilon=1.0, column="x"), "either"),
        (lambda: Histogram(name="q", epsilon=1.0, column="x", edges=(1.0,)), "edges="),
        (lambda: Histogram(name="q", epsilon=1.0, column="x", edges=(2.0, 1.0)), "edges="),
        (lambda: Histogram(name="q", epsilon=1.0, column="x", categories=("a", "a")), "differ"),
    ],
)
def test_queries_check_their_values(make: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()


def test_refusals() -> None:
    with pytest.raises(DataError, match="no column 'height'"):
        clear(Sum, column="height", low=0, high=1)
    with pytest.raises(DataError, match="not numbers"):
        clear(Sum, column="ward", low=0, high=1)
    with pytest.raises(ValueError, match="too small"):
        query_event(Count(name="q", epsilon=1e-9, delta=1e-20))


def test_a_large_delta_leaves_room_for_a_large_rho() -> None:
    event = query_event(Count(name="q", epsilon=1e-3, delta=0.01))
    assert zcdp_rho(event) > 1e-4
    assert epsilon(event, 0.01).epsilon <= 1e-3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epsilon": 1e-300}, "epsilon=1e-300 must be at least 1e-09"),
        ({"delta": 0.5}, "delta=0.5 must be at least 0 and at most 0.01"),
        ({"name": " "}, "name=' ' must be a name"),
    ],
)
def test_numbers_that_promise_nothing_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Count(**{"name": "q", "epsilon": 0.1, **given})


def test_opendp_features_are_off_afterwards() -> None:
    before = set(GLOBAL_FEATURES)
    clear(Count)
    assert before == GLOBAL_FEATURES

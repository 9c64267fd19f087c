"""Keys that are private, and choices: their laws, their prices, and what is refused."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path

import dp_accounting as dp
import pandas as pd
import pytest
from scipy import stats

from nacre.audit.bounds import clopper_pearson
from nacre.core.errors import NacreError, Refusal, UnsupportedEvent
from nacre.differential_privacy.accounting.price import epsilon
from nacre.differential_privacy.accounting.rdp import rdp_curve, zcdp_rho
from nacre.differential_privacy.describe import describe_event
from nacre.differential_privacy.event_types import ApproximateDpEvent
from nacre.differential_privacy.group_privacy import group_event
from nacre.differential_privacy.leaves import pure_event
from nacre.differential_privacy.queries import Choice, Contingency, Count, Histogram, Keys, Mean
from nacre.ledger import Ledger
from nacre.statistics.choosing import choice_event, choose, chooser, shown_keys, threshold
from nacre.statistics.noisy_numbers import rho
from nacre.statistics.query_file import Queries
from nacre.statistics.release import release

pytestmark = pytest.mark.slow

TRIES = 500


def _reaches(at: int, scale: float) -> float:
    """P(Z >= at) of the discrete Laplace law, for at >= 1."""
    p = math.exp(-1 / scale)
    return p**at / (1 + p)


def _partitions(rows: int, most: int | None = None) -> list[list[int]]:
    most = rows if most is None else most
    if rows == 0:
        return [[]]
    return [
        [first, *rest]
        for first in range(min(rows, most), 0, -1)
        for rest in _partitions(rows - first, first)
    ]


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5, 20.0])
@pytest.mark.parametrize("delta", [0.1, 1e-3, 1e-8])
def test_the_threshold_is_the_least_that_covers_each_way_to_spread_the_rows(
    rows: int, scale: float, delta: float
) -> None:
    def worst(at: int) -> float:
        return max(sum(_reaches(at - c, scale) for c in parts) for parts in _partitions(rows))

    at = threshold(scale, delta, rows)
    assert worst(at) <= delta * (1 + 1e-9)
    assert at == rows + 1 or worst(at - 1) > delta


@pytest.mark.parametrize("rows", [1, 3])
def test_a_key_of_one_person_is_shown_as_seldom_as_stated(rows: int) -> None:
    """One threshold less, which OpenDP's own formula would take, fails this."""
    delta, common = 0.03, ["a"] * 60
    own = ["x"] * rows if rows > 1 else ["x"]
    shown = sum("x" in shown_keys(common + own, 1.0, delta, rows)[0] for _ in range(TRIES))
    low, _ = clopper_pearson(shown, TRIES, 0.99)
    assert low <= delta
    scale, at = shown_keys(common, 1.0, delta, rows)[1:]
    assert scale == pytest.approx(rows / 1.0, rel=1e-3)
    stated = _reaches(at - rows, scale)
    assert abs(shown / TRIES - stated) < 4 * math.sqrt(stated / TRIES)


def test_keys_are_counted_sorted_and_above_the_threshold() -> None:
    rows = ["b"] * 400 + ["a"] * 300 + ["rare"]
    found, scale, at = shown_keys(rows, 1.0, 1e-6, 1)
    assert list(found) == ["a", "b"] and min(found.values()) >= at
    assert abs(found["a"] - 300) < 20 * scale and abs(found["b"] - 400) < 20 * scale
    assert shown_keys([], 1.0, 1e-6, 1)[0] == {}


def _permute_and_flip(scores: list[int], scale: float) -> list[float]:
    """McKenna & Sheldon 2020: candidates in random order, the first whose coin falls right."""
    coins = [math.exp((score - max(scores)) / scale) for score in scores]
    orders = list(itertools.permutations(range(len(scores))))
    law = [0.0] * len(scores)
    for order in orders:
        left = 1 / len(orders)
        for place in order:
            law[place] += left * coins[place]
            left *= 1 - coins[place]
    return law


def _exponential(scores: list[int], scale: float) -> list[float]:
    weights = [math.exp((score - max(scores)) / scale) for score in scores]
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize(("rows", "monotonic"), [(1, True), (2, True), (1, False)])
@pytest.mark.parametrize("delta", [0.0, 1e-6])
def test_a_choice_tells_no_more_than_it_costs(rows: int, monotonic: bool, delta: float) -> None:
    """Draws follow the law of the mechanism with the scale that its theorem asks for, and in that
    law each outcome's ratio is bounded for neighbours that move the scores as far as they may.

    The chi-square of each 500 draws raises a false alarm about once in 1e6; half the scale, as
    for monotonic scores that are not, is missed at most once in 5000 times."""
    span = rows * (1 if monotonic else 2)  # what a person moves the difference of two scores by
    cost = math.sqrt(8 * rho(1.0, delta)) if delta else 1.0
    scale, law = span / cost, _exponential if delta else _permute_and_flip
    before = [3, 3, 3]
    after = [3 + rows, 3, 3] if monotonic else [3 + rows, 3 - rows, 3 - rows]
    for one, other in itertools.permutations((law(before, scale), law(after, scale))):
        for p, q in zip(one, other, strict=True):
            assert p <= math.exp(cost) * q * (1 + 1e-9) and cost <= 1
    chosen = chooser(1.0, delta, sensitivity=rows, monotonic=monotonic)
    apart = [0, 0, round(scale)]  # where a wrong scale shows most
    for scores in (before, after, apart):
        counts = Counter(chosen(scores) for _ in range(TRIES))
        expected = [TRIES * share for share in law(scores, scale)]
        seen = [counts[place] for place in range(3)]
        assert sum(seen) == TRIES
        assert stats.chisquare(seen, expected).pvalue > 1e-6
    assert _power(law(apart, scale), law(apart, scale / 2)) > 1 - 2e-4


def _power(stated: list[float], true: list[float]) -> float:
    """The chance that draws of the law `true` are found not to follow the law `stated`."""
    away = TRIES * sum((q - p) ** 2 / p for p, q in zip(stated, true, strict=True))
    return float(stats.ncx2.sf(stats.chi2.isf(1e-6, 2), 2, away))


def test_the_best_is_chosen_and_nonsense_is_not() -> None:
    assert choose([0, 500, 20], 1.0) == 1
    assert choose([0, 500, 20], 1.0, 1e-6, sensitivity=3) == 1
    with pytest.raises(ValueError, match="nothing to choose from"):
        choose([], 1.0)
    with pytest.raises(ValueError, match="sensitivity=0"):
        choose([1, 2], 1.0, sensitivity=0)
    with pytest.raises(ValueError, match=r"epsilon=0\.0"):
        choose([1, 2], 0.0)


def test_what_choices_and_keys_cost() -> None:
    assert choice_event(0.5) == pure_event(0.5)
    assert zcdp_rho(choice_event(0.5, 1e-6)) > 0
    event = ApproximateDpEvent(0.5, 1e-6)
    assert epsilon(event, 1e-5).epsilon <= 0.5 < epsilon(event, 1.1e-6).epsilon * 1.001
    assert epsilon(event, 1e-6).epsilon == math.inf
    twice = dp.SelfComposedDpEvent(event, 2)
    assert 0.9 < epsilon(twice, 3e-6).epsilon <= 1.001
    exact = epsilon(dp.SelfComposedDpEvent(pure_event(0.5), 2), 3e-6 - 2e-6).epsilon
    assert epsilon(twice, 3e-6).epsilon == pytest.approx(exact)
    assert describe_event(event) == "1 x a query with epsilon 0.5 and delta 1e-06"
    grouped = group_event(event, 2)
    assert isinstance(grouped, ApproximateDpEvent)
    assert grouped.epsilon == 1.0
    assert grouped.delta == pytest.approx(1e-6 * (1 + math.exp(0.5)))
    assert group_event(ApproximateDpEvent(800.0, 1e-6), 2).delta == 1.0  # type: ignore[attr-defined]
    for refusing in (rdp_curve, zcdp_rho):
        with pytest.raises(UnsupportedEvent, match="granted under `rule: pld`"):
            refusing(event)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_keys_keep_to_any_epsilon(rows: int) -> None:
    for number in range(1, 60):
        found, scale, at = shown_keys(["a"] * 3, number / 17, 1e-7, rows)
        assert scale * number / 17 == pytest.approx(rows) and "a" not in found and at > rows
    assert shown_keys(["a"], 1e-9, 1e-300, rows)[0] == {}


def _table() -> pd.DataFrame:
    towns = ["x"] * 200 + ["y"] * 150 + ["z"]
    return pd.DataFrame(
        {"town": towns, "age": [40.0] * 200 + [60.0] * 150 + [99.0], "who": range(351)}
    )


def _ledger(folder: Path, rule: str = "pld") -> Ledger:
    ledger = Ledger.open(folder / "privacy.db", create=True)
    ledger.grant("towns", "example", 3.0, 1e-5, rule)  # type: ignore[arg-type]
    return ledger


KEYS = Keys(name="towns", column="town", epsilon=1, delta=1e-6)


def test_groups_may_be_keys_that_were_found(tmp_path: Path) -> None:
    asked = [
        KEYS,
        Mean(name="age", column="age", low=0, high=100, by="town", groups_from="towns", epsilon=1),
        Choice(name="most", column="town", categories=("x", "y", "q"), epsilon=0.5),
    ]
    with _ledger(tmp_path) as ledger:
        found = release(_table(), asked, ledger=ledger, account="towns")
        spent = ledger.summary("towns").grants[0].epsilon_spent
    assert found["towns"].labels == ("x", "y") == found["age"].labels
    assert [round(v / 10) for v in found["age"].values] == [4, 6]
    assert found["most"].labels == ("x",) and found["most"].values == ()
    assert 2.0 < spent <= 2.5


def test_no_key_is_no_group(tmp_path: Path) -> None:
    asked = [KEYS, Count(name="n", by="town", groups_from="towns", epsilon=1)]
    few = pd.DataFrame({"town": ["x", "y", "z"]})
    with _ledger(tmp_path) as ledger:
        found = release(few, asked, ledger=ledger, account="towns")
    assert found["towns"].labels == () == found["n"].labels


def test_a_filter_has_no_room_for_keys(tmp_path: Path) -> None:
    with (
        _ledger(tmp_path, "rdp") as ledger,
        pytest.raises(UnsupportedEvent, match="granted under `rule: pld`"),
    ):
        release(_table(), [KEYS], ledger=ledger, account="towns")


def test_a_person_counts_once_however_many_rows(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"town": ["only"] * 500 + ["y"] * 300, "who": [0] * 500 + list(range(300))}
    )
    with Ledger.open(tmp_path / "privacy.db", create=True) as ledger:
        ledger.grant("towns", "group", 3.0, 1e-5, "pld")
        people = Keys(name="towns", column="town", epsilon=1, delta=1e-6, unit="who")
        found = release(table, [people], ledger=ledger, account="towns")
    assert found["towns"].labels == ("y",)


@pytest.mark.parametrize(
    ("queries", "said"),
    [
        (
            [Count(name="n", by="town", groups_from="towns", epsilon=1), KEYS],
            "no query of kind keys",
        ),
        ([KEYS, Count(name="n", by="age", groups_from="towns", epsilon=1)], "write `by: town`"),
        ([Count(name="n", by="town", groups_from="n2", epsilon=1)], "no query of kind keys"),
    ],
)
def test_groups_need_their_keys_before(queries: list[Count | Keys], said: str) -> None:
    with pytest.raises((ValueError, NacreError), match=said):
        Queries(queries=tuple(queries))


def test_wrong_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="epsilon=1e-300 must be at least 1e-09"):
        Count(name="n", epsilon=1e-300)
    with pytest.raises(ValueError, match="may not hold 'other'"):
        Histogram(name="h", column="c", categories=("a", "other"), epsilon=1)
    with pytest.raises(ValueError, match="may not hold 'other'"):
        Contingency(name="h", columns={"c": ("a", "other")}, epsilon=1)
    with pytest.raises(ValueError, match=r"delta=0\.0 must be above 0"):
        Keys(name="k", column="c", epsilon=1)
    with pytest.raises(ValueError, match="at least two"):
        Choice(name="k", column="c", epsilon=1, categories=("a",))
    with pytest.raises(ValueError, match="exclude each other"):
        Count(name="n", by="c", groups=("a",), groups_from="k", epsilon=1)
    with pytest.raises(ValueError, match="by and groups need each other"):
        Count(name="n", groups_from="k", epsilon=1)
    assert issubclass(UnsupportedEvent, Refusal)

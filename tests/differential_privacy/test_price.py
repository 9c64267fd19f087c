from __future__ import annotations

import json
import math
from pathlib import Path

import dp_accounting as dp
import pytest

from nacre.core.errors import Incompatible, UnsupportedEvent
from nacre.differential_privacy.accounting import cache, price
from nacre.differential_privacy.accounting.analytic import gaussian_epsilon
from nacre.differential_privacy.accounting.price import calibrate, epsilon, epsilon_by_step
from nacre.differential_privacy.accounting.rdp import ORDERS, rdp_curve
from nacre.differential_privacy.event_types import ApproximateDpEvent
from nacre.differential_privacy.leaves import pure_event

pytestmark = pytest.mark.slow

STEP = dp.PoissonSampledDpEvent(0.25, dp.GaussianDpEvent(2.0))
RUN = dp.SelfComposedDpEvent(STEP, 20)
DELTA = 1e-5


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NACRE_CACHE", str(tmp_path / "prices"))
    return tmp_path / "prices"


def repeated(steps: int) -> dp.DpEvent:
    return dp.SelfComposedDpEvent(STEP, steps)


def test_epsilon_by_step() -> None:
    for accountant in ("auto", "rdp"):
        points = epsilon_by_step(repeated, 20, DELTA, accountant, points=4)
        assert [step for step, _ in points] == [5, 10, 15, 20]
        values = [value for _, value in points]
        assert values == sorted(values)
        assert values[-1] == epsilon(RUN, DELTA, accountant).epsilon
    assert [step for step, _ in epsilon_by_step(repeated, 2, DELTA, points=5)] == [1, 2]


@pytest.mark.parametrize("call", [(0, 5), (5, 0)])
def test_epsilon_by_step_checks(call: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        epsilon_by_step(repeated, call[0], DELTA, points=call[1])


@pytest.mark.parametrize("delta", [0.0, 1.0, math.nan])
def test_delta_is_checked(delta: float) -> None:
    with pytest.raises(ValueError, match="delta="):
        epsilon(RUN, delta)
    with pytest.raises(ValueError, match="delta="):
        calibrate(dp.GaussianDpEvent, 1.0, delta)


def test_target_is_checked() -> None:
    with pytest.raises(ValueError, match="epsilon="):
        calibrate(dp.GaussianDpEvent, 0.0, DELTA)
    with pytest.raises(UnsupportedEvent, match="closed form"):
        epsilon(RUN, DELTA, "closed")


def test_unreachable_targets_are_refused() -> None:
    with pytest.raises(Incompatible, match="no amount of noise"):
        calibrate(lambda _: dp.NonPrivateDpEvent(), 1.0, DELTA, "rdp")


def test_the_grid_stays_small() -> None:
    wild = dp.PoissonSampledDpEvent(0.5, dp.GaussianDpEvent(0.05))
    found = epsilon(wild, DELTA, "pld")
    assert found.accountant == "pld"
    assert found.epsilon <= price.gaussian_epsilon(0.05, DELTA)


def test_beyond_the_grid_the_renyi_price_is_left() -> None:
    huge = dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(0.5, dp.GaussianDpEvent(0.5)), 5000)
    found = epsilon(huge, DELTA, "pld")
    assert found.accountant == "rdp" and found.lower is None
    assert found == epsilon(huge, DELTA, "pld")
    assert found.epsilon == epsilon(huge, DELTA, "rdp").epsilon


@pytest.mark.parametrize("accountant", ["rdp", "pld"])
@pytest.mark.parametrize(
    ("rate", "wide", "like"), [(1e-3, 1e4, 100.0), (1e-4, 1e3, 100.0), (1e-6, 100.0, 1e3)]
)
def test_rare_draws_under_wide_noise_are_not_free(
    accountant: price.Accountant, rate: float, wide: float, like: float
) -> None:
    step = dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(wide))
    one = rate * math.erf(0.5 / wide / math.sqrt(2))  # their distance in total variation
    assert epsilon(step, one / 2, accountant).epsilon > 0
    # So many are as one Gaussian step of multiplier `like`, by the central limit theorem.
    steps = round(1 / (like**2 * rate**2 * math.expm1(wide**-2)))
    many = epsilon(dp.SelfComposedDpEvent(step, steps), 1e-9, accountant).epsilon
    assert 0.99 * gaussian_epsilon(like, 1e-9) < many < 2 * gaussian_epsilon(like, 1e-9)


def test_a_small_epsilon_is_not_free() -> None:
    tiny = pure_event(1e-9)
    assert rdp_curve(tiny, [2.0]) == pytest.approx([1e-18], rel=1e-6)  # order epsilon**2 / 2
    assert epsilon(dp.SelfComposedDpEvent(tiny, 3), 1e-15, "rdp").epsilon > 0
    assert rdp_curve(pure_event(0.0), [2.0]) == [0.0]


def test_what_may_fail_as_often_as_delta_has_no_price() -> None:
    queries = dp.SelfComposedDpEvent(ApproximateDpEvent(0.2, 1e-6), 10)
    assert epsilon(queries, 1e-5, "pld").epsilon == math.inf  # 1e-5 - 10 * 1e-6 is 2e-21 in doubles
    assert epsilon(queries, 1.1e-5, "pld").epsilon < 2.001


def test_a_first_guess_that_is_too_low_is_not_the_end() -> None:
    almost = dp.PoissonSampledDpEvent(1 - 1e-9, dp.GaussianDpEvent(0.1))
    sure = epsilon(dp.GaussianDpEvent(0.1), 1e-15).epsilon
    assert epsilon(almost, 1e-15, "pld").epsilon == pytest.approx(sure, rel=1e-3)


def test_a_price_is_computed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = epsilon(RUN, DELTA, "pld")
    assert len(list(folder.glob("*.json"))) == 1
    monkeypatch.setattr(price, "_bounds", None)  # a second computation would fail
    assert epsilon(RUN, DELTA, "pld") == first
    with pytest.raises(TypeError):
        epsilon(RUN, DELTA * 2, "pld")


@pytest.mark.parametrize(
    "damage", ["", "{", "[1]", '{"key": "x", "value": 1.0}', '{"value": 1.0}', "\xff"]
)
def test_a_damaged_entry_is_written_again(folder: Path, damage: str) -> None:
    first = epsilon(RUN, DELTA, "pld")
    (entry,) = folder.glob("*.json")
    entry.write_text(damage, encoding="latin-1")
    assert epsilon(RUN, DELTA, "pld") == first
    assert json.loads(entry.read_text())["value"] == [first.lower, first.epsilon, 1.0]


@pytest.mark.parametrize("value", ['"a"', "-1.0", "NaN", "Infinity", "null"])
def test_an_impossible_entry_is_not_believed(folder: Path, value: str) -> None:
    key = {"task": "test"}
    assert cache.remembered(key, lambda: 2.0) == 2.0
    (entry,) = folder.glob("*.json")
    entry.write_text(entry.read_text().replace("2.0", value))
    assert cache.remembered(key, lambda: 3.0) == 3.0


def test_no_place_to_write_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NACRE_CACHE", str(tmp_path / "file" / "below"))
    assert cache.remembered({"task": "test"}, lambda: 2.0) == 2.0


def test_infinity_is_not_remembered(folder: Path) -> None:
    assert cache.remembered({"task": "test"}, lambda: math.inf) == math.inf
    assert not folder.exists()


def test_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NACRE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "nacre"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == Path.home() / ".cache" / "nacre"


@pytest.mark.parametrize("small", [1e-9, 1e-7, 1e-4])
def test_the_curve_of_a_tiny_query_is_no_rounding_error(small: float) -> None:
    """It is order * epsilon**2 / 2 where that is small; a price below 0 would give budget back."""
    for order, found in zip(ORDERS, rdp_curve(pure_event(small)), strict=True):
        if order * small < 1e-2:
            assert found == pytest.approx(order * small**2 / 2, rel=1e-3)
        assert 0 < found <= small


def test_the_curve_of_a_query_has_no_gap_where_its_form_changes() -> None:
    orders = [1 / 0.1 + offset for offset in (-1e-9, 1e-9)]
    assert rdp_curve(pure_event(0.1), orders)[0] == pytest.approx(
        rdp_curve(pure_event(0.1), orders)[1], rel=1e-8
    )

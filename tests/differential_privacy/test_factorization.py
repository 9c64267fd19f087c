"""Coefficients of correlated noise: closed forms, a published bound, simulation, and the gain."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from nacre.data.sampling import CyclicPoisson, Poisson
from nacre.differential_privacy.accounting.price import calibrate
from nacre.differential_privacy.events import event
from nacre.differential_privacy.noise import factorization
from nacre.differential_privacy.noise.correlated import Banded
from nacre.differential_privacy.noise.factorization import (
    _buffered_error,
    banded,
    buffered,
    falling,
    inverse,
    length_of_turns,
    max_error,
    mean_squared_error,
    opposite,
    series,
    square_root,
    workload,
)
from nacre.differential_privacy.noise.independent import Gaussian


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NACRE_CACHE", str(tmp_path))
    banded.cache_clear()
    buffered.cache_clear()


def toeplitz(coefficients: np.ndarray, steps: int) -> np.ndarray:
    """(n, n) lower triangular."""
    table = np.zeros((steps, steps))
    for i, value in enumerate(coefficients[:steps]):
        table += value * np.eye(steps, k=-i)
    return table


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.8, 0.05)])
def test_workload_is_what_an_optimizer_does(momentum: float, decay: float) -> None:
    weight, velocity, found = 0.0, 1.0, []
    for _ in range(12):  # one gradient of 1 at the first step
        weight = (1 - decay) * weight + velocity
        velocity *= momentum
        found.append(weight)
    assert workload(12, momentum, decay) == pytest.approx(found)


def test_errors_are_those_of_the_matrices() -> None:
    work, c = workload(20, 0.5), np.array([0.8, 0.4, 0.2])
    left = toeplitz(work, 20) @ np.linalg.inv(toeplitz(c, 20))
    squared = np.linalg.norm(toeplitz(c, 20), axis=0).max() ** 2
    assert mean_squared_error(c, work) == pytest.approx(squared * (left**2).sum() / 20)
    assert max_error(c, work) == pytest.approx(math.sqrt(squared) * np.linalg.norm(left[-1]))
    assert toeplitz(inverse(c, 20), 20) == pytest.approx(np.linalg.inv(toeplitz(c, 20)))


@pytest.mark.parametrize("steps", [16, 256, 4096])
def test_the_square_root_has_the_error_of_its_closed_form(steps: int) -> None:
    """The squares of binomial(2 k, k) / 4^k (Fichtenberger, Henzinger & Upadhyay 2022), whose sum
    is (ln n + gamma + ln 16) / pi + O(1 / n)."""
    error = max_error(square_root(steps), workload(steps))
    exact = math.fsum((math.comb(2 * k, k) / 4**k) ** 2 for k in range(min(steps, 500)))
    if steps <= 500:
        assert error == pytest.approx(exact, rel=1e-12)
    limit = (math.log(steps) + 0.5772156649 + math.log(16)) / math.pi
    assert error == pytest.approx(limit, abs=1 / steps)


@pytest.mark.parametrize(("bands", "steps"), [(2, 12), (4, 30), (8, 60)])
def test_no_small_move_makes_the_optimum_better(bands: int, steps: int) -> None:
    best, work = np.array(banded(bands, steps)), workload(steps)
    error = mean_squared_error(best, work)
    assert error < mean_squared_error(square_root(bands), work)
    for i in range(bands):
        for move in (-1e-3, 1e-3):
            other = best.copy()
            other[i] += move
            assert mean_squared_error(other, work) >= error * (1 - 1e-9)


def test_two_bands_against_every_ratio() -> None:
    work = workload(40)
    grid = np.linspace(-0.99, 1.5, 5001)
    least = min(mean_squared_error(np.array([1.0, x]), work) for x in grid)
    found = mean_squared_error(np.array(banded(2, 40)), work)
    assert least * (1 - 1e-6) <= found <= least


@pytest.mark.parametrize("bands", [1, 3, 20])
def test_length_is_one_whatever_the_disk_says(bands: int, tmp_path: Path) -> None:
    found = banded(bands, 20)
    assert len(found) == bands
    assert math.fsum(c * c for c in found) == pytest.approx(1.0, abs=1e-14)
    banded.cache_clear()
    assert banded(bands, 20) == found, "the disk gives back the same bits"
    (entry,) = tmp_path.glob("*.json")
    content = json.loads(entry.read_text())
    entry.write_text(json.dumps(content | {"value": [5.0] * bands}))
    banded.cache_clear()
    again = banded(bands, 20)
    assert math.fsum(c * c for c in again) == pytest.approx(1.0, abs=1e-14)
    entry.write_text(json.dumps(content | {"value": [5.0] * (bands + 1)}))
    banded.cache_clear()
    assert banded(bands, 20) == found, "an entry of another length is made again"


def test_a_search_that_finds_nothing_better_keeps_the_square_root(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(factorization, "_FAR", -1e6)  # the line search runs away and is believed
    work = workload(30)
    assert mean_squared_error(np.array(banded(5, 30)), work) <= mean_squared_error(
        square_root(5), work
    ) * (1 + 1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: workload(0), "steps=0"),
        (lambda: workload(5, 1.0), "momentum=1.0"),
        (lambda: workload(5, 0.0, -0.1), "decay=-0.1"),
        (lambda: banded(0, 5), "bands=0"),
        (lambda: banded(6, 5), "bands=6"),
        (lambda: buffered(0, 5, 1), "buffers=0"),
        (lambda: buffered(9, 5, 1), "buffers=9"),
        (lambda: buffered(1, 5, 0), "separation=0"),
        (lambda: length_of_turns(np.ones(5), 0), "separation=0"),
    ],
)
def test_numbers_that_make_no_sense(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()


def test_banded_noise_beats_independent_noise_at_equal_epsilon() -> None:
    """1438 units, batches of 128, 96 steps, epsilon 8: a deviation 1.24 times as small."""
    steps, delta = 96, 1e-4
    work = workload(steps)
    plain, _ = calibrate(
        lambda z: event(Poisson(128, 1438), Gaussian(multiplier=z), steps, "add_or_remove"),
        8.0, delta, "rdp",
    )  # fmt: skip
    c = banded(8, steps)
    turns, _ = calibrate(
        lambda z: event(
            CyclicPoisson(128, 1438, 8), Banded(coefficients=c, multiplier=z), steps,
            "add_or_remove",
        ),
        8.0, delta, "rdp",
    )  # fmt: skip
    before = plain * math.sqrt(mean_squared_error(np.ones(1), work))
    after = turns * math.sqrt(mean_squared_error(np.array(c), work))
    assert before / after == pytest.approx(1.24, abs=0.01)


def test_buffers_give_the_series_and_its_opposite() -> None:
    weights, decays = np.array([0.2, 0.1, 0.3]), np.array([0.99, 0.9, 0.2])
    c = series(weights, decays, 40)
    assert c[0] == 1.0 and c[1] == pytest.approx(0.6)
    assert c[5] == pytest.approx(sum(w * t**4 for w, t in zip(weights, decays, strict=True)))
    found = series(*opposite(weights, decays), 40)
    assert found == pytest.approx(inverse(c, 40), abs=1e-14)
    assert (opposite(weights, decays)[0] <= 0).all()


@pytest.mark.parametrize("separation", [1, 7, 60])
def test_the_slope_of_the_error_is_that_of_differences(separation: int) -> None:
    work = workload(60, 0.5, 0.01)
    free = np.array([1.0, 2.0, -1.0, 0.3, 0.1, -0.5])
    slope = _buffered_error(free, work, separation)[1]
    for i, step in enumerate(1e-5 * np.eye(6)):
        up, down = (_buffered_error(free + s * step, work, separation)[0] for s in (1, -1))
        assert slope[i] == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-8)


def buffered_error(buffers: int, steps: int, separation: int) -> float:
    weights, decays = buffered(buffers, steps, separation)
    assert falling(weights, decays)
    c = series(np.array(weights), np.array(decays), steps)
    return mean_squared_error(c, workload(steps), separation)


@pytest.mark.parametrize(("steps", "separation"), [(96, 96), (96, 11), (500, 50)])
def test_more_buffers_leave_less_and_few_are_enough(steps: int, separation: int) -> None:
    errors = [buffered_error(d, steps, separation) for d in (1, 2, 3, 4)]
    assert all(b <= a * (1 + 1e-6) for a, b in itertools.pairwise(errors))
    alone = mean_squared_error(np.ones(1), workload(steps), separation)
    assert errors[3] < alone
    # A whole Toeplitz matrix, optimised for one turn; for more turns the bands keep apart.
    best = np.array(banded(separation, steps))
    turns = -(-steps // separation)
    whole = turns * mean_squared_error(best, workload(steps))
    assert errors[3] < (1.001 if turns == 1 else 1.15) * whole


def test_no_small_move_makes_the_buffers_better() -> None:
    weights, decays = (np.array(v) for v in buffered(2, 60, 10))
    work = workload(60)

    def error(w: np.ndarray, t: np.ndarray) -> float:
        return mean_squared_error(series(w, t, 60), work, 10)

    best = error(weights, decays)
    for i in range(2):
        for move in (-1e-3, 1e-3):
            step = move * np.eye(2)[i]
            assert error(weights + step, decays) >= best * (1 - 1e-7)
            assert error(weights, decays + step) >= best * (1 - 1e-7)


def test_buffers_are_remembered_and_sound_whatever_the_disk_says(tmp_path: Path) -> None:
    found = buffered(2, 30, 5)
    buffered.cache_clear()
    assert buffered(2, 30, 5) == found
    (entry,) = tmp_path.glob("*.json")
    content = json.loads(entry.read_text())
    for wrong in ([0.9, 0.9, 0.5, 0.5], [0.1, -0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 1.5]):
        entry.write_text(json.dumps(content | {"value": wrong}))
        buffered.cache_clear()
        assert buffered(2, 30, 5) == found


def test_bands_of_one_turn_have_the_length_of_a_column() -> None:
    c, work = np.array([0.8, 0.4, 0.2]), workload(20)
    assert mean_squared_error(c, work, 20) == pytest.approx(mean_squared_error(c, work))
    assert mean_squared_error(c, work, 4) == pytest.approx(5 * mean_squared_error(c, work))
    assert length_of_turns(np.ones(6), 2) == pytest.approx(math.sqrt(1 + 1 + 4 + 4 + 9 + 9))

"""Correlated noise: its covariance, its sensitivity over all patterns, its state, refusals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from nacre.core.errors import RunError, Unbounded
from nacre.core.parts import NoiseState
from nacre.core.random import Source
from nacre.core.types import BoundedSum, Noised, Tensors
from nacre.differential_privacy.noise.blt import Buffered
from nacre.differential_privacy.noise.correlated import Banded, Correlated, Tree, tree_reach
from nacre.differential_privacy.noise.factorization import banded, buffered, series

WIDTH = 20_000
LIMIT = 6.0  # deviations: fixed keys; with fresh ones a table of 144 fails once in 3e6 runs


def run(noise: Correlated, steps: int, width: int = WIDTH, bound: float = 1.0) -> np.ndarray:
    """(steps, width): the noise of each step."""
    state = noise.init({})
    rows: list[np.ndarray] = []
    for step in range(steps):
        total = BoundedSum({"b": torch.zeros(width - 4), "a": torch.zeros(2, 2)}, bound)
        source = Source(bytes(32)).child("noise", step)
        release, state = noise.add(total, state, source, "add_or_remove")
        rows.append(torch.cat([release.total[n].reshape(-1) for n in ("a", "b")]).double().numpy())
        assert isinstance(release.how, Noised)
        empirical = rows[-1].std() / release.how.deviation
        assert abs(empirical - 1) < LIMIT / math.sqrt(2 * width), step
    return np.array(rows)


def covariance_fits(rows: np.ndarray, stated: np.ndarray) -> bool:
    """Whether the empirical covariance over the columns is the stated one."""
    count = rows.shape[1]
    found = rows @ rows.T / count
    spread = np.sqrt((stated**2 + np.outer(np.diag(stated), np.diag(stated))) / count)
    return bool((np.abs(found - stated) < LIMIT * spread).all())


def toeplitz(coefficients: tuple[float, ...], steps: int) -> np.ndarray:
    return sum(
        (c * np.eye(steps, k=-i) for i, c in enumerate(coefficients)), np.zeros((steps, steps))
    )


@pytest.mark.parametrize("bands", [1, 2, 5, 12])
def test_banded_noise_has_the_covariance_of_c_inverse(bands: int) -> None:
    c = banded(bands, 12)
    rows = run(Banded(coefficients=c, multiplier=0.7), 12, bound=2.0)
    left = np.linalg.inv(toeplitz(c, 12)) * 1.4
    assert covariance_fits(rows, left @ left.T)
    assert not covariance_fits(rows, 1.1 * left @ left.T)


def test_c_times_banded_noise_is_the_same_normals_again() -> None:
    """Exactly, not only in law: a recurrence over a ring that forgets too soon fails here."""
    c = banded(4, 30)
    rows = run(Banded(coefficients=c, multiplier=1.0), 30, width=50)
    single = Banded(coefficients=(1.0,), multiplier=1.0)
    assert toeplitz(c, 30) @ rows == pytest.approx(run(single, 30, width=50), abs=2e-5)


def test_prefix_error_by_formula_is_that_of_simulation() -> None:
    from nacre.differential_privacy.noise.factorization import mean_squared_error, workload

    c = banded(4, 16)
    rows = run(Banded(coefficients=c, multiplier=1.0), 16)
    simulated = (rows.cumsum(0) ** 2).mean()
    assert simulated == pytest.approx(mean_squared_error(np.array(c), workload(16)), rel=0.02)


@pytest.mark.parametrize(("buffers", "separation"), [(1, 12), (2, 3), (4, 12), (3, 5)])
def test_buffered_noise_has_the_covariance_of_c_inverse(buffers: int, separation: int) -> None:
    weights, decays = buffered(buffers, 12, separation)
    noise = Buffered(
        weights=weights, decays=decays, steps=12, separation=separation, multiplier=0.7
    )
    c = [1.0] + [sum(w * t**i for w, t in zip(weights, decays, strict=True)) for i in range(11)]
    rows = run(noise, 12, bound=2.0)
    left = np.linalg.inv(toeplitz(tuple(c), 12)) * 1.4 * noise.reach
    assert covariance_fits(rows, left @ left.T)
    assert not covariance_fits(rows, 1.1 * left @ left.T)
    fresh = toeplitz(tuple(c), 12) @ run(noise, 12, width=50) / noise.reach
    plain = run(Banded(coefficients=(1.0,), multiplier=0.7), 12, width=50)
    assert fresh == pytest.approx(plain, abs=2e-5), "the same normals again, exactly"


def tree_matrices(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(nodes, n) which steps lie under each complete node; (n, nodes) the best linear unbiased
    estimate of each prefix from the nodes below its maximal subtrees, by least squares."""
    nodes = [
        (size, start)
        for size in (1 << k for k in range(steps.bit_length()))
        for start in range(0, steps - size + 1, size)
    ]
    encode = np.zeros((len(nodes), steps))
    for row, (size, start) in enumerate(nodes):
        encode[row, start : start + size] = 1
    decode = np.zeros((steps, len(nodes)))
    for t in range(steps):
        known = [i for i, (size, start) in enumerate(nodes) if start + size <= t + 1]
        prefix = np.array([1.0] * (t + 1) + [0.0] * (steps - t - 1))
        # Of all weights that give the prefix, those of least length: the least variance.
        decode[t, known] = np.linalg.pinv(encode[known].T) @ prefix
    return encode, decode


@pytest.mark.parametrize("steps", [1, 2, 7, 12])
def test_tree_noise_is_the_best_estimate_from_the_nodes(steps: int) -> None:
    noise = Tree(steps=steps, separation=steps, multiplier=0.5)
    encode, decode = tree_matrices(steps)
    assert decode @ encode == pytest.approx(np.tril(np.ones((steps, steps))))
    prefixes = run(noise, steps, bound=2.0).cumsum(0)
    left = decode * noise.reach
    assert covariance_fits(prefixes, left @ left.T)


@pytest.mark.parametrize(("steps", "separation"), [(1, 1), (5, 1), (8, 3), (9, 2), (10, 4), (6, 9)])
def test_tree_reach_covers_every_pattern_and_is_met(steps: int, separation: int) -> None:
    """All sets of turns that are multiples of `separation` apart, with either direction."""
    encode, _ = tree_matrices(steps)
    worst = 0.0
    for first in range(min(separation, steps)):
        turns = list(range(first, steps, separation))
        for signs in itertools.product((-1.0, 0.0, 1.0), repeat=len(turns)):
            moved = np.zeros(steps)
            moved[turns] = signs
            worst = max(worst, float(np.linalg.norm(encode @ moved)))
    assert tree_reach(steps, separation) == pytest.approx(worst)


@pytest.mark.parametrize(
    ("steps", "separation"), [(1, 1), (6, 1), (9, 2), (10, 3), (11, 4), (9, 20)]
)
@pytest.mark.parametrize(
    ("weights", "decays"), [((1.0,), (0.99,)), ((0.2, 0.3), (0.95, 0.4)), ((0.0,), (0.0,))]
)
def test_the_reach_of_buffers_covers_every_pattern_and_is_met(
    steps: int, separation: int, weights: tuple[float, ...], decays: tuple[float, ...]
) -> None:
    """All sets of turns at least `separation` apart, in either direction, by brute force."""
    noise = Buffered(weights=weights, decays=decays, steps=steps, separation=separation)
    c = toeplitz(tuple(series(np.array(weights), np.array(decays), steps)), steps)
    worst = 0.0
    for count in range(1, steps + 1):
        for turns in itertools.combinations(range(steps), count):
            if any(b - a < separation for a, b in itertools.pairwise(turns)):
                continue
            for signs in itertools.product((-1.0, 1.0), repeat=count if count <= 4 else 1):
                moved = np.zeros(steps)
                moved[list(turns)] = signs if count <= 4 else 1.0
                worst = max(worst, float(np.linalg.norm(c @ moved)))
    assert noise.reach == pytest.approx(worst)


def test_shares_of_any_direction_move_no_further_than_the_reach() -> None:
    """Random shares of length one in five dimensions, by turns at least three steps apart."""
    noise = Buffered(**BUFFERS, steps=12, separation=3)
    c = toeplitz(tuple(series(*(np.array(v) for v in BUFFERS.values()), 12)), 12)
    generator = np.random.default_rng(0)
    for _ in range(500):
        moved = np.zeros((12, 5))
        turn = int(generator.integers(0, 3))
        while turn < 12:
            share = generator.normal(size=5) + 2.0
            moved[turn] = share / np.linalg.norm(share)
            turn += 3 + int(generator.integers(0, 3))
        assert np.linalg.norm(c @ moved) <= noise.reach * (1 + 1e-12)


@pytest.mark.parametrize(("bands", "cycle"), [(1, 1), (2, 2), (3, 3), (2, 4)])
def test_turns_of_banded_noise_move_disjoint_rows_by_length_one(bands: int, cycle: int) -> None:
    """By brute force: what the event rests on."""
    steps = 10
    c = toeplitz(banded(bands, steps), steps)
    for first in range(cycle):
        turns = list(range(first, steps, cycle))
        rows = [set(np.flatnonzero(c[:, turn])) for turn in turns]
        assert all(not (a & b) for a, b in itertools.combinations(rows, 2))
        for turn in turns:
            assert np.linalg.norm(c[:, turn]) <= 1 + 1e-12
        for signs in itertools.product((-1.0, 0.0, 1.0), repeat=len(turns)):
            moved = np.zeros(steps)
            moved[turns] = signs
            count = sum(abs(s) for s in signs)
            assert np.linalg.norm(c @ moved) <= math.sqrt(count) + 1e-12


BUFFERS = {"weights": (0.2, 0.3), "decays": (0.97, 0.6)}
NOISES: list[Correlated] = [
    Banded(coefficients=banded(4, 20), multiplier=1.0),
    Tree(steps=20, separation=4, multiplier=1.0),
    Buffered(**BUFFERS, steps=20, separation=4, multiplier=1.0),
]


def steps_of(
    noise: Correlated, first: int, until: int, state: NoiseState
) -> tuple[list[Tensors], NoiseState]:
    found: list[Tensors] = []
    for step in range(first, until):
        total = BoundedSum({"w": torch.full((3, 2), float(step))}, 1.0 + step)
        release, state = noise.add(total, state, Source(bytes(32)).child(step), "zero_out")
        found.append(release.total)
    return found, state


@pytest.mark.parametrize("noise", NOISES)
def test_state_that_was_put_away_goes_on_bit_for_bit(noise: Correlated) -> None:
    whole, _ = steps_of(noise, 0, 20, noise.init({}))
    for stop in (1, 3, 4, 7, 8, 19):
        _, state = steps_of(noise, 0, stop, noise.init({}))
        assert state is not None
        kept = {name: value.clone() for name, value in state.items()}
        rest, _ = steps_of(noise, stop, 20, kept)
        for a, b in zip(whole[stop:], rest, strict=True):
            assert torch.equal(a["w"], b["w"])
        for name, value in state.items():
            assert torch.equal(value, kept[name]), "a state is never written into"


@pytest.mark.parametrize("noise", NOISES)
def test_a_moving_bound_scales_unit_draws(noise: Correlated) -> None:
    """The noise of a step is the same numbers times the present bound, whatever came before."""

    def noises(bounds: list[float]) -> list[torch.Tensor]:
        state, found = noise.init({}), []
        for step, bound in enumerate(bounds):
            total = BoundedSum({"w": torch.zeros(50)}, bound)
            release, state = noise.add(total, state, Source(bytes(32)).child(step), "zero_out")
            found.append(release.total["w"] / bound)
        return found

    for a, b in zip(noises([1.0] * 9), noises([2.0**-i for i in range(9)]), strict=True):
        assert torch.allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("noise", NOISES)
def test_state_is_as_small_as_stated(noise: Correlated) -> None:
    _, state = steps_of(noise, 0, 15, noise.init({}))
    assert state is not None
    drawn = [value for name, value in state.items() if name.isdigit()]
    assert len(drawn) == {"banded": 3, "tree": 4, "blt": 2}[noise.kind]
    assert all(value.shape == (6,) and value.dtype == torch.float32 for value in drawn)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("consume", [False, True])
def test_the_sum_is_left_alone_unless_given_away(noise: Correlated, consume: bool) -> None:
    total = BoundedSum({"w": torch.ones(4, 3).t(), "d": torch.ones(2).double()}, 1.0)
    release, _ = noise.add(total, noise.init({}), Source(bytes(32)), "replace_one", consume=consume)
    if not consume:
        assert all(bool((value == 1).all()) for value in total.total.values())
    assert {n: v.shape for n, v in release.total.items()} == {
        n: v.shape for n, v in total.total.items()
    }
    assert all(value.dtype == torch.float32 for value in release.total.values())


@pytest.mark.parametrize("noise", NOISES)
def test_refusals(noise: Correlated) -> None:
    total, source = BoundedSum({"w": torch.zeros(5)}, 1.0), Source(bytes(32))
    _, state = noise.add(total, noise.init({}), source, "zero_out")
    assert state is not None
    with pytest.raises(RunError, match="other parameters"):
        noise.add(BoundedSum({"w": torch.zeros(6)}, 1.0), state, source, "zero_out")
    with pytest.raises(RunError, match="another factorisation"):
        other = state | {"made by": state["made by"] * 1.01}
        noise.add(total, other, source, "zero_out")
    with pytest.raises(ValueError, match="init"):
        noise.add(total, None, source, "zero_out")
    for bound in (math.inf, 0.0, math.nan):
        with pytest.raises(Unbounded, match="gradient_clipping"):
            noise.add(BoundedSum({"w": torch.zeros(5)}, bound), state, source, "zero_out")


def test_constructors_check() -> None:
    with pytest.raises(ValueError, match="calibrate"):
        Banded(coefficients=(1.0,)).add(BoundedSum({}, 1.0), None, Source(bytes(32)), "zero_out")
    for bad in ((), (-1.0,), (1.0, 0.1)):
        with pytest.raises(ValueError, match="coefficients="):
            Banded(coefficients=bad)
    with pytest.raises(ValueError, match="multiplier=0"):
        Banded(coefficients=(1.0,), multiplier=0)
    with pytest.raises(ValueError, match="separation=0"):
        Tree(steps=5, separation=0)
    with pytest.raises(ValueError, match="steps=0"):
        Buffered(**BUFFERS, steps=0, separation=1)
    for weights, decays in (((0.6, 0.5), (0.9, 0.8)), ((-0.1,), (0.9,)), ((0.1,), (1.0,)),
                            ((), ()), ((0.1,), (0.9, 0.8)), ((0.1,), (-0.5,))):  # fmt: skip
        with pytest.raises(ValueError, match="the reach is proven for these"):
            Buffered(weights=weights, decays=decays, steps=5, separation=1)


@pytest.mark.parametrize(
    "noise",
    [
        Tree(steps=3, separation=1, multiplier=1.0),
        Buffered(**BUFFERS, steps=3, separation=1, multiplier=1.0),
    ],
)
def test_noise_hides_no_more_steps_than_it_was_scaled_for(noise: Tree | Buffered) -> None:
    _, state = steps_of(noise, 0, 3, noise.init({}))
    with pytest.raises(RunError, match="steps=3"):
        steps_of(noise, 3, 4, state)

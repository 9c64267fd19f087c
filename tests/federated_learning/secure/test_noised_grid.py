"""The grid of noised sums: rounding within the norm, noise of each party's own, and the ring."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from nacre.core.errors import PartyError
from nacre.core.random import Source
from nacre.differential_privacy.noise.distributed import DistributedGaussian, RingSums
from nacre.differential_privacy.noise.shares import NoiseShares
from nacre.federated_learning.secure.grids.grid import no_longer
from nacre.federated_learning.secure.grids.noised_grid import NoisedGrid
from tests.federated_learning.secure.rounds import LIKE, Federation

SOURCE = Source(bytes(range(32)))
SIZE = 17  # of LIKE


def grid(
    dimension: int = SIZE, *, bits: int = 32, parties: int = 5, norm: float = 1.0,
    multiplier: float = 1.0, rounds: int = 3,
) -> NoisedGrid:  # fmt: skip
    sums = RingSums(
        bits=bits, parties=parties, threshold=max(2, parties - 1), colluders=1,
        dimension=dimension, bound=norm, rounds=rounds,
    )  # fmt: skip
    step, noise = DistributedGaussian(multiplier=multiplier, sums=sums).fitted("add_or_remove")
    return NoisedGrid(bits=bits, parties=parties, step=step, norm=norm, noise=noise)


def coarse(dimension: int, steps: float) -> NoisedGrid:
    """Of vectors of this many steps."""
    noise = NoiseShares(variance=4.0, shares=3, dimension=dimension, sensitivity=steps)
    return NoisedGrid(bits=16, parties=5, step=1.0, norm=steps, noise=noise)


def vectors(dimension: int, norm: float) -> list[np.ndarray]:
    """Those that rounding treats worst: halves, just below whole numbers, spikes, far too long."""
    some = np.random.default_rng(3)
    plain = some.normal(size=dimension)
    found = [
        np.full(dimension, norm / math.sqrt(dimension)),
        np.full(dimension, 0.5),
        np.full(dimension, 1e-3),
        np.eye(dimension)[0] * norm,
        np.eye(dimension)[0] * 1e30,
        plain / np.linalg.norm(plain) * norm,
        plain * 1e6,
        np.zeros(dimension),
        np.full(dimension, np.nextafter(np.float32(norm / math.sqrt(dimension)), np.float32(9))),
    ]
    return [vector.astype(np.float32) for vector in found]


@pytest.mark.parametrize(("dimension", "steps"), [(1, 3.0), (50, 9.5), (400, 24.0), (3000, 60.3)])
def test_a_rounded_vector_is_never_longer_than_the_norm(dimension: int, steps: float) -> None:
    of = coarse(dimension, steps)
    for place, vector in enumerate(vectors(dimension, steps)):
        for again in range(20):
            found = of.rounded(vector, SOURCE.child(place, again)).astype(object)
            assert int((found * found).sum()) <= steps**2


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=40, max_size=40), st.floats(7.5, 100.0))
@settings(max_examples=200, deadline=None)
def test_no_vector_is_rounded_to_a_longer_one(values: list[float], steps: float) -> None:
    of = coarse(40, steps)
    found = of.rounded(np.array(values, dtype=np.float32), SOURCE).astype(object)
    assert int((found * found).sum()) <= steps**2


@pytest.mark.parametrize(("dimension", "steps"), [(50, 9.5), (400, 24.0), (3000, 60.3)])
def test_rounding_is_right_on_average(dimension: int, steps: float) -> None:
    """Each coordinate of a vector that is not shortened, and that of one of the inner norm: tries
    that are thrown away hardly move it."""
    of = coarse(dimension, steps)
    some = np.random.default_rng(5).normal(size=dimension)
    vector = (some / np.linalg.norm(some) * of.inner).astype(np.float32)
    count = 400
    mean = np.mean([of.rounded(vector, SOURCE.child(i)) for i in range(count)], axis=0)
    rest = vector - np.floor(vector)
    spread = np.sqrt(np.maximum(rest * (1 - rest), 0.01) / count)
    assert np.abs((mean - vector) / spread).max() < 5.5
    share = float(mean @ vector / (vector @ vector))
    assert share == pytest.approx(1, abs=0.02)


def test_a_long_vector_of_the_inner_norm_is_rounded_in_a_few_tries() -> None:
    """At least 39 in 100 roundings are short enough, by the theorem."""
    for dimension, steps in ((50, 9.5), (3000, 60.3)):
        of, stream = coarse(dimension, steps), SOURCE.child("tries").stream()
        for vector in vectors(dimension, of.inner)[:6]:
            long = np.linalg.norm(vector.astype(float))
            scaled = vector.astype(float) * min(1.0, of.inner / long)
            short = 0
            for _ in range(200):
                up = stream.uniform(dimension).numpy() < scaled - np.floor(scaled)
                short += no_longer(np.floor(scaled) + up, steps)
            assert short >= 0.39 * 200


def test_inner_is_near_the_norm_on_a_fine_grid() -> None:
    fine = grid(1_000_000, bits=32, parties=100)
    assert 0.9999 < fine.inner < 1
    assert grid(1000, bits=16, parties=100).inner > 0.98


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("sign", [1, -1])
def test_no_sum_wraps_where_all_parties_agree(bits: int, sign: int) -> None:
    """All changes lie on one axis at the norm, where a sum is largest."""
    parties = 40
    of = grid(3, bits=bits, parties=parties, multiplier=2.0, rounds=1)
    vector = np.array([0, sign, 0], dtype=np.float32)
    each = [of.encoded(vector, SOURCE.child(i)) for i in range(parties)]
    found = of.decoded(sum(each[1:], each[0].copy()))
    spread = math.sqrt(parties * of.noise.variance) * of.step
    assert abs(found[1] - sign * parties * of.inner) < 6 * spread
    assert np.abs(found[[0, 2]]).max() < 6 * spread


def test_noise_is_keyed_by_party_round_and_change() -> None:
    of, vector = grid(), np.full(SIZE, 0.1, dtype=np.float32)
    once = of.encoded(vector, SOURCE)
    assert (once == of.encoded(vector.copy(), SOURCE)).all()
    assert (once != of.encoded(vector, SOURCE.child("another"))).all()
    near = vector.copy()
    near[0] = np.nextafter(near[0], np.float32(1))
    gap = of.decoded(once - of.encoded(near, SOURCE))
    assert np.abs(gap).max() > 0.1  # the noise is another, so their difference does not show it


def test_the_noise_of_a_vector_is_its_share() -> None:
    of = grid(4000)
    zero = np.zeros(4000, dtype=np.float32)
    drawn = of.decoded(of.encoded(zero, SOURCE)) / of.step / math.sqrt(of.noise.variance)
    assert kstest(drawn, "norm").pvalue > 1e-5


def test_what_has_no_place_on_the_grid() -> None:
    of = grid()
    with pytest.raises(ValueError, match="not finite"):
        of.encoded(np.full(SIZE, np.nan, dtype=np.float32), SOURCE)
    with pytest.raises(ValueError, match="has 3 entries and noise was planned for 17"):
        of.encoded(np.zeros(3, dtype=np.float32), SOURCE)
    with pytest.raises(ValueError, match="too coarse"):
        coarse(4000, 35.0)
    with pytest.raises(ValueError, match="hold no sum"):
        NoisedGrid(bits=16, parties=9, step=1.0, norm=4000.0, noise=of.noise)
    for changes in ({"step": 0.3}, {"norm": math.nan}):
        facts = {"bits": 32, "parties": 5, "step": 1.0, "norm": 9.0, "noise": of.noise}
        with pytest.raises(ValueError, match="power of 2"):
            NoisedGrid(**{**facts, **changes})  # type: ignore[arg-type]


def federation(**more) -> Federation:
    return Federation(5, 4, noised=grid(multiplier=0.5), **more)


@pytest.mark.parametrize("late", [(), ("p001",)])
def test_the_opened_sum_is_that_of_changes_and_all_survivors_noise(late: tuple[str, ...]) -> None:
    of = federation()
    of.wire.gone["secure.mask"] = set(late)
    opened = of.round()
    survivors = [name for name in of.names if name not in late]
    assert opened.noised is not None
    assert (opened.noised.shares, opened.bound) == (3, 1.0)
    assert opened.noised.deviation == pytest.approx(0.5, rel=1e-9)
    off = torch.cat([
        (opened.total[name] - plain).reshape(-1)
        for name, plain in of.plain_sum(survivors).items()
    ])  # fmt: skip
    deviation = 0.5 * math.sqrt(len(survivors) / 3)
    assert 0.4 * deviation < float(off.std()) < 1.8 * deviation
    again = federation()
    again.wire.gone["secure.mask"] = set(late)
    repeated = again.round()
    assert all(torch.equal(repeated.total[name], value) for name, value in opened.total.items())


def test_noise_of_many_sums_has_the_deviation_of_all_survivors() -> None:
    of = Federation(5, 4, rounds=60, noised=grid(multiplier=0.5, rounds=60), scale=0.0)
    sums = [of.round(number).total for number in range(60)]
    drawn = torch.cat([value.reshape(-1) for each in sums for value in each.values()]).double()
    assert kstest(drawn.numpy() / (0.5 * math.sqrt(5 / 3)), "norm").pvalue > 1e-5


def test_a_change_that_is_not_finite_counts_as_none_and_is_noised() -> None:
    of = federation()
    changed = of.changed

    def broken(name, number):
        found = changed(name, number)
        return {n: t * math.nan for n, t in found.items()} if name == "p002" else found

    of.changed = broken
    opened = of.round()
    assert all(bool(torch.isfinite(value).all()) for value in opened.total.values())


def test_a_party_that_comes_back_masks_the_same_bytes(tmp_path) -> None:
    of = federation(store=tmp_path)
    first = of.round()
    of.restart()
    again = of.round()
    assert all(torch.equal(again.total[name], value) for name, value in first.total.items())
    assert len(of.trained) == 5


def test_fewer_than_the_threshold_open_no_sum() -> None:
    of = federation()
    of.wire.gone["secure.mask"] = {"p000", "p001"}
    with pytest.raises(PartyError, match="threshold"):
        of.round()


def test_entries_of_the_federation_are_those_of_its_weights() -> None:
    assert sum(value.numel() for value in LIKE.values()) == SIZE

"""Sums on the grid never wrap, and no rounded vector is longer than its norm."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.federated_learning.secure.grids.grid import Grid
from nacre.federated_learning.secure.masks import packed, ring_type, unpacked

BITS = (16, 24, 32)
GRIDS = [
    Grid(bits=bits, parties=parties, largest=largest)
    for bits, parties, largest in itertools.product(
        BITS, (1, 2, 3, 10, 100, 5000), (1e-8, 0.3, 1.0, 1.5, 1e6)
    )
]


def _f(*values):
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_the_sum_of_the_greatest_entries_does_not_wrap(grid):
    """All parties at the end of the range, and beyond it."""
    for value in (1.0001 * grid.largest, 2 * grid.largest, np.finfo(np.float32).max):
        encoded = grid.encoded(_f(value, -value, 0))
        total = np.zeros_like(encoded)
        for _ in range(grid.parties):
            total += encoded
        exact = grid.parties * grid.most * grid.step
        assert grid.decoded(total).tolist() == [exact, -exact, 0.0]
    assert grid.parties * grid.most <= 2 ** (grid.bits - 1) - 1


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_the_step_is_the_smallest_power_of_two_that_fits(grid):
    mantissa, _ = np.frexp(grid.step)
    assert mantissa == 0.5
    assert grid.most == int(Fraction(grid.largest) / Fraction(grid.step))
    finer = int(Fraction(grid.largest) / Fraction(grid.step / 2))
    assert grid.parties * finer > 2 ** (grid.bits - 1) - 1


@given(
    st.sampled_from(GRIDS),
    st.lists(st.floats(-1.25, 1.25, width=32), min_size=1, max_size=20),
)
def test_an_entry_is_rounded_to_the_nearest_or_clamped(grid, shares):
    values = (np.array(shares) * grid.largest).astype(np.float32)
    found = grid.decoded(grid.encoded(values))
    end = grid.most * grid.step
    assert (np.abs(found - np.clip(values.astype(np.float64), -end, end)) <= grid.step / 2).all()


@given(
    st.sampled_from(BITS),
    st.sampled_from((1, 3, 100, 300)),
    st.sampled_from((1e-3, 0.7, 1.0, 3.0)),
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=60),
    st.sampled_from((0.2, 0.999999, 1 - 2.0**-22)),
)
def test_a_rounded_vector_is_no_longer_than_the_norm(bits, parties, norm, entries, length):
    """Exactly, in fractions; a vector just as long as the norm is where rounding would lengthen."""
    grid = Grid(bits=bits, parties=parties, largest=norm, norm=norm)
    vector = np.array(entries, dtype=np.float64)
    size = np.sqrt((vector**2).sum())
    if size == 0:
        return
    values = (vector / size * norm * length).astype(np.float32)
    whole = [round(v / grid.step) for v in grid.decoded(grid.encoded(values)).tolist()]
    assert sum(v * v for v in whole) * Fraction(grid.step) ** 2 <= Fraction(norm) ** 2


def test_the_nearest_would_have_been_too_long():
    """The test above has cases to find: without the second choice this vector is longer."""
    grid = Grid(bits=16, parties=300, largest=1.0, norm=1.0)
    values = np.full(1600, 1 / np.sqrt(1600), dtype=np.float32) * np.float32(1 - 2.0**-20)
    nearest = np.rint(values / grid.step)
    assert (nearest**2).sum() * grid.step**2 > 1
    found = grid.decoded(grid.encoded(values))
    assert 0 < (found**2).sum() <= 1


def test_what_has_no_place_is_refused():
    grid = Grid(bits=32, parties=2, largest=1.0, norm=1.0)
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="finite"):
            grid.encoded(_f(0, bad))
    with pytest.raises(ValueError, match="longer"):
        grid.encoded(_f(0.9, 0.9))
    for fault in ({"largest": 0.0}, {"largest": float("nan")}, {"parties": 0}, {"parties": 40000}):
        with pytest.raises(ValueError, match=r"must be positive|use more bits"):
            Grid(**{"bits": 16, "parties": 2, "largest": 1.0, **fault})


@pytest.mark.parametrize("bits", BITS)
def test_what_is_packed_takes_its_bits_and_comes_back(bits):
    vector = np.random.default_rng(0).integers(0, 2**32, 101).astype(ring_type(bits))
    data = packed(vector, bits)
    assert len(data) == 101 * bits // 8
    back = unpacked(data, bits)
    assert back.flags.writeable
    assert ((back.astype(np.int64) - vector.astype(np.int64)) % 2**bits == 0).all()
    assert packed(back, bits) == data

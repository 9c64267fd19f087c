"""Laws of every sampling: who enters how often, with whom, and what that depends on.

Keys are fixed, so these tests always give the same answer. Under a fresh key each statistical one
would fail with probability at most `ALARM`, by a union bound over exact binomial tails.
"""

import functools
from dataclasses import fields, replace
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import binom

from nacre.core.random import Source
from nacre.data.dataset import Rows
from nacre.data.sampling import (
    SAMPLINGS,
    AllUnits,
    BallsInBins,
    CyclicPoisson,
    FixedSize,
    Poisson,
    Shuffled,
)
from nacre.data.units import Units

pytestmark = pytest.mark.slow

ALARM = 1e-6
UNITS, STEPS = 12, 4000
KEY = Source(bytes(range(32)))

DRAWS = {
    "poisson": Poisson(3.0, UNITS),
    "cyclic": CyclicPoisson(1.5, UNITS, 4),
    "cyclic, of one group": CyclicPoisson(3.0, UNITS, 1),
    "fixed size": FixedSize(3, UNITS),
    "fixed size, everybody": FixedSize(UNITS, UNITS),
    "balls in bins": BallsInBins(UNITS, 4),
    "balls in bins, anew": BallsInBins(UNITS, 4, anew=True),
    "shuffled": Shuffled(3, UNITS),
    "shuffled, with units left over": Shuffled(5, UNITS),
    "full": AllUnits(UNITS),
}
EVERY = pytest.mark.parametrize("sampling", DRAWS.values(), ids=DRAWS)


@functools.cache
def drawn(sampling, units=UNITS, steps=STEPS):
    """(steps, units) bool, drawn once and only read: who entered which step."""
    table = np.zeros((steps, units), dtype=bool)
    for step in range(steps):
        table[step, sampling.draw(units, step, KEY, b"weights").numpy()] = True
    table.setflags(write=False)
    return table


def within(counts, trials, probability, tests):
    """Whether every count is one that Binomial(trials, probability) gives, up to `ALARM`."""
    level = ALARM / (2 * tests)
    low, high = binom.ppf(level, trials, probability), binom.isf(level, trials, probability)
    return np.all((np.asarray(counts) >= low) & (np.asarray(counts) <= high))


def test_the_laws_run_over_every_draw():
    built = {type(option().build(3, UNITS)) for option in SAMPLINGS}
    assert {type(part) for part in DRAWS.values()} == built
    assert {part.kind for part in DRAWS.values()} == {option.kind for option in SAMPLINGS}


@EVERY
def test_a_draw_says_all_that_decides_it(sampling):
    """Whatever is changed in a draw, plan.json and its sentence are not both the same."""
    facts = sampling.facts()
    assert facts["kind"] == sampling.kind and facts["expected"] == sampling.expected
    for entry in fields(sampling):
        value = getattr(sampling, entry.name)
        changed = not value if isinstance(value, bool) else 2 * value
        other = replace(sampling, **{entry.name: changed})
        assert (other.facts(), other.sentence()) != (facts, sampling.sentence())


@EVERY
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_resized_draw_is_one_of_so_many_times_the_units(sampling, factor):
    other = sampling.resized(factor)
    if other is not None:
        assert type(other) is type(sampling) and other.expected <= UNITS
        assert other.expected == pytest.approx(factor * sampling.expected, abs=1)


@EVERY
def test_a_draw_holds_different_units_in_range(sampling):
    for step in range(50):
        indices = sampling.draw(UNITS, step, KEY, b"")
        assert indices.dtype == torch.int64
        assert len(set(indices.tolist())) == len(indices)
        assert all(0 <= i < UNITS for i in indices.tolist())


@EVERY
def test_the_same_step_on_the_same_inputs_draws_the_same_units(sampling):
    first = sampling.draw(UNITS, 7, KEY, b"weights")
    assert torch.equal(first, sampling.draw(UNITS, 7, KEY, b"weights"))


@EVERY
def test_no_units_give_an_empty_draw(sampling):
    assert sampling.draw(0, 3, KEY, b"").tolist() == []


@EVERY
def test_each_unit_enters_as_often_as_declared(sampling):
    table = drawn(sampling)
    # A shuffle has less variance than independent coins, so the binomial bound holds for it too;
    # of a cycle each unit has a turn in so many steps exactly.
    cycle = sampling.separation
    assert within(table.sum(0), STEPS // cycle, cycle * sampling.expected / UNITS, UNITS)


@EVERY
def test_batches_are_as_large_as_declared_on_average(sampling):
    sizes = drawn(sampling).sum(1)
    # Of fixed bins four sizes repeat, and they add up to all units; the others vary by less than
    # independent coins do.
    assert abs(sizes.mean() - sampling.expected) < 4.9 * np.sqrt(sampling.expected / STEPS)


@EVERY
def test_a_unit_keeps_its_separation(sampling):
    table = drawn(sampling, steps=400)
    gaps = [np.diff(np.flatnonzero(table[:, unit])) for unit in range(UNITS)]
    assert min(int(gap.min()) for gap in gaps) == sampling.separation


@EVERY
@pytest.mark.parametrize("units", [UNITS - 5, UNITS + 5])
def test_a_wrong_declaration_lets_no_unit_in_more_often(sampling, units):
    """Fewer units than declared, or more: what the event counts on is public alone."""
    steps = STEPS // 4  # whoever counts the units at hand lets them in half as often again
    table = drawn(sampling, units=units, steps=steps)
    rate = getattr(sampling, "rate", sampling.expected / UNITS)
    turns = steps // sampling.separation
    most = rate if isinstance(sampling, CyclicPoisson) else sampling.separation * rate
    most = 1.0 if isinstance(sampling, BallsInBins | AllUnits) else most
    assert table.sum(0).max() <= binom.isf(ALARM / UNITS, turns, min(1.0, most))
    if isinstance(sampling, Shuffled):
        passes = -(-steps // sampling.epoch)
        assert table.sum(0).max() <= passes


@EVERY
@pytest.mark.parametrize("size", [1, 2, 5, None])
def test_microbatches_of_a_fixed_size_hold_every_drawn_unit_once(sampling, size):
    """What does not fit into one goes into the next: nothing is dropped, whatever the draw."""
    rows = Rows(torch.arange(UNITS, dtype=torch.float64)[:, None], torch.zeros(UNITS).long(), None)
    units = Units(rows, "example", None, KEY)
    for step in range(20):
        indices = sampling.draw(UNITS, step, KEY, b"")
        micro = list(units.micro(indices, size))
        assert all(len(batch["label"]) <= (size or UNITS) for batch in micro)
        seen = [int(value) for batch in micro for value in batch["features"][:, 0]]
        assert sorted(seen) == sorted(indices.tolist())


CYCLIC = DRAWS["cyclic"]


def groups(units, source=KEY):
    """(units,): the group of each unit, seen from draws that take everybody whose turn it is."""
    everybody = CyclicPoisson(units / 4, units, 4)
    found = np.full(units, -1)
    for step in range(4):
        indices = everybody.draw(units, step, source, b"").numpy()
        assert (found[indices] == -1).all(), "a unit is in one group"
        found[indices] = step
    return found


def test_cyclic_units_have_one_turn_a_cycle():
    table, of = drawn(CYCLIC), groups(UNITS)
    for unit in range(UNITS):
        entered = np.flatnonzero(table[:, unit])
        assert set(entered % 4) == {of[unit]}
        assert (np.diff(entered) >= 4).all()


def test_cyclic_groups_are_uniform_and_independent():
    of = groups(8000)
    assert (of >= 0).all()
    assert within(np.bincount(of, minlength=4), 8000, 1 / 4, 4)
    together = of[1:] == of[:-1]
    assert within(together.sum(), 7999, 1 / 4, 1)
    other = groups(8000, Source(bytes(32)))
    assert within((of == other).sum(), 8000, 1 / 4, 1)


def test_cyclic_units_of_one_group_enter_independently():
    table, of = drawn(CYCLIC), groups(UNITS)
    pairs = [p for p in combinations(range(UNITS), 2) if of[p[0]] == of[p[1]]]
    assert pairs
    together = [(table[:, i] & table[:, j]).sum() for i, j in pairs]
    assert within(together, STEPS // 4, CYCLIC.rate**2, len(pairs))
    turns = [table[of[unit] :: 4, unit] for unit in range(UNITS)]
    again = [(turn[1::2] & turn[::2]).sum() for turn in turns]
    assert within(again, STEPS // 8, CYCLIC.rate**2, UNITS)


def test_cyclic_adding_a_unit_moves_nobody_else():
    for step in range(50):
        few = CYCLIC.draw(UNITS, step, KEY, b"").tolist()
        more = CYCLIC.draw(UNITS + 1, step, KEY, b"").tolist()
        assert [i for i in more if i < UNITS] == few


def test_cyclic_coins_fall_anew_on_other_inputs_and_groups_stay():
    large = CyclicPoisson(100.0, 1000, 4)
    draws = [large.draw(1000, 2, KEY, bytes([i])).tolist() for i in range(20)]
    assert len({tuple(draw) for draw in draws}) == 20
    assert {of for draw in draws for of in groups(1000)[draw]} == {2}


def test_poisson_units_enter_independently_of_each_other():
    table = drawn(DRAWS["poisson"])
    pairs = list(combinations(range(UNITS), 2))
    together = [(table[:, i] & table[:, j]).sum() for i, j in pairs]
    assert within(together, STEPS, (3 / UNITS) ** 2, len(pairs))


def test_poisson_units_enter_independently_of_the_step_before():
    table = drawn(DRAWS["poisson"])
    again = (table[1::2] & table[::2]).sum(0)
    assert within(again, STEPS // 2, (3 / UNITS) ** 2, UNITS)


def test_poisson_batch_sizes_are_binomial():
    sizes = drawn(DRAWS["poisson"]).sum(1)
    for size in range(UNITS + 1):
        probability = binom.pmf(size, UNITS, 3 / UNITS)
        assert within((sizes == size).sum(), STEPS, probability, UNITS + 1)


def test_poisson_rate_is_declared_and_does_not_follow_the_units_at_hand():
    half = drawn(DRAWS["poisson"], units=UNITS // 2)
    assert within(half.sum(0), STEPS, 3 / UNITS, UNITS // 2)


def test_poisson_adding_a_unit_moves_no_other_units_coin():
    for step in range(50):
        few = DRAWS["poisson"].draw(UNITS, step, KEY, b"").tolist()
        more = DRAWS["poisson"].draw(UNITS + 1, step, KEY, b"").tolist()
        assert [i for i in more if i < UNITS] == few


def test_poisson_draws_anew_on_other_inputs():
    draws = {tuple(DRAWS["poisson"].draw(1000, 0, KEY, bytes([i])).tolist()) for i in range(20)}
    assert len(draws) == 20


@pytest.mark.parametrize(("batch", "size"), [(3, 12), (5, 12), (12, 12), (3, 7), (5, 5)])
def test_a_shuffle_meets_each_unit_at_most_once_an_epoch(batch, size):
    sampling, steps = Shuffled(batch, size), UNITS // batch
    assert sampling.epoch <= steps, "more units than declared make a longer epoch"
    for epoch in range(5):
        draws = [sampling.draw(UNITS, epoch * steps + i, KEY, b"") for i in range(steps)]
        met = torch.cat(draws).tolist()
        assert len(set(met)) == len(met) == batch * steps
        assert {len(draw) for draw in draws} == {batch}


def test_fewer_units_than_declared_make_smaller_batches_and_no_shorter_epoch():
    sampling = Shuffled(5, 40)
    for epoch in range(5):
        draws = [sampling.draw(UNITS, epoch * 8 + i, KEY, b"") for i in range(8)]
        assert sorted(torch.cat(draws).tolist()) == list(range(UNITS))


def test_a_shuffle_is_keyed_by_its_epoch_alone():
    sampling = DRAWS["shuffled"]
    assert torch.equal(sampling.draw(UNITS, 5, KEY, b"a"), sampling.draw(UNITS, 5, KEY, b"b"))
    assert not torch.equal(sampling.draw(UNITS, 1, KEY, b""), sampling.draw(UNITS, 5, KEY, b""))


def test_shuffled_pairs_meet_as_often_as_in_a_random_order():
    table = drawn(DRAWS["shuffled"], steps=STEPS)
    pairs = list(combinations(range(UNITS), 2))
    together = [(table[:, i] & table[:, j]).sum() for i, j in pairs]
    # Four steps make an epoch; a pair meets in at most one of them, so epochs are the trials.
    probability = 4 * (3 * 2) / (UNITS * (UNITS - 1))
    assert within(together, STEPS // 4, probability, len(pairs))


FIXED = DRAWS["fixed size"]


def test_fixed_size_draws_hold_as_many_and_all_pairs_alike():
    table = drawn(FIXED)
    assert set(table.sum(1)) == {3}
    pairs = list(combinations(range(UNITS), 2))
    together = [(table[:, i] & table[:, j]).sum() for i, j in pairs]
    assert within(together, STEPS, 3 * 2 / (UNITS * (UNITS - 1)), len(pairs))


def test_fixed_size_draws_are_independent_of_the_step_before_and_anew_on_other_inputs():
    table = drawn(FIXED)
    assert within((table[1::2] & table[::2]).sum(0), STEPS // 2, (3 / UNITS) ** 2, UNITS)
    large = FixedSize(100, 1000)
    draws = {tuple(large.draw(1000, 0, KEY, bytes([i])).tolist()) for i in range(20)}
    assert len(draws) == 20


def test_every_set_of_a_fixed_size_is_drawn_equally_often():
    small, sets = FixedSize(2, 4), list(combinations(range(4), 2))
    draws = [tuple(small.draw(4, step, KEY, b"").tolist()) for step in range(STEPS)]
    assert within([draws.count(each) for each in sets], STEPS, 1 / len(sets), len(sets))


BINS, ANEW = DRAWS["balls in bins"], DRAWS["balls in bins, anew"]


@pytest.mark.parametrize("sampling", [BINS, ANEW], ids=["fixed", "anew"])
def test_each_ball_is_in_one_bin_of_a_round(sampling):
    table = drawn(sampling, steps=80)
    assert (table.reshape(20, 4, UNITS).sum(1) == 1).all()
    same = (table.reshape(20, 4, UNITS) == table[:4]).all()
    assert same == (sampling is BINS)


def bins_of(units, source):
    """(units,) of a round of four."""
    found = np.full(units, -1)
    for step in range(4):
        found[BallsInBins(units, 4).draw(units, step, source, b"").numpy()] = step
    return found


def test_balls_are_thrown_uniformly_and_independently():
    of = bins_of(8000, KEY)
    assert within(np.bincount(of, minlength=4), 8000, 1 / 4, 4)
    assert within((of[1:] == of[:-1]).sum(), 7999, 1 / 4, 1)
    assert within((of == bins_of(8000, Source(bytes(32)))).sum(), 8000, 1 / 4, 1)


def test_pairs_of_balls_meet_as_often_as_independent_ones():
    table = drawn(ANEW)
    pairs = list(combinations(range(UNITS), 2))
    together = [(table[:, i] & table[:, j]).sum() for i, j in pairs]
    assert within(together, STEPS // 4, 1 / 4, len(pairs))
    again = [(table[3::8, i] & table[4::8, i]).sum() for i in range(UNITS)]
    assert within(again, STEPS // 8, 1 / 16, UNITS)


def test_a_ball_more_moves_no_other_ball_and_other_inputs_none():
    for sampling in (BINS, ANEW):
        for step in range(20):
            few = sampling.draw(UNITS, step, KEY, b"a").tolist()
            more = sampling.draw(UNITS + 1, step, KEY, b"b").tolist()
            assert [i for i in more if i < UNITS] == few


def test_a_full_batch_is_everything():
    assert DRAWS["full"].draw(UNITS, 9, KEY, b"").tolist() == list(range(UNITS))

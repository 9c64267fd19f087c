"""What holds for every gradient sum, under every rule that it accepts, on the whole zoo."""

import functools
import math
from typing import get_args

import pytest
import torch
from torch import nn

from nacre.adversarial_training import PGD, Ball, Madry, Mart, StandardTraining, Trades
from nacre.core import rows
from nacre.core.random import Source
from nacre.core.tensors import norm, trainable
from nacre.core.types import BoundedSum, FeatureSpace
from nacre.data.augment import Copies
from nacre.gradient_clipping import (
    CLIP_RULES,
    GRADIENT_SUMS,
    BookKeeping,
    Flat,
    Ghost,
    Looped,
    Unclipped,
    Whole,
)
from nacre.gradient_clipping.choose import Name
from nacre.training.augmented import Augmented
from tests.laws.zoo import GROUPS, MLP, ZOO, distance, joined, snapshot

pytestmark = pytest.mark.slow

SOURCE = Source(bytes(32))
ROUNDING = 1e-5  # float32 sums of a dozen terms, added in another order, relative to the sum
BOUND = 0.3  # below the norm of most of the zoo's gradients, above that of some

PER_UNIT = [kind for kind in GRADIENT_SUMS if kind.per_unit]
animals = pytest.mark.parametrize("animal", ZOO, ids=lambda animal: animal.name)
sums = pytest.mark.parametrize("kind", GRADIENT_SUMS)


def _rules(kind):
    """Every rule that this gradient sum says it carries."""
    rules = [rule() if rule is Unclipped else rule(norm=BOUND) for rule in CLIP_RULES]
    return [rule for rule in rules if kind.refuses(rule) is None]


def _bounding(kind):
    """Those of them that bound a unit's share."""
    return [rule for rule in _rules(kind) if math.isfinite(rule.bound(1))]


def _plain(animal):
    return StandardTraining().build(animal.task, FeatureSpace(animal.shape))


def _sum(kind, animal, batch, clip, objective=None, model=None):
    return _one(kind, animal, objective)(model or animal.model(), batch, clip, SOURCE)


def _one(kind, animal, objective=None):
    """The kind as a run has it: one for all its batches, which it learns on the first."""
    return kind(objective or _plain(animal))


def _objectives(animal):
    pgd = PGD(ball=Ball(radius=0.1), steps=2)
    options = [StandardTraining(), Madry(attack=pgd, clean_share=0.3), Trades(attack=pgd)]
    if animal.task.kind == "classification":
        options.append(Mart(attack=pgd))
    built = [option.build(animal.task, FeatureSpace(animal.shape)) for option in options]
    yield from built
    if len(animal.shape) == 3:
        for objective in built[2:]:
            yield Augmented(objective, Copies(count=2, flip=True, shift=1, noise=0.3))


def _pairs(kind, animal):
    """Every rule with the number of an objective of this animal, and every objective: pairs that
    differ between the animals, so that a kind meets all pairs on some animal or other."""
    rules, objectives = _rules(kind), len(list(_objectives(animal)))
    for number in range(max(len(rules), objectives)):
        yield rules[number % len(rules)], (number + ZOO.index(animal)) % objectives


def _two(kind, animal):
    """Two rules, each with an objective. They go round from animal to animal, so that a kind meets
    every rule on three animals at least, with every objective: for laws of what stands in front
    of the rule."""
    rules, objectives = _rules(kind), list(_objectives(animal))
    for number in (2 * ZOO.index(animal), 2 * ZOO.index(animal) + 1):
        yield rules[number % len(rules)], objectives[number % len(objectives)]


@functools.cache
def _looped(animal, number, clip):
    """What the loop gives for seven units and the animal's objective of this number."""
    return _sum(Looped, animal, animal.batch(7), clip, list(_objectives(animal))[number])


def _close(a, b):
    return distance(a.total, b.total) <= ROUNDING * max(1.0, norm(b.total))


def test_each_sum_refuses_what_it_cannot_carry_and_no_more():
    """Which rules each carries follows from the rule's bound and groups, not from its name."""
    for kind in GRADIENT_SUMS:
        for rule in (rule() if rule is Unclipped else rule(norm=BOUND) for rule in CLIP_RULES):
            bounded, parts = (
                math.isfinite(rule.bound(1)),
                len(rule.groups(["0.weight", "1.weight"])),
            )
            fits = kind.per_unit or not bounded
            assert (kind.refuses(rule) is None) == (fits and (kind.per_part or parts == 1))
            assert rule.one_factor == (parts == 1)
            half = kind.refuses(rule, "bfloat16")
            assert (half is None) == (kind.refuses(rule) is None and kind.half_precision)
    assert all(Looped.refuses(rule) is None for rule in _rules(Looped)), "the loop carries them all"
    assert {kind.kind for kind in GRADIENT_SUMS} | {"auto"} == set(get_args(Name))


@animals
@sums
def test_neighbouring_batches_differ_by_at_most_the_sensitivity(kind, animal):
    """Each rule with another unit, and another from animal to animal."""
    chosen, model = _one(kind, animal), animal.model()
    base, one, other = animal.batch(4), animal.batch(3, seed=1), animal.batch(3, seed=2)
    for number, clip in enumerate(_rules(kind), ZOO.index(animal)):
        index = slice(number % 3, number % 3 + 1)
        without = chosen(model, base, clip, SOURCE)
        added = chosen(model, joined(base, rows.select(one, index)), clip, SOURCE)
        replaced = chosen(model, joined(base, rows.select(other, index)), clip, SOURCE)
        slack = ROUNDING * norm(without.total)
        moved = distance(added.total, without.total)
        assert moved <= added.sensitivity("add_or_remove") + slack
        moved = distance(added.total, replaced.total)
        assert moved <= added.sensitivity("replace_one") + slack


@animals
@pytest.mark.parametrize("kind", PER_UNIT)
def test_one_unit_alone_is_no_longer_than_the_bound(kind, animal):
    """Each rule and each of four units at each scale, in pairs that differ between animals."""
    chosen, model, rules = _one(kind, animal), animal.model(), _bounding(kind)
    for turned, scale in enumerate((1.0, 1e4, 1e12), ZOO.index(animal)):
        batch = animal.batch(4)  # among groups one of each number of rows
        batch["features"] = batch["features"] * scale
        for unit in range(4):
            single = rows.select(batch, slice(unit, unit + 1))
            total = chosen(model, single, rules[(unit + turned) % len(rules)], SOURCE)
            assert norm(total.total) <= total.bound
            assert BOUND <= total.bound <= 1.01 * BOUND


@animals
@sums
def test_every_sum_equals_the_loop(kind, animal):
    batch, objectives = animal.batch(7), list(_objectives(animal))
    for clip, number in _pairs(kind, animal):
        total = _sum(kind, animal, batch, clip, objectives[number])
        loop = _looped(animal, number, clip)
        assert _close(total, loop)
        assert total.bound == loop.bound


@pytest.mark.diagonal
@animals
@sums
def test_totals_are_float32_and_cover_the_trainable_parameters(kind, animal):
    expected = {name: p.shape for name, p in trainable(animal.model()).items()}
    for clip in _rules(kind):
        along = {name: value.shape for name, value in clip.extras(torch.zeros(0, 1)).items()}
        for batch in (animal.batch(3), animal.batch(0)):
            total = _sum(kind, animal, batch, clip).total
            assert {name: value.shape for name, value in total.items()} == expected | along
            assert all(value.dtype == torch.float32 for value in total.values())
            assert not any(value.requires_grad for value in total.values())


@pytest.mark.diagonal(always=(BookKeeping, Ghost))
@animals
@sums
def test_any_split_and_any_order_give_the_same_sum(kind, animal):
    batch = animal.batch(7)
    for clip, objective in _two(kind, animal):
        whole = _sum(kind, animal, batch, clip, objective)
        parts = [rows.select(batch, s) for s in (slice(0, 1), slice(1, 5), slice(5, 7))]
        a, b, c = (_sum(kind, animal, part, clip, objective) for part in parts)
        turned = rows.select(batch, torch.arange(6, -1, -1))
        assert _close(a + b + c, whole)
        assert _close(c + (a + b), whole)
        assert _close(_sum(kind, animal, turned, clip, objective), whole)
        assert (a + b + c).bound == whole.bound


@pytest.mark.diagonal
@animals
@sums
def test_an_empty_draw_gives_the_zero_sum(kind, animal):
    for clip in _rules(kind):
        for objective in _objectives(animal):
            total = _sum(kind, animal, animal.batch(0), clip, objective)
            assert norm(total.total) == 0.0
            assert total.bound == clip.bound(1)
            assert total.local.dropped == 0


@animals
@sums
def test_a_unit_that_is_not_finite_contributes_nothing(kind, animal):
    good, poisoned = animal.batch(3), animal.batch(4, seed=1)
    poisoned = rows.select(poisoned, slice(3, 4))  # among groups the one with every row
    for clip, _ in _two(kind, animal):
        without = _sum(kind, animal, good, clip)
        for bad in (float("nan"), float("inf")):
            poisoned["features"] = torch.full_like(poisoned["features"], bad)
            alone = _sum(kind, animal, poisoned, clip)
            assert alone.local.dropped == 1
            assert norm(alone.total) == 0.0
            both = _sum(kind, animal, joined(good, poisoned), clip)
            assert both.local.dropped == 1
            assert _close(both, without)


@animals
@sums
def test_padding_contributes_nothing_and_is_not_counted(kind, animal):
    batch = animal.batch(5)
    batch["present"][3:] = False
    batch["features"][4] = float("nan")
    for clip, objective in _two(kind, animal):
        padded = _sum(kind, animal, batch, clip, objective)
        short = _sum(kind, animal, rows.select(batch, slice(3)), clip, objective)
        assert _close(padded, short)
        assert padded.local.dropped == 0
        assert torch.equal(padded.local.norms, short.local.norms)


@animals
def test_whole_is_the_gradient_of_the_summed_losses(animal):
    model, batch = animal.model(), animal.batch(6)
    total = _sum(Whole, animal, batch, Unclipped())
    animal.task.losses(model, batch).sum().backward()
    plain = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in trainable(model).items()
    }
    assert _close(total, BoundedSum(plain, math.inf))


@pytest.mark.diagonal
@animals
@sums
def test_the_model_is_left_as_it_was(kind, animal):
    model = animal.model().train()
    next(model.children()).eval()  # a mode of its own, which is to survive
    before = snapshot(model)
    for clip, objective in _two(kind, animal):
        _sum(kind, animal, animal.batch(3), clip, objective, model)
        assert snapshot(model) == before


@sums
def test_a_sum_works_inside_no_grad(kind):
    clip = _rules(kind)[0]
    with torch.no_grad():
        total = _sum(kind, MLP, MLP.batch(3), clip)
    assert _close(total, _sum(kind, MLP, MLP.batch(3), clip))


class Counting(nn.Module):
    """Counts its calls in a buffer: state that would leak from one unit to the next."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.ones(()))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        self.calls.add_(1)
        return self.head(x) * self.calls


@pytest.mark.parametrize("kind", [Looped, Whole])
def test_a_buffer_that_counts_neither_moves_nor_leaks(kind):
    model, clip = Counting(), Unclipped()
    batch = MLP.batch(4)
    total = _sum(kind, MLP, batch, clip, model=model)
    assert model.calls == 1.0
    singles = [rows.select(batch, slice(i, i + 1)) for i in range(4)]
    a, b, c, d = (_sum(kind, MLP, single, clip, model=model) for single in singles)
    assert _close(a + b + c + d, total)


def test_a_group_is_one_unit_however_many_rows_it_holds():
    batch = GROUPS.batch(4)
    for kind in PER_UNIT:
        total = _sum(kind, GROUPS, batch, Flat(norm=BOUND))
        assert total.local.norms.shape == (4, 1)
        assert norm(total.total) <= 4 * BOUND


@pytest.mark.parametrize("animal", [a for a in ZOO if len(a.shape) == 3], ids=lambda a: a.name)
@pytest.mark.parametrize("kind", PER_UNIT)
def test_copies_of_a_unit_move_the_sum_by_one_bounded_share(kind, animal):
    """However many they are; and what stood in the batch before keeps its own copies."""
    base, one = animal.batch(4), animal.batch(3, seed=1)
    for number, clip in enumerate(_bounding(kind)):
        copies = Copies(count=4, flip=True, shift=1, noise=0.3, include_original=number % 2 == 0)
        objective = Augmented(_plain(animal), copies)
        without = _sum(kind, animal, base, clip, objective)
        single = rows.select(one, slice(number % 3, number % 3 + 1))
        added = _sum(kind, animal, joined(base, single), clip, objective)
        alone = _sum(kind, animal, single, clip, objective)
        assert added.local.norms.shape[0] == 5
        assert norm(alone.total) <= alone.bound
        assert _close(added, without + alone)
        moved = distance(added.total, without.total)
        assert moved <= added.bound + ROUNDING * norm(without.total)

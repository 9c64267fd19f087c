"""What holds for every attack, in every ball, on any model."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nacre.adversarial_training import ATTACKS, PGD, Ball, attacked
from nacre.adversarial_training.attacks.judged import JudgedLosses
from nacre.core import rows
from nacre.core.parts import Task
from nacre.core.random import Source
from nacre.core.types import FeatureSpace, Losses
from tests.laws.zoo import GROUPS, MLP, ZOO, joined, snapshot

SOURCE = Source(bytes(32))
NAMES = ("a", "b", "c", "d", "e=x", "e=y")
SPACE = FeatureSpace(
    (6,),
    names=NAMES,
    scale=torch.tensor([1.0, 2.0, 0.5, 10.0, 1.0, 1.0]),
    low=torch.full((6,), -2.0),
    high=torch.full((6,), 2.0),
    categorical=("e=x", "e=y"),
)
BALLS = (
    Ball(kind="linf", radius=0.5),
    Ball(kind="l2", radius=0.5),
    Ball(kind="linf", radius=0.3, unit="features", radii={"b": 1.0}, frozen=("c",)),
    Ball(kind="l2", radius=0.3, unit="features", radii={"b": 1.0}, frozen=("c",)),
    Ball(kind="linf", radius=0.0),
    Ball(kind="l2", radius=0.0),
    Ball(kind="l1", radius=0.5),
    Ball(kind="l1", radius=0.3, unit="features", radii={"b": 1.0}, frozen=("c",)),
    Ball(kind="l1", radius=0.0),
)

LOSSES = JudgedLosses(MLP.task)

attacks = pytest.mark.parametrize("option", ATTACKS)
balls = pytest.mark.parametrize("ball", BALLS, ids=lambda ball: f"{ball.kind} {ball.radius}")
numbers = st.floats(-1e6, 1e6, width=32)


def _variants(option, ball):
    """The attack as it comes, and where it can, from the clean point and with restarts."""
    yield option(ball=ball)
    if option is PGD:
        yield PGD(ball=ball, random_start=False, steps=3)
        yield PGD(ball=ball, steps=3, step_size=2.0, restarts=3)
        yield PGD(ball=ball, steps=3, early_stop=0)
        yield PGD(ball=ball, steps=3, restarts=2, early_stop=1)


@dataclasses.dataclass
class Answered:
    """Losses of a test's own, with the answers of a task: for attacks that stop at a wrong one."""

    losses: Losses
    task: Task

    def __call__(self, model, batch):
        return self.losses(model, batch)

    def judged(self, model, batch):
        outputs = self.task.predict(model, batch["features"]).detach()
        return self.losses(model, batch), self.task.correct(outputs, batch["label"])


def _run(option, batch, model=None, space=SPACE, losses=None, source=SOURCE, task=MLP.task):
    answered = Answered(losses or task.losses, task)
    return option.build(space)(model or MLP.model(), batch, answered, source)


def _scores(features, batch):
    with torch.no_grad():
        return MLP.task.losses(MLP.model(), {**batch, "features": features})


@attacks
@balls
def test_the_result_lies_in_the_ball_and_is_never_easier_than_the_start(option, ball):
    batch = MLP.batch(9)
    batch["features"].clamp_(-2, 2)
    for variant in _variants(option, ball):
        moved = _run(variant, batch)["features"]
        assert ball.region(SPACE).contains(moved, batch["features"]).all()
        assert (_scores(moved, batch) >= _scores(batch["features"], batch)).all()
        assert moved.dtype == torch.float32
        assert not moved.requires_grad
        fixed = [i for i, name in enumerate(NAMES) if name in ("e=x", "e=y", *ball.frozen)]
        assert torch.equal(moved[:, fixed], batch["features"][:, fixed])


@attacks
@balls
def test_some_row_is_moved_unless_the_ball_is_a_point(option, ball):
    batch = MLP.batch(9)
    for variant in _variants(option, ball):
        moved = _run(variant, batch)["features"]
        assert bool((moved != batch["features"]).any()) == (ball.radius > 0)


@attacks
@balls
def test_changing_one_row_moves_no_other_row(option, ball):
    batch, other = MLP.batch(6), MLP.batch(6)
    other["features"][2] = -7 * other["features"][2] + 1
    other["label"][2] = (other["label"][2] + 1) % 3
    other["unit"][2] = 99
    rest = [0, 1, 3, 4, 5]
    for variant in _variants(option, ball):
        for bad in (1.0, float("nan"), 1e30):
            other["features"][2, 0] = bad
            before, after = _run(variant, batch)["features"], _run(variant, other)["features"]
            assert torch.equal(before[rest], after[rest])


@attacks
def test_random_starts_follow_the_unit_and_not_the_place(option):
    batch = MLP.batch(6)
    turned = rows.select(batch, torch.arange(5, -1, -1))
    for variant in _variants(option, BALLS[0]):
        moved, other = _run(variant, batch)["features"], _run(variant, turned)["features"]
        torch.testing.assert_close(moved, other.flip(0))
        again = _run(variant, batch, source=Source(bytes(32)))["features"]
        assert torch.equal(moved, again)


def test_random_starts_differ_by_source_by_unit_and_by_row_of_a_group():
    flat = rows.flatten(GROUPS.batch(4))
    clean = torch.zeros_like(flat["features"])
    flat = {**flat, "features": clean}
    free = [0, 1, 2, 3]

    def start(batch, source=SOURCE):
        attack = PGD(ball=BALLS[0], steps=1)
        return _run(attack, batch, losses=_length, source=source)["features"][:, free]

    first = start(flat)
    assert (first != start(flat, Source(b"1" * 32))).all()
    assert (first != start({**flat, "unit": flat["unit"] + 50})).all()
    assert len({tuple(row) for row in first.tolist()}) == len(first)


def _length(model, batch):
    """A loss that grows away from zero and that cannot be differentiated: starts stay put."""
    return batch["features"].detach().abs().sum(1)


@attacks
@pytest.mark.parametrize("animal", ZOO, ids=lambda animal: animal.name)
def test_every_model_is_attacked_and_left_as_it_was(option, animal):
    model, batch = animal.model().train(), rows.flatten(animal.batch(4))
    next(model.children()).eval()
    before = snapshot(model)
    for kind in ("linf", "l2", "l1"):
        for variant in _variants(option, Ball(kind=kind, radius=0.2)):
            space = FeatureSpace(animal.shape)
            moved = _run(variant, batch, model, space, task=animal.task)
            assert snapshot(model) == before
            assert moved.keys() == batch.keys()
            assert variant.ball.region(space).contains(moved["features"], batch["features"]).all()


@attacks
def test_dropout_and_frozen_weights_are_left_alone_and_do_not_matter(option):
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    model.requires_grad_(False)
    batch, before = MLP.batch(4), snapshot(model)
    for variant in _variants(option, BALLS[1]):
        moved = _run(variant, batch, model)["features"]
        assert torch.equal(moved, _run(variant, batch, model)["features"])
        assert snapshot(model) == before


@attacks
def test_an_exception_leaves_the_model_as_it_was(option):
    model = MLP.model().train()
    before = snapshot(model)

    def losses(model, batch):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        _run(option(ball=BALLS[0]), MLP.batch(2), model, losses=losses)
    assert snapshot(model) == before


@attacks
def test_attacks_work_inside_no_grad(option):
    for variant in _variants(option, BALLS[0]):
        with torch.no_grad():
            inside = _run(variant, MLP.batch(4))["features"]
        assert torch.equal(inside, _run(variant, MLP.batch(4))["features"])


@attacks
@balls
@pytest.mark.parametrize("factor", [0.0, float("nan"), float("inf"), 1e-30])
def test_a_gradient_that_is_zero_tiny_or_no_number_is_survived(option, ball, factor):
    batch = MLP.batch(4)
    batch["features"].clamp_(-2, 2)

    def losses(model, batch):
        return factor * batch["features"].sum(1)

    for variant in _variants(option, ball):
        moved = _run(variant, batch, losses=losses)["features"]
        assert ball.region(SPACE).contains(moved, batch["features"]).all()
        if factor != 1e-30:
            assert torch.equal(moved, batch["features"])
        elif ball.radius > 0 and getattr(variant, "early_stop", None) is None:
            assert (moved.sum(1) > batch["features"].sum(1)).all()


@attacks
def test_an_empty_batch_stays_empty(option):
    for variant in _variants(option, BALLS[0]):
        assert _run(variant, MLP.batch(0))["features"].shape == (0, 6)


@pytest.mark.slow
@attacks
@given(
    features=st.lists(st.lists(numbers, min_size=6, max_size=6), min_size=1, max_size=3),
    radius=st.floats(0, 1e3),
    kind=st.sampled_from(["linf", "l2", "l1"]),
    steps=st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_the_ball_holds_whatever_the_numbers(option, features, radius, kind, steps):
    clean = torch.tensor(features)
    batch = joined(*[rows.select(MLP.batch(1), slice(1))] * len(clean))
    batch = {**batch, "features": clean, "unit": torch.arange(len(clean))}
    ball = Ball(kind=kind, radius=radius, frozen=("b",), radii={"d": 3 * radius})
    variant = option(ball=ball)
    if option is PGD:
        variant = dataclasses.replace(variant, steps=steps)
    moved = _run(variant, batch)["features"]
    assert ball.region(SPACE).contains(moved, clean).all()
    assert torch.equal(moved[:, [1, 4, 5]], clean[:, [1, 4, 5]])


@attacks
@balls
def test_what_an_attack_claims_survives_being_judged_again(option, ball):
    batch = MLP.batch(7)
    region, model = ball.region(SPACE), MLP.model()
    for variant in _variants(option, ball):
        attack = variant.build(SPACE)
        claimed = attack(model, batch, LOSSES, SOURCE)["features"]
        judged = attacked(model, batch, LOSSES, attack, region, SOURCE, chunk=3)
        assert region.contains(judged["features"], batch["features"]).all()
        assert (_scores(judged["features"], batch) >= _scores(claimed, batch) - 1e-4).all()

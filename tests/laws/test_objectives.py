"""What holds for every objective: rows keep to themselves, and the special cases agree."""

import dataclasses

import pytest
import torch
from torch.func import grad, vmap

from nacre.adversarial_training import (
    ATTACKS,
    PGD,
    Ball,
    Fast,
    Madry,
    Mart,
    Ramp,
    StandardTraining,
    Trades,
)
from nacre.adversarial_training.objectives import INPUT_OBJECTIVES, at
from nacre.core import rows
from nacre.core.errors import Incompatible
from nacre.core.random import Source
from nacre.core.types import FeatureSpace
from tests.laws.zoo import GROUPS, MLP, ZOO, snapshot

SOURCE = Source(bytes(32))
BALL = Ball(radius=0.2)
BALLS = (BALL, Ball(kind="l2", radius=0.4), Ball(kind="l1", radius=0.8), Ball(radius=0.0))
animals = pytest.mark.parametrize("animal", ZOO, ids=lambda animal: animal.name)
objectives = pytest.mark.parametrize("option", INPUT_OBJECTIVES)


def _variants(option, ball=BALL):
    """The objective with every attack that it accepts, and with other weights."""
    attack = PGD(ball=ball, steps=3)
    last = PGD(ball=ball, steps=3, keep="last")
    if option is StandardTraining:
        yield option()
    elif option is Fast:
        yield Fast(ball=ball)
        yield Fast(ball=ball, start="uniform")
    else:
        yield option(attack=attack)
        yield option(attack=last)
        yield option(attack=dataclasses.replace(attack, early_stop=1))
        yield option(attack=dataclasses.replace(last, early_stop=0))
    if option in (Madry, Mart):
        yield from (option(attack=other(ball=ball)) for other in ATTACKS if other is not PGD)
    if option is Madry:
        yield Madry(attack=attack, clean_share=0.4)
        yield Madry(attack=attack, clean_share=1.0)
    if option is Trades:
        yield Trades(attack=attack, beta=0.0)
        yield Trades(attack=attack, beta=1.0)
    if option is Mart:
        yield Mart(attack=attack, beta=0.0)


def _fitting(option, animal, ball=BALL):
    """The variants, built, that this animal's task has a meaning for."""
    for variant in _variants(option, ball):
        try:
            yield variant, _build(variant, animal)
        except Incompatible:
            assert option is Mart
            assert animal.task.kind != "classification"


def _build(option, animal):
    return option.build(animal.task, FeatureSpace(animal.shape))


def _losses(objective, model, batch):
    return objective.losses(model, objective.perturb(model, batch, SOURCE))


@objectives
@animals
def test_changing_one_unit_moves_no_other_units_loss(option, animal):
    model, batch, other = animal.model(), animal.batch(5), animal.batch(5)
    other["features"][2] = -3 * other["features"][2] + 1
    rest = [0, 1, 3, 4]
    for _, objective in _fitting(option, animal):
        before, after = _losses(objective, model, batch), _losses(objective, model, other)
        assert before.shape == (5,)
        torch.testing.assert_close(before[rest], after[rest], rtol=1e-5, atol=1e-6)
        # Among groups, unit 2 holds two rows; everywhere else it holds one: its own loss moves.
        assert before[2] != after[2]


@objectives
@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: f"{ball.kind} {ball.radius}")
@animals
def test_the_perturbation_of_a_row_is_its_own_bit_for_bit(option, ball, animal):
    """What differential privacy rests on: see `nacre.adversarial_training.objectives`."""
    model, batch, other = animal.model(), animal.batch(5), animal.batch(5)
    other["features"][2] = -3 * other["features"][2] + 1
    other["unit"][2] = 99
    if animal.task.kind == "classification":
        other["label"][2] = (other["label"][2] + 1) % animal.task.outputs
    rest = [0, 1, 3, 4]
    for _, objective in _fitting(option, animal, ball):
        before = objective.perturb(model, batch, SOURCE).get("adversarial", batch["features"])
        after = objective.perturb(model, other, SOURCE).get("adversarial", other["features"])
        assert torch.equal(before[rest], after[rest])


@objectives
def test_a_ramp_begins_small_and_ends_at_the_whole_threat(option):
    if option is StandardTraining:
        return
    model, batch = MLP.model(), MLP.batch(6)
    for variant in _variants(option):
        whole = _build(variant, MLP)
        ramped = _build(dataclasses.replace(variant, ramp=Ramp(share=0.5, radius=0.1)), MLP)
        moves = [
            objective.perturb(model, batch, SOURCE).get("adversarial", batch["features"])
            for objective in (at(ramped, 0.0), at(ramped, 0.5), at(whole, 0.0), at(ramped, 1.0))
        ]
        assert torch.equal(moves[1], moves[2])
        assert torch.equal(moves[3], moves[2])
        far = [float((moved - batch["features"]).abs().max()) for moved in moves]
        assert far[0] <= 0.1 * _reach(variant) + 1e-6
        assert far[0] <= far[2]


@objectives
@animals
def test_a_unit_alone_has_the_loss_it_has_in_company(option, animal):
    model, batch = animal.model(), animal.batch(4)
    for _, objective in _fitting(option, animal):
        together = _losses(objective, model, batch)
        for unit in range(4):
            alone = _losses(objective, model, rows.select(batch, slice(unit, unit + 1)))
            torch.testing.assert_close(alone[0], together[unit], rtol=1e-4, atol=1e-5)


@objectives
@animals
def test_perturb_adds_entries_and_touches_nothing(option, animal):
    model, batch = animal.model().train(), animal.batch(4)
    before, copies = snapshot(model), {name: value.clone() for name, value in batch.items()}
    for variant, objective in _fitting(option, animal):
        moved = objective.perturb(model, batch, SOURCE)
        assert snapshot(model) == before
        assert moved.keys() - batch.keys() <= {"adversarial"}
        assert all(torch.equal(moved[name], copies[name]) for name in copies)
        if "adversarial" in moved:
            assert moved["adversarial"].shape == batch["features"].shape
            assert not moved["adversarial"].requires_grad
            far = (moved["adversarial"] - batch["features"]).abs().max()
            assert float(far) <= _reach(variant) + 1e-5


@objectives
@animals
def test_losses_can_be_differentiated_for_all_units_at_once(option, animal):
    model = animal.model()
    for _, objective in _fitting(option, animal):
        batch = objective.perturb(model, animal.batch(3), SOURCE)

        def loss(features, unit, objective=objective):
            alone = {name: value[None] for name, value in {**unit, "features": features}.items()}
            return objective.losses(model, alone)[0]

        slopes = vmap(grad(loss), randomness="different")(batch["features"], batch)
        assert slopes.shape == batch["features"].shape


@animals
def test_without_a_share_for_the_adversary_it_is_standard_training(animal):
    model, batch = animal.model(), animal.batch(4)
    attack = PGD(ball=Ball(radius=0.2), steps=2)
    standard = _losses(_build(StandardTraining(), animal), model, batch)
    for option in (Madry(attack=attack, clean_share=1.0), Trades(attack=attack, beta=0.0)):
        assert torch.equal(_losses(_build(option, animal), model, batch), standard)
    point = PGD(ball=Ball(radius=0.0), steps=2)
    for option in (Madry(attack=point), Madry(attack=point, clean_share=0.5), Trades(attack=point)):
        torch.testing.assert_close(_losses(_build(option, animal), model, batch), standard)


@objectives
@animals
def test_an_adversary_never_makes_the_loss_smaller(option, animal):
    model, batch = animal.model(), animal.batch(6)
    standard = animal.task.losses(model, batch)
    for variant, objective in _fitting(option, animal):
        if _compares(variant):
            assert (_losses(objective, model, batch) >= standard - 1e-5).all()


def _reach(variant):
    """How far an entry may be moved in training: N-FGSM leaves the ball."""
    return 0.6 if isinstance(variant, Fast) and variant.start == "noise" else 0.2


def _compares(variant):
    """Whether the points of the search are compared by their loss: `keep: last` and Fast take
    what they come to."""
    attack = getattr(variant, "attack", None)
    return not isinstance(variant, Fast) and getattr(attack, "keep", "worst") == "worst"


@objectives
def test_an_empty_batch_has_no_losses(option):
    for animal in (MLP, GROUPS):
        for _, objective in _fitting(option, animal):
            losses = _losses(objective, animal.model(), animal.batch(0))
            assert losses.shape == (0,)

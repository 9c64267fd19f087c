"""What holds for every objective: rows keep to themselves, and the special cases agree."""

import pytest
import torch
from torch.func import grad, vmap

from nacre.adversarial_training import (
    PGD,
    Ball,
    Madry,
    StandardTraining,
    Trades,
)
from nacre.adversarial_training.objectives import INPUT_OBJECTIVES
from nacre.core import rows
from nacre.core.random import Source
from nacre.core.types import FeatureSpace
from tests.laws.zoo import GROUPS, MLP, ZOO, snapshot

SOURCE = Source(bytes(32))
animals = pytest.mark.parametrize("animal", ZOO, ids=lambda animal: animal.name)
objectives = pytest.mark.parametrize("option", INPUT_OBJECTIVES)


def _variants(option):
    """The objective with every attack that it accepts, and with other weights."""
    attack = PGD(ball=Ball(radius=0.2), steps=3)
    if option is StandardTraining:
        yield option()
    else:
        yield option(attack=attack)
    if option is Madry:
        yield Madry(attack=attack, clean_share=0.4)
        yield Madry(attack=attack, clean_share=1.0)
    if option is Trades:
        yield Trades(attack=attack, beta=0.0)
        yield Trades(attack=attack, beta=1.0)


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
    for variant in _variants(option):
        objective = _build(variant, animal)
        before, after = _losses(objective, model, batch), _losses(objective, model, other)
        assert before.shape == (5,)
        torch.testing.assert_close(before[rest], after[rest], rtol=1e-5, atol=1e-6)
        # Among groups, unit 2 holds two rows; everywhere else it holds one: its own loss moves.
        assert before[2] != after[2]


@objectives
@animals
def test_a_unit_alone_has_the_loss_it_has_in_company(option, animal):
    model, batch = animal.model(), animal.batch(4)
    for variant in _variants(option):
        objective = _build(variant, animal)
        together = _losses(objective, model, batch)
        for unit in range(4):
            alone = _losses(objective, model, rows.select(batch, slice(unit, unit + 1)))
            torch.testing.assert_close(alone[0], together[unit], rtol=1e-4, atol=1e-5)


@objectives
@animals
def test_perturb_adds_entries_and_touches_nothing(option, animal):
    model, batch = animal.model().train(), animal.batch(4)
    before, copies = snapshot(model), {name: value.clone() for name, value in batch.items()}
    for variant in _variants(option):
        moved = _build(variant, animal).perturb(model, batch, SOURCE)
        assert snapshot(model) == before
        assert moved.keys() - batch.keys() <= {"adversarial"}
        assert all(torch.equal(moved[name], copies[name]) for name in copies)
        if "adversarial" in moved:
            assert moved["adversarial"].shape == batch["features"].shape
            assert not moved["adversarial"].requires_grad
            assert bool((moved["adversarial"] - batch["features"]).abs().max() <= 0.2 + 1e-5)


@objectives
@animals
def test_losses_can_be_differentiated_for_all_units_at_once(option, animal):
    model = animal.model()
    for variant in _variants(option):
        objective = _build(variant, animal)
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
    for variant in _variants(option):
        assert (_losses(_build(variant, animal), model, batch) >= standard - 1e-5).all()


@objectives
def test_an_empty_batch_has_no_losses(option):
    for animal in (MLP, GROUPS):
        for variant in _variants(option):
            losses = _losses(_build(variant, animal), animal.model(), animal.batch(0))
            assert losses.shape == (0,)

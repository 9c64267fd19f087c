"""What holds for every attack that a cascade runs, under every threat, on any model."""

import pytest
import torch
from torch import nn

from nacre.adversarial_training import Ball
from nacre.adversarial_training.evaluation.access import Scorer
from nacre.adversarial_training.evaluation.cascade import STANDING, Cascade
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.evaluation.stages.climb import Climb
from nacre.adversarial_training.evaluation.stages.listed import STAGES
from nacre.adversarial_training.evaluation.untouched import untouched
from nacre.core.random import Source
from nacre.core.types import FeatureSpace
from tests.laws.zoo import snapshot

SOURCE = Source(bytes(32))
SPACE = FeatureSpace((6,), low=torch.full((6,), -1.0), high=torch.full((6,), 1.0))
BALLS = {kind: Ball(kind=kind, radius=r) for kind, r in (("linf", 0.2), ("l2", 0.4), ("l1", 0.6))}

stages = pytest.mark.parametrize("made", STAGES, ids=lambda stage: stage.__name__)
balls = pytest.mark.parametrize("kind", BALLS)


def _model(outputs=4):
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, outputs))


def _rows(model, count=40, towards=None):
    torch.manual_seed(5)
    clean = torch.rand(count, 6) * 2 - 1
    label = model(clean).argmax(1) if model is not None else torch.zeros(count, dtype=torch.int64)
    return Inputs(torch.arange(count), torch.arange(count), clean, label, towards)


def _short(made):
    """The stage with few enough evaluations for a law."""
    steps = {"Square": {"queries": 60}, "ColumnSearch": {"queries": 60}}
    return made(**steps.get(made.__name__, {"steps": 20}))


def _found(stage, kind, model, rows, width=16):
    with untouched(model):
        return Cascade((stage,), width)(Scorer(model), BALLS[kind].region(SPACE), rows, SOURCE)


@stages
@balls
def test_all_points_lie_in_the_region_and_break_what_they_say(made, kind):
    model = _model()
    rows = _rows(model)
    found = _found(_short(made), kind, model, rows)
    assert BALLS[kind].region(SPACE).contains(found.points, rows.clean).all()
    assert torch.equal(model(found.points).argmax(1) != rows.label, found.by != STANDING)
    assert 0 < (found.by != STANDING).sum() < len(rows)
    assert torch.equal(found.margins > 0, found.by != STANDING)


@stages
@balls
def test_width_and_neighbours_change_nothing(made, kind):
    model = _model().double()
    rows = _rows(model.float())
    model, rows = (
        model.double(),
        Inputs(rows.place, rows.unit, rows.clean.double(), rows.label),
    )
    whole = _found(_short(made), kind, model, rows, width=40)
    for width in (1, 7):
        assert torch.equal(_found(_short(made), kind, model, rows, width).by, whole.by)
    turned = rows.take(torch.arange(39, -1, -1))
    turned = Inputs(torch.arange(40), turned.unit, turned.clean, turned.label)
    assert torch.equal(_found(_short(made), kind, model, turned).by.flip(0), whole.by)


@stages
@balls
def test_the_model_is_left_as_it_was(made, kind):
    model = _model()
    rows = _rows(model)
    model.train()
    model[0].weight.requires_grad_(False)
    model[0].bias.grad = torch.ones(16)
    before, random = snapshot(model), torch.get_rng_state()
    _found(_short(made), kind, model, rows)
    assert snapshot(model) == before
    assert torch.equal(torch.get_rng_state(), random)


@stages
@balls
def test_an_exception_leaves_the_model_as_it_was(made, kind):
    model = _model().train()
    rows, before, calls = _rows(model), snapshot(model), []

    def predict(x):
        calls.append(len(x))
        if len(calls) > 4:
            raise KeyboardInterrupt
        return model(x)

    with pytest.raises(KeyboardInterrupt), untouched(model):
        Cascade((_short(made),), 16)(Scorer(predict), BALLS[kind].region(SPACE), rows, SOURCE)
    assert snapshot(model) == before


@stages
@balls
def test_a_class_that_is_aimed_at_is_reached_or_the_row_stands(made, kind):
    model = _model()
    rows = _rows(model, towards=2)
    found = _found(_short(made), kind, model, rows)
    assert torch.equal(model(found.points).argmax(1) == 2, found.by != STANDING)


@stages
@balls
@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_few_classes_and_a_single_output_are_attacked(made, kind, outputs):
    model = _model(outputs)
    rows = _rows(None)
    with torch.no_grad():
        label = Scorer(model)(rows.clean).argmax(1)
    rows = Inputs(rows.place, rows.unit, rows.clean, label)
    found = _found(_short(made), kind, model, rows)
    with torch.no_grad():
        again = Scorer(model)(found.points).argmax(1)
    assert torch.equal(again != label, found.by != STANDING)
    assert (found.by != STANDING).any()


@balls
def test_what_is_broken_is_counted_by_hand(kind):
    """A climb without a queue: the same points, the same rows broken."""
    model, stage = _model().double(), Climb(start=None, steps=5)
    rows = _rows(model.float())
    model = model.double()
    x, region = rows.clean.double(), BALLS[kind].region(SPACE)
    rows = Inputs(rows.place, rows.unit, x, rows.label)
    broken = torch.zeros(len(rows), dtype=torch.bool)
    for _ in range(6):
        leaf = x.clone().requires_grad_()
        scores = model(leaf)
        broken |= scores.argmax(1) != rows.label
        loss = nn.functional.cross_entropy(scores, rows.label, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
        x = region.project(x + region.steepest(gradient, 0.5), rows.clean)
    assert torch.equal(_found(stage, kind, model, rows, width=40).by != STANDING, broken)

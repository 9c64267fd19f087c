"""A climb that goes round ends, and what it finds is the same."""

import pytest
import torch

from nacre.adversarial_training import Ball
from nacre.adversarial_training.evaluation.access import Scorer
from nacre.adversarial_training.evaluation.cascade import Cascade
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.evaluation.stages.climb import Climb
from nacre.core.random import Source
from nacre.core.types import FeatureSpace

ROWS, FEATURES = 60, 4


def _waves(x):
    """Scores with hills that no gradient step climbs to the top of; row by row sums, so that a
    row's bits do not depend on its neighbours."""
    weight = torch.tensor([3.0, -2.0, 5.0, 1.5])
    return torch.stack([torch.zeros(len(x)), (torch.sin(3 * x) * weight).sum(1) - 2], 1)


def _climbed(kind, **options):
    generator = torch.Generator().manual_seed(1)
    clean = torch.rand(ROWS, FEATURES, generator=generator)
    label = _waves(clean).argmax(1)
    rows = Inputs(torch.arange(ROWS), torch.arange(ROWS), clean, label)
    scorer, seen = Scorer(_waves), []

    def predict(x):
        seen.append(x)
        return _waves(x)

    scorer = Scorer(predict)
    region = Ball(kind=kind, radius=0.3).region(FeatureSpace((FEATURES,)))
    found = Cascade((Climb(**options),), ROWS)(scorer, region, rows, Source(bytes(32)))
    return found, scorer.queries, {tuple(row) for x in seen for row in x.tolist()}


@pytest.mark.parametrize("kind", ["linf", "l2", "l1"])
@pytest.mark.parametrize("step", [None, 0.37, 2.0])
def test_the_same_bits_with_and_without_ends(kind, step):
    found, spent, seen = _climbed(kind, steps=80, step=step)
    whole, more, all_seen = _climbed(kind, steps=80, step=step, cycles=False)
    assert torch.equal(found.by, whole.by)
    assert torch.equal(found.points, whole.points)
    assert torch.equal(found.steps, whole.steps)
    assert torch.equal(found.margins, whole.margins)
    assert seen == all_seen  # every point that the whole climb visits
    assert spent.backwards <= more.backwards


def test_going_round_saves_most_of_a_long_climb():
    _, spent, _ = _climbed("linf", steps=200, step=0.25)
    _, more, _ = _climbed("linf", steps=200, step=0.25, cycles=False)
    assert spent.backwards < 0.4 * more.backwards


def test_equal_losses_alone_are_no_cycle():
    """A flat loss whose points go on: no row may end."""

    def flat(x):
        return torch.stack([1 + 0 * x[:, 0], 0 * x[:, 0] - torch.relu(-x[:, 0] + 5)], 1) * 1e-30

    clean = torch.zeros(3, 1)
    rows = Inputs(torch.arange(3), torch.arange(3), clean, torch.zeros(3, dtype=torch.int64))
    scorer = Scorer(flat)
    region = Ball(radius=1.0).region(FeatureSpace((1,)))
    stage = Climb(steps=30, step=0.01, start=None)
    Cascade((stage,), 3)(scorer, region, rows, Source(bytes(32)))
    assert scorer.queries.backwards == 90

"""Asking ahead costs queries and changes nothing else."""

import pytest
import torch
from torch import nn

from nacre.adversarial_training import Ball
from nacre.adversarial_training.evaluation.access import Scorer
from nacre.adversarial_training.evaluation.cascade import STANDING, Cascade
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.evaluation.stages import square
from nacre.core.random import Source
from nacre.core.types import FeatureSpace

ROWS = 24


def _model(shape):
    torch.manual_seed(3)
    size = int(torch.Size(shape).numel())
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 16), nn.Tanh(), nn.Linear(16, 4)).double()


def _found(kind, radius, shape, width=ROWS, queries=200, **options):
    model = _model(shape)
    clean = torch.rand(ROWS, *shape, generator=torch.Generator().manual_seed(5)).double()
    rows = Inputs(torch.arange(ROWS), torch.arange(ROWS), clean, model(clean).argmax(1))
    region = Ball(kind=kind, radius=radius).region(FeatureSpace(shape))
    scorer = Scorer(model)
    stage = square.Square(queries=queries, **options)
    return Cascade((stage,), width)(scorer, region, rows, Source(bytes(32))), scorer.queries


@pytest.mark.parametrize("way", [None, 0.6])
@pytest.mark.parametrize("shape", [(6,), (2, 5, 5)])
@pytest.mark.parametrize(("kind", "radius"), [("linf", 0.1), ("l2", 0.4), ("l1", 1.2)])
def test_rows_asked_ahead_are_broken_by_the_same_points(monkeypatch, kind, radius, shape, way):
    ahead, more = _found(kind, radius, shape, queries=300, way=way)
    monkeypatch.setattr(square, "AHEAD", 1)
    one, fewer = _found(kind, radius, shape, queries=300, way=way)
    assert torch.equal(ahead.by, one.by)
    assert torch.equal(ahead.steps, one.steps)
    assert torch.equal(ahead.points, one.points)
    assert torch.equal(ahead.margins, one.margins)
    assert 0 < (one.by == STANDING).sum() < ROWS
    assert more.forwards > fewer.forwards


def test_rows_that_come_later_start_at_a_first_point_of_their_own():
    """Beside rows that are asked ahead."""
    whole, _ = _found("linf", 0.1, (6,))
    for width in (1, 3, 10):
        assert torch.equal(_found("linf", 0.1, (6,), width)[0].points, whole.points)


def test_no_row_is_asked_more_often_than_it_is_said(monkeypatch):
    monkeypatch.setattr(square, "AHEAD", 1)
    found, spent = _found("linf", 0.02, (6,))
    stands = int((found.by == STANDING).sum())
    broken = ROWS - stands
    # The caller scores each row once, and a broken one once more.
    assert spent.forwards == ROWS + broken + 200 * stands + int(found.steps.sum())

import torch
from torch import nn

from nacre.adversarial_training import Ball
from nacre.adversarial_training.evaluation.access import Scorer
from nacre.adversarial_training.evaluation.cascade import STANDING, Cascade
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.evaluation.stages.auto_pgd import AutoPGD
from nacre.adversarial_training.evaluation.stages.transfer import Transfer
from nacre.core.random import Source
from nacre.core.types import FeatureSpace

REGION = Ball(radius=0.2).region(FeatureSpace((6,)))


def _model(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))


def _rows(model):
    torch.manual_seed(5)
    clean = torch.rand(60, 6) * 2 - 1
    with torch.no_grad():
        return Inputs(torch.arange(60), torch.arange(60), clean, model(clean).argmax(1))


def test_points_of_the_model_itself_break_the_same_rows_with_one_query_each():
    model = _model(3)
    rows = _rows(model)
    found = Cascade((AutoPGD(steps=20),))(Scorer(model), REGION, rows, Source(bytes(32)))
    again = Cascade((Transfer(found.points),))(Scorer(model), REGION, rows, Source(bytes(32)))
    assert torch.equal(again.by, found.by)
    assert 0 < (again.by != STANDING).sum() < 60
    # One query a row; those that broke are scored again by the caller.
    assert again.stages[0].forwards == 60 + int((again.by != STANDING).sum())
    assert again.stages[0].backwards == 0


def test_a_surrogate_breaks_no_more_than_the_model_and_stays_in_the_region():
    model, other = _model(3), _model(4)
    rows = _rows(model)
    far = rows.clean + 100
    outside = Cascade((Transfer(far),))(Scorer(model), REGION, rows, Source(bytes(32)))
    assert REGION.contains(outside.points, rows.clean).all()
    found = Cascade((AutoPGD(steps=20),))(Scorer(other), REGION, rows, Source(bytes(32)))
    there = Cascade((Transfer(found.points),))(Scorer(model), REGION, rows, Source(bytes(32)))
    white = Cascade((AutoPGD(steps=50),))(Scorer(model), REGION, rows, Source(bytes(32)))
    assert white.accuracy <= there.accuracy

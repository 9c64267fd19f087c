import pytest
import torch
from torch import nn

from nacre.adversarial_training import Ball
from nacre.adversarial_training.evaluation.access import Scorer
from nacre.adversarial_training.evaluation.cascade import Series
from nacre.adversarial_training.evaluation.efforts import cascade
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.core.random import Source
from nacre.core.types import FeatureSpace


def _stages(*arguments):
    """Names of all stages, those of a series included."""
    entries = cascade(*arguments).stages
    flat = [s for e in entries for s in (e.stages if isinstance(e, Series) else (e,))]
    return [stage.name for stage in flat]


def _targets(names):
    return [name for name in names if "towards" in name]


@pytest.mark.parametrize(("classes", "targets"), [(2, 1), (3, 2), (10, 9), (100, 9)])
def test_full_climbs_towards_each_wrong_class_and_at_most_nine(classes, targets):
    assert len(_targets(_stages("full", classes))) == targets


@pytest.mark.parametrize("effort", ["quick", "standard", "full"])
def test_an_aimed_cascade_climbs_towards_no_other_class(effort):
    names = _stages(effort, 10, 3)
    assert names
    assert not _targets(names)


def test_each_effort_breaks_what_the_smaller_one_breaks_and_costs_more():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))
    clean = torch.rand(60, 6) * 2 - 1
    with torch.no_grad():
        rows = Inputs(torch.arange(60), torch.arange(60), clean, model(clean).argmax(1))
    region = Ball(radius=0.15).region(FeatureSpace((6,)))
    accuracies, backwards = [], []
    for effort in ("quick", "standard", "full"):
        scorer = Scorer(model)
        found = cascade(effort, 4)(scorer, region, rows, Source(bytes(32)))
        accuracies.append(found.accuracy)
        backwards.append(scorer.queries.backwards)
    assert 0 < accuracies[2] <= accuracies[1] <= accuracies[0] < 1
    assert backwards[0] < backwards[1] < backwards[2]

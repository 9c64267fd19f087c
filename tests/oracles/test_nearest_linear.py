"""The nearest broken input of a linear model is |margin| / ‖w‖ away."""

import math

import pytest
import torch

from nacre.adversarial_training import Ball
from nacre.adversarial_training.evaluation.access import Scorer
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.evaluation.nearest import nearest_broken
from nacre.core.errors import BadArgument
from nacre.core.random import Source
from nacre.core.types import FeatureSpace

ROWS, FEATURES = 40, 9


def _weight():
    return torch.randn(FEATURES, generator=torch.Generator().manual_seed(3))


def _linear(x):
    margin = x @ _weight()
    return torch.stack([torch.zeros_like(margin), margin], 1)


def _rows(towards=None, label=None):
    clean = torch.randn(ROWS, FEATURES, generator=torch.Generator().manual_seed(4))
    label = _linear(clean).argmax(1) if label is None else label
    return Inputs(torch.arange(ROWS), torch.arange(ROWS), clean, label, towards)


def _region(space=None):
    return Ball(kind="l2", radius=1.0).region(space or FeatureSpace((FEATURES,)))


def test_the_distance_is_the_closed_form_within_a_quarter():
    rows = _rows()
    found = nearest_broken(Scorer(_linear), _region(), rows, Source(bytes(32)))
    exact = (rows.clean @ _weight()).abs().double() / _weight().double().norm()
    # The length shrinks by a twentieth a step at most, so this is the least that can be resolved.
    resolved = exact >= 0.95**99
    assert resolved.sum() >= ROWS - 2
    assert (found.distances <= 1.25 * exact)[resolved].all()
    assert (found.distances <= 1.25 * 0.95**99)[~resolved].all()
    assert (found.distances >= exact * (1 - 1e-5)).all()
    assert (_linear(found.points).argmax(1) != rows.label).all()
    moved = (found.points - rows.clean).double().norm(dim=1)
    assert torch.allclose(moved, found.distances)


def test_fixed_entries_and_the_legal_range_hold():
    bound = torch.full((FEATURES,), 3.0)
    names = tuple("abcdefghi")
    space = FeatureSpace((FEATURES,), names=names, low=-bound, high=bound)
    region = Ball(kind="l2", radius=1.0, frozen=("c",)).region(space)
    rows = _rows()
    found = nearest_broken(Scorer(_linear), region, rows, Source(bytes(32)))
    assert torch.equal(found.points[:, 2], rows.clean[:, 2])
    assert (found.points.abs() <= torch.maximum(bound, rows.clean.abs())).all()
    free = _weight().double()
    free[2] = 0
    exact = (rows.clean @ _weight()).abs().double() / free.norm()
    assert (found.distances >= exact * (1 - 1e-5)).all()
    assert found.distances.isfinite().float().mean() > 0.9


def test_what_is_broken_already_is_0_away_and_what_cannot_be_broken_inf():
    rows = _rows(label=torch.zeros(ROWS, dtype=torch.int64))
    found = nearest_broken(Scorer(_linear), _region(), rows, Source(bytes(32)))
    wrong = _linear(rows.clean).argmax(1) != 0
    assert (found.distances[wrong] == 0).all()
    assert torch.equal(found.points[wrong], rows.clean[wrong])
    stuck = nearest_broken(Scorer(lambda x: _linear(x) * 0 + torch.tensor([1.0, 0.0])), _region(),
                    rows, Source(bytes(32)))  # fmt: skip
    assert (stuck.distances == math.inf).all()
    assert torch.equal(stuck.points, rows.clean)


def test_a_row_does_not_depend_on_its_neighbours():
    rows = _rows()
    whole = nearest_broken(Scorer(_linear), _region(), rows, Source(bytes(32)))
    parts = nearest_broken(Scorer(_linear), _region(), rows, Source(bytes(32)), width=7)
    assert torch.allclose(whole.distances, parts.distances, rtol=1e-4)


def test_a_class_that_is_aimed_at_is_reached():
    rows = _rows(towards=1)
    found = nearest_broken(Scorer(_linear), _region(), rows, Source(bytes(32)))
    reached = found.distances.isfinite()
    assert reached.all()
    assert (_linear(found.points).argmax(1) == 1).all()


@pytest.mark.parametrize("options", [{"steps": 0}, {"first": 0.0}, {"change": 1.0}])
def test_settings_out_of_range_are_named(options):
    with pytest.raises(BadArgument, match=next(iter(options))):
        nearest_broken(Scorer(_linear), _region(), _rows(), Source(bytes(32)), **options)

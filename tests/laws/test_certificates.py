"""What holds for every certificate, beside every attack, under every threat."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from nacre.adversarial_training import Ball
from nacre.adversarial_training.certificates import CERTIFICATES, CROWN, IBP, Smoothing
from nacre.adversarial_training.evaluation.access import Scorer
from nacre.adversarial_training.evaluation.cascade import STANDING, Cascade
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.evaluation.nearest import nearest_broken
from nacre.adversarial_training.evaluation.stages.listed import STAGES
from nacre.adversarial_training.evaluation.stages.square import Square
from nacre.adversarial_training.evaluation.untouched import untouched
from nacre.core.random import Source
from nacre.core.types import FeatureSpace
from tests.adversarial_training.certificates.published import mnist, small
from tests.conftest import ALL
from tests.laws.zoo import snapshot

SOURCE = Source(bytes(32))
SPACE = FeatureSpace((2,), low=torch.full((2,), -1.5), high=torch.full((2,), 1.5))
RADII = {"linf": 0.06, "l2": 0.09, "l1": 0.12}
DEVIATION = 0.15
MADE = {
    IBP: IBP(),
    CROWN: CROWN(),
    Smoothing: Smoothing(deviation=DEVIATION, samples=1000, failure=1e-5),
}

certificates = pytest.mark.parametrize("kind", CERTIFICATES, ids=lambda kind: kind.__name__)
balls = pytest.mark.parametrize("ball", RADII)


def _model():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU())
    model.append(nn.Linear(24, 3))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.mul_(1.5)
    return model


class Smoothed(nn.Module):
    """The smoothed model itself: chances of each answer by a rule of 21 x 21 points instead of
    votes, with the gradient of the softened answers."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        line = torch.linspace(-4, 4, 21)
        self.points = DEVIATION * torch.cartesian_prod(line, line)
        weights = torch.exp(-torch.cartesian_prod(line, line).square().sum(1) / 2)
        self.weights = weights / weights.sum()

    def forward(self, x):
        scores = self.base((x[:, None] + self.points).flatten(0, 1)).reshape(len(x), -1, 3)
        soft = (5 * scores).softmax(2)
        hard = nn.functional.one_hot(scores.argmax(2), 3).to(soft)
        return ((hard + soft - soft.detach()) * self.weights[:, None]).sum(1)


def _attacked(certificate, model):
    """The model that the certificate speaks of."""
    return Smoothed(model) if certificate.smooths else model


def _made(stage):
    """Square asks most, and of the smoothed model 441 times over: with ALL=1 as often as ever."""
    return Square(queries=500) if stage is Square and not ALL else stage()


def _rows(model, count=24):
    torch.manual_seed(5)
    clean = torch.rand(count, 2) * 2.6 - 1.3
    with torch.no_grad():
        label = model(clean).argmax(1)
    label[:3] = (label[:3] + 1) % 3  # some are wrong from the start
    return Inputs(torch.arange(count), torch.arange(count), clean, label)


def _regions(ball, shares=(0.0, 0.5, 1.0)):
    return [Ball(kind=ball, radius=share * RADII[ball]).region(SPACE) for share in shares]


def test_every_certificate_is_made_here():
    assert set(MADE) == set(CERTIFICATES)


@certificates
@balls
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_what_is_certified_no_attack_breaks(kind, ball, stage):
    """Promised to those who read "certified": the share is never above what attacks leave."""
    certificate, model = MADE[kind], _model()
    attacked = _attacked(certificate, model)
    rows, regions = _rows(attacked), _regions(ball)
    found = certificate.certify(model, regions, rows, SOURCE)
    made = _made(stage)
    # Nothing can be moved within a radius of 0, which is the first.
    for region, certified in zip(regions[1:], found[1:], strict=True):
        with untouched(attacked):
            outcome = Cascade((made,), 64)(Scorer(attacked), region, rows, SOURCE)
        assert not (certified & (outcome.by != STANDING)).any()
    assert 0 < found[-1].sum() <= found[0].sum() < len(rows)


@certificates
@balls
def test_what_is_certified_no_enumerated_point_breaks(kind, ball):
    certificate, model = MADE[kind], _model()
    attacked = _attacked(certificate, model)
    rows, regions = _rows(attacked), _regions(ball)
    found = certificate.certify(model, regions, rows, SOURCE)
    line = torch.linspace(-1, 1, 7)
    for region, certified in zip(regions, found, strict=True):
        points = rows.clean[:, None] + torch.cartesian_prod(line, line) * region.radii
        inside = region.project(points.transpose(0, 1).flatten(0, 1), rows.clean.repeat(49, 1))
        with torch.no_grad():
            answers = attacked(inside).argmax(1).reshape(49, -1)
        stands = (answers == rows.label).all(0)
        assert not (certified & ~stands).any()


@certificates
def test_the_nearest_broken_input_lies_outside_of_what_is_certified(kind):
    certificate, model = MADE[kind], _model()
    attacked = _attacked(certificate, model)
    rows, regions = _rows(attacked), _regions("l2", (0.25, 0.5, 1.0, 3.0))
    found = certificate.certify(model, regions, rows, SOURCE)
    with untouched(attacked):
        nearest = nearest_broken(Scorer(attacked), regions[-1], rows, SOURCE, steps=40)
    for region, certified in zip(regions, found, strict=True):
        assert not (certified & (nearest.distances <= float(region.radii.max()))).any()
    broken = nearest.distances.isfinite() & (nearest.distances > 0)
    assert broken.any() and found[0].any() and not found[-1].all()


@certificates
@balls
def test_certified_in_a_region_is_certified_in_all_before(kind, ball):
    model = _model()
    found = MADE[kind].certify(model, _regions(ball, (0, 0.25, 0.5, 1)), _rows(model), SOURCE)
    assert found.dtype == torch.bool and found.shape == (4, 24)
    assert (found[1:] <= found[:-1]).all()


@certificates
def test_neighbours_change_nothing(kind):
    model = _model()
    rows, regions = _rows(model), _regions("l2")
    whole = MADE[kind].certify(model, regions, rows, SOURCE)
    for row in (1, 23):
        alone = MADE[kind].certify(model, regions, rows.take(torch.tensor([row])), SOURCE)
        assert torch.equal(alone[:, 0], whole[:, row])


@certificates
def test_the_model_is_left_as_it_was(kind):
    model = _model().train()
    rows = _rows(model)
    model[0].weight.requires_grad_(False)
    model[0].bias.grad = torch.ones(24)
    before, random = snapshot(model), torch.get_rng_state()
    MADE[kind].certify(model, _regions("l2"), rows, SOURCE)
    assert snapshot(model) == before
    assert torch.equal(torch.get_rng_state(), random)


@certificates
def test_no_rows_are_certified_without_rows(kind):
    found = MADE[kind].certify(_model(), _regions("l2"), _rows(_model(), 0), SOURCE)
    assert found.shape == (3, 0)


@certificates
def test_each_says_its_numbers(kind):
    sentence = MADE[kind].sentence()
    numbers = [value for value in vars(MADE[kind]).values() if isinstance(value, float)]
    assert all(f"{number:g}" in sentence for number in numbers)
    assert bool(numbers) == (kind is Smoothing)


@pytest.mark.slow
def test_a_published_network_is_certified_below_its_attacks():
    """Wong & Kolter 2018 publish a certified error of 3.67 % at 0.1 on MNIST."""
    found = mnist()
    if found is None:
        pytest.skip("the MNIST files and weights are not here")
    images, labels, weights = found
    model = small(load_file(weights / "mnist_kw_eps0.1.safetensors"))
    rows = Inputs(torch.arange(20), torch.arange(20), images[:20], labels[:20])
    ends = {"low": torch.tensor(0.0), "high": torch.tensor(1.0)}
    region = Ball(radius=0.1).region(FeatureSpace((1, 28, 28), **ends))
    loose, tight = (kind().certify(model, [region], rows, SOURCE)[0] for kind in (IBP, CROWN))
    with untouched(model):
        stages = [_made(stage) for stage in STAGES]
        standing = Cascade(stages, 64)(Scorer(model), region, rows, SOURCE).by == STANDING
    assert (loose <= tight).all() and (tight <= standing).all()
    assert tight.double().mean() >= 0.9

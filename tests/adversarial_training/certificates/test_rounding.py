"""A certificate speaks of the model as it computes: in float32, at float32 inputs."""

import pytest
import torch
from torch import nn

from nacre.adversarial_training import Ball
from nacre.adversarial_training.certificates import CROWN, IBP, extremes
from nacre.adversarial_training.certificates.extremes import longest, over_region, surrounding
from nacre.adversarial_training.certificates.network import network_of
from nacre.adversarial_training.certificates.propagation import interval_margins, linear_margins
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.core.errors import Incompatible
from nacre.core.random import Source
from nacre.core.types import FeatureSpace
from tests.adversarial_training.certificates.test_network import MODELS

SOURCE = Source(bytes(32))
KINDS = ("linf", "l2", "l1")
METHODS = (IBP(), CROWN())

kinds = pytest.mark.parametrize("kind", KINDS)
methods = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)


def one_row(clean, label):
    return Inputs(torch.tensor([0]), torch.tensor([0]), clean, torch.tensor([label]))


def certified(method, model, clean, label, radius, space):
    region = Ball(radius=radius).region(space)
    return bool(method.certify(model, [region], one_row(clean, label), SOURCE)[0, 0])


class Cancelling(nn.Module):
    """Scores -h and 0, where h = (1e6 x + 0.01) - 1e6 x is 0.01 in real numbers. Near x = 1 a
    float32 of that size moves in steps of 1/16, and h is 0."""

    def __init__(self):
        super().__init__()
        self.large, self.head = nn.Linear(1, 2), nn.Linear(2, 2)
        with torch.no_grad():
            self.large.weight.copy_(torch.tensor([[1e6], [1e6]]))
            self.large.bias.copy_(torch.tensor([0.01, 0.0]))
            self.head.weight.copy_(torch.tensor([[-1.0, 1.0], [0.0, 0.0]]))
            self.head.bias.zero_()

    def forward(self, x):
        return self.head(self.large(x))


@methods
def test_what_float32_answers_otherwise_is_not_certified(method):
    model, x = Cancelling(), torch.tensor([[1.0]])
    with torch.no_grad():
        assert model.double()(x.double()).argmax(1) == 1  # by a margin of 0.01
        assert model.float()(x).argmax(1) == 0
    space = FeatureSpace((1,))
    assert not certified(method, model, x, 1, 0.0, space)
    with torch.no_grad():
        model.large.weight.fill_(10.0)  # rounded to a millionth
    assert certified(method, model, x, 1, 0.0, space)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bounds", [interval_margins, linear_margins])
def test_float32_is_never_farther_from_real_numbers_than_said(name, bounds):
    build, shape = MODELS[name]
    model = build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # larger numbers inside
    network, region = network_of(model, shape), Ball(radius=0.2).region(FeatureSpace(shape))
    torch.manual_seed(4)
    centre = torch.rand(6, *shape)
    label = network(centre.double()).argmax(1)
    _, rounding = bounds(network, region, centre, label)
    worst = torch.zeros(6).double()
    for _ in range(200):
        x = region.project(centre + 0.4 * (torch.rand_like(centre) - 0.5), centre)
        exact = network(x.double())
        with torch.no_grad():
            found = model(x).reshape(6, -1)
        found = torch.cat([-found / 2, found / 2], 1) if found.shape[1] == 1 else found
        moved = (found.double() - exact).abs()
        own = moved.gather(1, label[:, None])
        others = moved.scatter(1, label[:, None], 0.0).amax(1, keepdim=True)
        worst = torch.maximum(worst, (own + others).squeeze(1))
    assert (worst <= rounding).all() and worst.max() > 0
    assert (rounding < 1e4 * worst.clamp(min=1e-7)).all()  # and it says something


@methods
def test_numbers_that_overflow_are_not_certified(method):
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 2))
    with torch.no_grad():
        for layer in model:
            layer.bias.zero_()
            layer.weight.fill_(1e30)
        model[1].weight[0] = -1e30
    x = torch.ones(1, 1)
    assert not model(x).isfinite().all()
    assert not certified(method, model, x, 1, 0.0, FeatureSpace((1,)))


@kinds
def test_points_that_pass_as_attacks_are_inside_of_what_is_bounded(kind):
    """`Region.contains` grants a millionth to rounding, and so does the bound."""
    torch.manual_seed(6)
    region = Ball(kind=kind, radius=0.3).region(FeatureSpace((5,)))
    centre = torch.rand(400, 5).double() * 4 - 2
    slope = torch.randn(400, 5).double()
    steepest = {
        "linf": slope.sign(),
        "l2": slope / slope.norm(dim=1, keepdim=True),
        "l1": nn.functional.one_hot(slope.abs().argmax(1), 5) * slope.sign(),
    }[kind]
    outside = 0
    for share in torch.linspace(0, 1, 21):
        # The corner of what is granted: the ball's own surface, moved on by the rounding.
        rounding = 1e-6 * (centre.abs() + region.radii.double())
        move = 0.3 * (1 + 1e-6) * steepest + rounding * slope.sign()
        x = centre - (1 - 1e-9) * (0.3 * steepest + share * (move - 0.3 * steepest))
        assert region.contains(x, centre).all()
        outside += int(((x - centre).norm(p=float(kind[1:]), dim=1) > 0.3 * (1 + 1e-9)).sum())
        low, high = surrounding(region, centre)
        assert ((x >= low) & (x <= high)).all()
        reached = (slope * x).sum(1)
        assert (reached >= over_region(slope, region, centre) - 1e-12).all()
        assert ((x - centre).norm(dim=1) <= longest(region, centre) + 1e-12).all()
    assert outside > 4000


@methods
def test_a_point_beyond_the_ball_by_its_rounding_is_reckoned_with(monkeypatch, method):
    """The answer changes half a millionth beyond the ball, and so does the rounding of an attack
    move it."""
    model = nn.Sequential(nn.Linear(1, 2))
    edge = 1.1 + 5e-7
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-100.0], [100.0]]))
        model[0].bias.copy_(torch.tensor([100.0 * edge, -100.0 * edge]))
    x = torch.tensor([[1.0]])
    region = Ball(radius=0.1).region(FeatureSpace((1,)))
    attack = torch.tensor([[edge + 3e-7]])
    assert region.contains(attack, x).all() and model(attack).argmax(1) == 1
    assert not certified(method, model, x, 0, 0.1, FeatureSpace((1,)))
    monkeypatch.setattr(extremes, "TOLERANCE", 0.0)
    assert certified(method, model, x, 0, 0.1, FeatureSpace((1,)))


@methods
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(method, dtype):
    model = nn.Sequential(nn.Linear(2, 3)).to(dtype)
    with pytest.raises(Incompatible, match="rounding of float32"):
        certified(method, model, torch.zeros(1, 2), 0, 0.1, FeatureSpace((2,)))

"""Bounds against enumeration, closed forms and each other."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from nacre.adversarial_training import Ball
from nacre.adversarial_training.certificates import extremes, propagation
from nacre.adversarial_training.certificates.extremes import longest, over_region
from nacre.adversarial_training.certificates.network import network_of
from nacre.adversarial_training.certificates.propagation import interval_margins, linear_margins
from nacre.core.errors import Incompatible
from nacre.core.types import FeatureSpace

KINDS = ("linf", "l2", "l1")
METHODS = {
    "ibp": lambda *asked: interval_margins(*asked)[0],
    "crown": lambda *asked: linear_margins(*asked)[0],
}
DUAL = {"linf": 1, "l2": 2, "l1": torch.inf}

methods = pytest.mark.parametrize("method", METHODS)
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def exact(monkeypatch):
    """Balls without what rounding adds to them."""
    monkeypatch.setattr(extremes, "TOLERANCE", 0.0)


def network(seed, sizes=(2, 12, 8, 3)):
    torch.manual_seed(seed)
    layers = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).double()


def grid(region, centre, points=61):
    """(N, 2) points of the region around one centre, its corners among them."""
    line = torch.linspace(-1, 1, points, dtype=torch.float64)
    moves = torch.cartesian_prod(line, line) * region.radii.double()
    corners = torch.tensor([[1, 0], [-1, 0], [0, 1], [0, -1]]) * region.radii.double()
    inside = centre + torch.cat([moves, corners])
    return inside[region.contains(inside, centre.expand_as(inside))]


def true_margins(net, x, label):
    """(N,) the right score minus the best other one."""
    scores = net(x)
    return scores[:, label] - scores.scatter(1, torch.full((len(x), 1), label), -torch.inf).amax(1)


@methods
@kinds
@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_no_enumerated_point_lies_below_the_bound(method, kind, bounded, seed):
    model = network(seed)
    net = network_of(model, (2,))
    ends = {"low": torch.tensor([-0.5, 0.0]), "high": torch.tensor(0.6)} if bounded else {}
    region = Ball(kind=kind, radius=0.3).region(FeatureSpace((2,), **ends))
    centre = torch.rand(12, 2).double() * 1.0 - 0.4
    label = net(centre).argmax(1)
    found = METHODS[method](net, region, centre, label)
    for row in range(12):
        points = grid(region, centre[row])
        least = true_margins(net, points, int(label[row])).min()
        assert found[row] <= least + 1e-9
        assert len(points) > 100


@methods
@kinds
def test_a_linear_model_has_its_closed_form(exact, method, kind):
    torch.manual_seed(2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 4)).double()
    net, region = (
        network_of(model, (2, 3)),
        Ball(kind=kind, radius=0.4).region(FeatureSpace((2, 3))),
    )
    x, label = torch.randn(20, 2, 3).double(), torch.arange(20) % 4
    weight, scores = model[1].weight.detach(), net(x)
    found = METHODS[method](net, region, x, label)
    for row, own in enumerate(label):
        away = weight[own] - weight
        lengths = away.norm(dim=1, p=1 if method == "ibp" else DUAL[kind])
        margins = scores[row, own] - scores[row] - float(region.radii.max()) * lengths
        others = torch.cat([margins[:own], margins[own + 1 :]])
        assert found[row] == pytest.approx(float(others.min()), abs=1e-9)


@kinds
@pytest.mark.parametrize("seed", range(3))
def test_where_no_sign_is_open_lines_are_exact(exact, kind, seed):
    """Inside one linear piece of the network the least margin has a closed form."""
    model = network(seed)
    net = network_of(model, (2,))
    x = torch.randn(30, 2).double().requires_grad_()
    scores = net(x)
    label = scores.argmax(1)
    region = Ball(kind=kind, radius=1e-6).region(FeatureSpace((2,)))
    for row in range(30):
        slopes = []
        for other in set(range(3)) - {int(label[row])}:
            difference = scores[row, label[row]] - scores[row, other]
            (slope,) = torch.autograd.grad(difference, x, retain_graph=True)
            length = slope[row].norm(p=DUAL[kind]) * region.radii.double().max()
            slopes.append(float((difference - length).detach()))
        found, _ = linear_margins(net, region, x[row : row + 1].detach(), label[row : row + 1])
        assert float(found) == pytest.approx(min(slopes), abs=1e-11)


@methods
@kinds
def test_a_radius_of_zero_gives_the_margin_itself(method, kind):
    net = network_of(network(5), (2,))
    x, label = torch.randn(9, 2).double(), torch.arange(9) % 3
    found = METHODS[method](net, Ball(kind=kind, radius=0.0).region(FeatureSpace((2,))), x, label)
    for row in range(9):
        expected = true_margins(net, x[row : row + 1], int(label[row]))
        assert float(found[row]) == pytest.approx(float(expected), abs=1e-12)


@kinds
def test_lines_are_never_looser_than_intervals_and_often_tighter(kind):
    net = network_of(network(6, (8, 24, 24, 24, 4)), (8,))
    region = Ball(kind=kind, radius=0.1).region(FeatureSpace((8,)))
    x = torch.randn(40, 8).double()
    label = net(x).argmax(1)
    wide, narrow = (made(net, region, x, label) for made in METHODS.values())
    assert (narrow >= wide).all()
    assert (narrow > wide + 1e-6).double().mean() > 0.9


def test_the_size_of_a_batch_of_functionals_changes_nothing(monkeypatch):
    net = network_of(network(7, (6, 20, 20, 3)), (6,))
    region = Ball(kind="l2", radius=0.4).region(FeatureSpace((6,)))
    x, label = torch.randn(8, 6).double(), torch.arange(8) % 3
    whole, _ = linear_margins(net, region, x, label)
    monkeypatch.setattr(propagation, "ENTRIES", 1)
    assert torch.allclose(linear_margins(net, region, x, label)[0], whole, atol=1e-12)


def test_frozen_entries_and_own_radii_are_kept_to(exact):
    space = FeatureSpace((3,), names=("a", "b", "c"))
    region = Ball(radius=0.5, frozen=("b",), radii={"c": 2.0}).region(space)
    slope = torch.tensor([[1.0, -3.0, 2.0]], dtype=torch.float64)
    centre = torch.tensor([[1.0, 1.0, 1.0]])
    assert float(over_region(slope, region, centre)) == pytest.approx(0.5 - 3 + 2 * -1)


@kinds
def test_the_longest_move_is_as_long_as_said(exact, kind):
    space = FeatureSpace((3,), names=("a", "b", "c"))
    region = Ball(kind=kind, radius=0.5, radii={"c": 2.0}).region(space)
    expected = {"linf": (0.25 + 0.25 + 4) ** 0.5, "l2": 2.0, "l1": 2.0}[kind]
    centre = torch.zeros(1, 3)
    assert float(longest(region, centre)) == pytest.approx(expected)
    far = torch.eye(3)[2:] * 100
    assert float(region.project(far, centre).norm()) <= float(longest(region, centre)) + 1e-6


def test_a_region_of_another_geometry_is_refused():
    class Star(type(Ball(radius=1.0).region(FeatureSpace((1,)))).__base__):
        pass

    Star.__abstractmethods__ = frozenset()
    star = Star(torch.ones(1), torch.tensor(-9.0), torch.tensor(9.0))
    with pytest.raises(Incompatible, match="Star"):
        over_region(torch.ones(1, 1).double(), star, torch.zeros(1, 1))
    with pytest.raises(Incompatible, match="Star"):
        longest(star, torch.zeros(1, 1))


def test_inputs_that_are_no_numbers_are_not_certified():
    net = network_of(network(8), (2,))
    region = Ball(radius=0.1).region(FeatureSpace((2,)))
    x = torch.tensor([[float("nan"), 0.0]]).double()
    for made in METHODS.values():
        assert not bool(made(net, region, x, torch.tensor([0])) > 0)

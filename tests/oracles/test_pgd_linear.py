"""Attacks on linear models against the closed form: how far a margin can be pushed.

For a binary linear model with logits (0, w·x + b) a move d changes the margin by w·d. Its extreme
over |d_i| <= r_i is Σ r_i |w_i|, and over ‖d / r‖ <= 1 it is ‖r w‖ (Hölder). With equal radii
these are r‖w‖₁ and r‖w‖₂.
"""

import pytest
import torch
from torch import nn

from nacre.adversarial_training import FGSM, PGD, Ball
from nacre.core.random import Source
from nacre.core.types import FeatureSpace
from nacre.models.tasks import Classification

ROWS, FEATURES = 16, 9
NAMES = tuple("abcdefghi")
SCALE = torch.linspace(0.5, 2.0, FEATURES)


class Margin(nn.Module):
    """Logits (0, w·x + b)."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(FEATURES, generator=generator))
        self.bias = nn.Parameter(torch.tensor(0.2))

    def margin(self, x):
        return x @ self.weight + self.bias

    def forward(self, x):
        margin = self.margin(x)
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


def _batch():
    generator = torch.Generator().manual_seed(4)
    return {
        "features": torch.randn(ROWS, FEATURES, generator=generator),
        "label": torch.arange(ROWS) % 2,
        "present": torch.ones(ROWS, dtype=torch.bool),
        "unit": torch.arange(ROWS),
    }


def _pushed(option, space):
    """(ROWS,) how far the attack pushes each margin towards the wrong side."""
    model, batch = Margin(), _batch()
    attack = option.build(space)
    moved = attack(model, batch, Classification(2).losses, Source(bytes(32)))
    towards = torch.where(batch["label"] == 1, -1.0, 1.0)
    with torch.no_grad():
        change = model.margin(moved["features"]) - model.margin(batch["features"])
    return change * towards


@pytest.mark.parametrize("radius", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("kind", ["linf", "l2"])
def test_the_margin_moves_by_the_dual_norm(kind, radius):
    ball, weight = Ball(kind=kind, radius=radius), Margin().weight.detach()
    reach = radius * weight.norm(1 if kind == "linf" else 2)
    space = FeatureSpace((FEATURES,))
    straight, long = PGD(ball=ball, random_start=False), PGD(ball=ball, steps=20, step_size=1.0)
    for option in (FGSM(ball=ball), straight, long):
        pushed = _pushed(option, space)
        # The best point is picked by its loss, whose float32 digits end a little earlier.
        torch.testing.assert_close(pushed, reach.expand(ROWS), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["linf", "l2"])
def test_steps_of_the_usual_size_come_within_a_tenth_and_never_beyond(kind):
    # From a random start, L2 steps of 2.5 / steps turn the move towards the gradient by a fixed
    # share only: that is what restarts, or a longer step, are for.
    ball, weight = Ball(kind=kind, radius=0.3), Margin().weight.detach()
    reach = 0.3 * weight.norm(1 if kind == "linf" else 2)
    for steps in (10, 40):
        pushed = _pushed(PGD(ball=ball, steps=steps), FeatureSpace((FEATURES,)))
        assert (pushed <= reach * (1 + 1e-5)).all()
        assert (pushed >= 0.9 * reach).all()


@pytest.mark.parametrize("kind", ["linf", "l2"])
def test_unequal_radii_have_the_weighted_dual_norm(kind):
    space = FeatureSpace((FEATURES,), names=NAMES, scale=SCALE)
    ball = Ball(kind=kind, radius=0.4, unit="features", radii={"b": 1.5}, frozen=("d", "i"))
    radii = 0.4 / SCALE
    radii[1] = 1.5 / SCALE[1]
    radii[[3, 8]] = 0.0
    reach = (radii * Margin().weight.detach()).norm(1 if kind == "linf" else 2)
    for option in (FGSM(ball=ball), PGD(ball=ball, steps=20, step_size=1.0)):
        pushed = _pushed(option, space)
        torch.testing.assert_close(pushed, reach.expand(ROWS), rtol=1e-4, atol=1e-5)


def test_the_legal_range_cuts_the_reach_entry_by_entry():
    low, high = torch.tensor(-1.0), torch.tensor(1.0)
    space = FeatureSpace((FEATURES,), low=low, high=high)
    model, batch, radius = Margin(), _batch(), 0.5
    batch["features"].clamp_(-1, 1)
    push = torch.where(batch["label"] == 1, -1.0, 1.0)[:, None] * model.weight.detach().sign()
    expected = (batch["features"] + radius * push).clamp(-1, 1)
    option = FGSM(ball=Ball(radius=radius))
    moved = option.build(space)(model, batch, Classification(2).losses, Source(bytes(32)))
    torch.testing.assert_close(moved["features"], expected)

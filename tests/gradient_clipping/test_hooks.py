"""A hook that changes gradients by their size: the loop takes the model, and says why."""

import torch
from torch import nn

from nacre.gradient_clipping import Flat, Looped, choose_sum
from tests.laws.networks import Computed, Objective

OBJECTIVE = Objective(lambda m, b: m(b["x"]).square().flatten(1).sum(1))


def _hooked(s, x):
    hidden = s.enter(x)
    if hidden.requires_grad:
        hidden.register_hook(lambda gradient: gradient.clamp(-0.1, 0.1))
    return s.leave(hidden.tanh())


def test_clamped_gradients_go_one_unit_at_a_time():
    torch.manual_seed(0)
    model = Computed(_hooked, enter=nn.Linear(8, 8), leave=nn.Linear(8, 3)).train()
    batch = {
        "x": torch.randn(6, 5, 8),
        "present": torch.ones(6, dtype=torch.bool),
        "unit": torch.arange(6),
    }
    chosen, why = choose_sum(
        "auto", model=model, objective=OBJECTIVE, clip=Flat(norm=1.0), sample=batch
    )
    assert isinstance(chosen, Looped)
    assert "hook" in why

"""An audit leaves the model as it was: after every stage, a fault in any of them, and Ctrl-C."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from nacre.adversarial_training.threats.ball import Ball
from nacre.adversarial_training.threats.table import ColumnMove, TableThreat
from nacre.audit.model_security.evasion import evasion
from nacre.core.errors import CallFailed
from nacre.core.types import FeatureSpace
from nacre.models.tasks import Classification, Regression
from nacre.recipe.audits import Evasion
from tests.conftest import ALL


class Counted(nn.Module):
    """A network that fails at its n-th call; parts of it are in different modes."""

    def __init__(self, outputs):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.ReLU(), nn.BatchNorm1d(8))
        self.head = nn.Linear(8, outputs)
        self.calls, self.last, self.fault = 0, None, RuntimeError("out of order")

    def forward(self, x):
        self.calls += 1
        if self.calls == self.last:
            raise self.fault
        random.random(), np.random.random(), torch.rand(1)  # whatever a model draws, and from where
        return self.head(self.body(x))


def made(outputs):
    torch.manual_seed(0)
    model = Counted(outputs)
    with torch.no_grad():
        model.body[3].running_mean.normal_()
    model.train()
    model.body[3].eval()
    model.body[0].weight.requires_grad_(False)
    model.head.weight.grad = torch.full_like(model.head.weight, 3.0)
    model.head.register_forward_hook(lambda *_: None)
    model.body[0].register_full_backward_hook(lambda *_: None)
    return model


def everything(model):
    """All that an attack could leave behind."""
    numbers = np.random.get_state()
    return {
        "modes": [module.training for module in model.modules()],
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "wants": [weight.requires_grad for weight in model.parameters()],
        "gradients": [weight.grad for weight in model.parameters()],
        "hooks": [
            [list(module._forward_hooks), list(module._forward_pre_hooks),
             list(module._backward_hooks), list(module._backward_pre_hooks)]
            for module in model.modules()
        ],
        "weight hooks": [list(weight._backward_hooks or ()) for weight in model.parameters()],
        "torch": torch.random.get_rng_state(),
        "numpy": (numbers[0], numbers[1].tolist(), *numbers[2:]),
        "python": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "settings": (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()),
    }  # fmt: skip


def same(one, other):
    assert all(a is b for a, b in zip(one["gradients"], other["gradients"], strict=True))
    assert all(torch.equal(one["state"][name], other["state"][name]) for name in one["state"])
    assert torch.equal(one["torch"], other["torch"])
    for name in (
        "modes",
        "wants",
        "hooks",
        "weight hooks",
        "numpy",
        "python",
        "grad mode",
        "settings",
    ):
        assert one[name] == other[name], name


SPACE = FeatureSpace((6,), tuple("abcdef"), low=torch.full((6,), -4.0), high=torch.full((6,), 4.0))
TABLE = TableThreat(columns={name: ColumnMove(reach=0.4) for name in "abc"})
CASES = {
    "linf": Evasion(ball=Ball(radius=0.3), effort="full", steps=2),
    "l2": Evasion(ball=Ball(kind="l2", radius=0.5), effort="quick", steps=2),
    "l1": Evasion(ball=Ball(kind="l1", radius=1.0), effort="quick", steps=2),
    "towards": Evasion(ball=Ball(radius=0.3), effort="quick", steps=2, towards="1"),
    "table": Evasion(ball=TABLE, effort="standard", steps=2, restarts=1),
    "numbers": Evasion(ball=Ball(radius=0.3), effort="quick", steps=2),
}

MOST = 99 if ALL else 5  # faults in a case
FAULTS = [(RuntimeError("x"), CallFailed), (KeyboardInterrupt(), KeyboardInterrupt)]


@pytest.fixture
def asked(target, rows):
    def make(name, model):
        test = rows(6, 1)
        test["features"].clamp_(-3, 3)
        task = Regression() if name == "numbers" else Classification(3)
        test["label"] = torch.zeros(6) if name == "numbers" else torch.arange(6).remainder(3)
        return target(model, task=task, space=SPACE, test=test, keep=lambda batch: None)

    return make


@pytest.mark.parametrize("name", CASES)
def test_after_every_stage_a_fault_in_any_and_an_interrupt(asked, name):
    model = made(1 if name == "numbers" else 3)
    before = everything(model)
    ends = []
    found = evasion(asked(name, model), CASES[name], lambda *_: ends.append(model.calls))
    same(before, everything(model))
    assert found.value <= found.details["clean"]["value"]
    # the first call of every stage, of the probes and of what is scored at the end
    first = sorted({1, model.calls} | {end + 1 for end in ends if end < model.calls})
    assert len(first) > 4
    if len(first) > MOST:  # the first, the last and others between
        first = [first[number * (len(first) - 1) // (MOST - 1)] for number in range(MOST)]
    for number, place in enumerate(first):
        fault, raised = FAULTS[number % 2]
        model.calls, model.last, model.fault = 0, place, fault
        with pytest.raises(raised):
            evasion(asked(name, model), CASES[name])
        same(before, everything(model))
    model.last, model.calls = None, 0
    assert evasion(asked(name, model), CASES[name]) == found

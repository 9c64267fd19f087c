"""A model that was tried is what it was: a module under two names included, and after a refusal."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from nacre.core.random import Source
from nacre.core.swapped import unmoved
from nacre.gradient_clipping import Flat
from nacre.integrations import trial
from nacre.integrations.examples import batch_of


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
        self.right = self.left
        self.out = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out((self.left(x[:, 0]) - self.right(x[:, 1])).abs())


def _losses(model, batch):
    return functional.cross_entropy(model(batch["features"]), batch["label"], reduction="none")


def _mixing(model, batch):
    return _losses(model, batch) + model.out.weight.sum() * batch["features"].sum()


def _batch():
    rows = {"features": torch.randn(4, 2, 4), "label": torch.tensor([0, 1, 0, 1])}
    return batch_of(rows, torch.arange(4), torch.device("cpu"))


def _state(model):
    return {
        name: (id(p), p.detach().clone(), p.requires_grad, p.grad is None)
        for name, p in model.named_parameters(remove_duplicate=False)
    }


def _is(model, before):
    after = _state(model)
    for name, (number, value, *flags) in before.items():
        assert after[name][0] == number, name
        assert torch.equal(after[name][1], value), name
        assert list(after[name][2:]) == flags, name


@pytest.mark.parametrize("kind", ["auto", "ghost", "grouped", "vmapped", "looped"])
def test_a_trial_leaves_a_module_under_two_names_as_it_was(kind):
    model, batch = Siamese().eval(), _batch()
    before, drawn = _state(model), torch.random.get_rng_state()
    sums = trial.tried(model, _losses, Flat(norm=1.0), batch, kind)
    _is(model, before)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert not model.training
    sums(model, batch, Flat(norm=1.0), Source(bytes(32)))
    _is(model, before)


def test_a_trial_that_refuses_leaves_the_model_as_it_was():
    model, batch = Siamese().eval(), _batch()
    before = _state(model)
    with pytest.raises(trial.UnsupportedLayer, match="rows beside it"):
        trial.tried(model, _mixing, Flat(norm=1.0), batch, "auto")
    _is(model, before)
    assert not model.training


def test_what_a_forward_pass_writes_and_hangs_on_is_undone():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    weight, mean = model[0].weight, model[1].running_mean.clone()
    before = weight.detach().clone()
    with pytest.raises(ZeroDivisionError), unmoved(model):
        model(torch.randn(3, 2))
        weight.data.add_(1.0)
        weight.requires_grad_(False)
        model[0].weight = nn.Parameter(torch.zeros(2, 2))
        model[0].register_forward_hook(lambda *_: None)
        raise ZeroDivisionError
    assert model[0].weight is weight
    assert torch.equal(weight, before)
    assert weight.requires_grad
    assert torch.equal(model[1].running_mean, mean)
    assert not model[0]._forward_hooks

"""A model that was tried is what it was: a module under two names included, and after a refusal."""

from __future__ import annotations

import random
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from nacre.core.errors import NacreError
from nacre.core.random import Source
from nacre.core.swapped import buffers_kept, unmoved
from nacre.gradient_clipping import Flat
from nacre.integrations import trial
from nacre.integrations.examples import batch_of
from nacre.integrations.inputs import own_loss
from nacre.models import repair
from nacre.models.load import _check_outputs
from nacre.planning.refusals.randomness import draws
from tests.laws.networks import NETWORKS, network
from tests.laws.zoo import ZOO


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


@pytest.mark.slow
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


# -- every trial, over every family of models --------------------------------------------------

_REGISTERS = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks",
              "_backward_hooks", "_backward_pre_hooks")  # fmt: skip


def _held(tensor):
    grad = tensor.grad if tensor.is_leaf else None
    hooks = len(getattr(tensor, "_backward_hooks", None) or {})
    kept = None if grad is None else grad.detach().clone().numpy().tobytes()
    value = tensor.detach().cpu().clone().contiguous().numpy().tobytes()
    return id(tensor), value, tensor.requires_grad, kept, hooks


def everything(model):
    """What a trial may not change: tensors and who they are, gradients, modes, hooks, attributes
    that are tensors, and the random numbers that come next."""
    found = {"random": random.getstate(), "numpy": repr(np.random.get_state())}
    found["torch"] = torch.get_rng_state().numpy().tobytes()
    for name, module in model.named_modules(remove_duplicate=False):
        found[name, "mode"] = module.training
        for register in _REGISTERS:
            entries = module.__dict__.get(register) or {}
            found[name, register] = [(key, id(value)) for key, value in entries.items()]
        for key, value in vars(module).items():
            if isinstance(value, torch.Tensor):
                found[name, key] = _held(value)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found[name] = _held(tensor)
    return found


def _unchanged(model, work):
    """Runs it, whatever it raises, and compares."""
    for parameter in model.parameters():  # gradients that stand have to go on standing
        parameter.grad = torch.full_like(parameter, 0.5) if parameter.requires_grad else None
    before = everything(model)
    try:
        work()
        raised = None
    except (NacreError, ZeroDivisionError) as error:
        raised = error
    after = everything(model)
    assert [key for key in before if before[key] != after.get(key)] == []
    assert before.keys() == after.keys()
    return raised


class Raising:
    """Losses that raise at the k-th call."""

    def __init__(self, losses, at):
        self.losses, self.left = losses, at

    def __call__(self, model, batch):
        self.left -= 1
        if self.left < 0:
            raise ZeroDivisionError
        return self.losses(model, batch)


@pytest.mark.slow
@pytest.mark.diagonal(always=(None,))
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft
@pytest.mark.parametrize("at", [None, 0, 3, 9, 14])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_trial_changes_no_network(name, at):
    model, batch, objective = network(name)
    model.eval()
    losses = objective.losses if at is None else Raising(objective.losses, at)
    raised = _unchanged(model, lambda: trial.tried(model, losses, Flat(norm=1.0), batch, "auto"))
    assert at is None or at > 9 or isinstance(raised, NacreError)


@pytest.mark.slow
@pytest.mark.diagonal
@pytest.mark.parametrize("animal", ZOO, ids=lambda animal: animal.name)
@pytest.mark.parametrize("kind", ["auto", "grouped", "vmapped", "looped"])
def test_a_trial_changes_no_animal(animal, kind):
    model, batch = animal.model(), animal.batch(4)

    def losses(model, batch):
        return animal.task.losses(model, batch)

    _unchanged(model, lambda: trial.tried(model, losses, Flat(norm=1.0), batch, kind))


class Remembering(nn.Module):
    """Leaves a trace in every way that a trial undoes, and then may fail."""

    def __init__(self, fails):
        super().__init__()
        self.out, self.fails = nn.Linear(6, 3), fails
        self.register_buffer("seen", torch.zeros(()))
        self.last = torch.zeros(3)

    def forward(self, x):
        self.seen = self.seen + 1
        self.last = x.detach()[0]
        self.new = x.detach()
        self.out.register_forward_hook(lambda *_: None)
        self.out.weight.data.mul_(1.0001)
        self.out.eval()
        random.random(), np.random.random(), torch.rand(())
        if self.fails:
            raise ZeroDivisionError
        return self.out(x)


def _layers(animal):
    return animal.model(), animal.shape, animal.task.outputs


TRIALS = MappingProxyType(
    {
        "rows that mix": lambda model, shape, outputs: repair.check(model, shape),
        "randomness": lambda model, shape, outputs: draws(model, torch.ones(4, *shape)),
        "outputs": lambda model, shape, outputs: _check_outputs(model, shape, outputs, "model"),
    }
)


@pytest.mark.parametrize("trial_of", TRIALS)
@pytest.mark.parametrize(
    "made",
    [*ZOO, Remembering(False), Remembering(True)],
    ids=[*(animal.name for animal in ZOO), "remembering", "remembering and failing"],
)
def test_the_trials_of_a_plan_change_nothing(trial_of, made):
    model, shape, outputs = (made, (6,), 3) if isinstance(made, nn.Module) else _layers(made)
    raised = _unchanged(model, lambda: TRIALS[trial_of](model, shape, outputs))
    assert raised is not None or not getattr(made, "fails", False)


@pytest.mark.parametrize("fails", [False, True])
def test_finding_the_models_own_loss_changes_nothing(fails):
    inner = Remembering(fails)

    class Stocked(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, x, labels=None):
            logits = self.inner(x)
            loss = None if labels is None else functional.cross_entropy(logits, labels)
            return {"logits": logits, "loss": loss}

    model = Stocked()
    single = {"x": torch.randn(1, 6), "labels": torch.tensor([1])}
    raised = _unchanged(model, lambda: own_loss(model, single))
    assert isinstance(raised, NacreError) == fails


def test_buffers_are_kept_where_a_pass_puts_others_in_their_place():
    model = Remembering(False)
    seen, value = model.seen, model.seen.clone()
    with buffers_kept(model):
        model(torch.randn(2, 6))
        model.seen += 3
    assert model.seen is seen and torch.equal(seen, value)


@pytest.mark.parametrize("before", [None, 3, torch.zeros(2)])
def test_an_attribute_that_a_pass_sets_is_again_what_it_was(before):
    model = torch.nn.Linear(2, 2)
    model.seen = before
    with unmoved(model):
        model.seen = torch.ones(2)
        model.other = torch.ones(2)
    assert model.seen is before and not hasattr(model, "other")

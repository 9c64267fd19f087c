"""What no optimizer moves is handed over as it was, or not at all: through every door."""

import pytest
import torch

from nacre.core.errors import Incompatible, UnsupportedLayer
from nacre.planning.plan import plan
from nacre.runs.run import train
from nacre.training import fit, step
from tests.integrations.declared import cross_entropy, linear, private, sgd, table
from tests.training.tiny import CENTRAL, FEDERATED, recipe

pytestmark = pytest.mark.slow

CODE = """
import torch
from torch import nn


class Keeps(nn.Module):
    def __init__(self, where):
        super().__init__()
        self.head = nn.Linear({width}, {outputs})
        self.frozen = nn.Parameter(torch.zeros({width}), requires_grad=False)
        self.register_buffer("kept", torch.zeros({width}))
        self.register_buffer("passing", torch.zeros({width}), persistent=False)
        self.alias = (self.kept, self.passing)
        self.where = where

    def forward(self, x):
        most = x.detach().amax(0)
        held = {"frozen": self.frozen, "kept": self.alias[0], "passing": self.alias[1]}
        if self.training and self.where:
            written = held[self.where].data
            written.copy_(torch.maximum(written, most))
        return self.head(x)


def make(where=""):
    return Keeps(where)
"""


def _code(width, outputs):
    return CODE.replace("{width}", str(width)).replace("{outputs}", str(outputs))


def _made(width, outputs, where):
    space = {}
    exec(_code(width, outputs), space)
    return space["make"](where)


SEEN = "'{}' (was written into|changes in a forward pass)"


def _model(where):
    features, _ = table().tensors
    return _made(features.shape[1], 2, where)


def _private(tmp_path, model, **changed):
    return private(tmp_path, model, sgd(model.head), **changed)


@pytest.mark.parametrize("where", ["frozen", "kept", "passing"])
@pytest.mark.parametrize("gradients", ["auto", "looped"])
def test_a_loop_of_ones_own_hands_nothing_over(tmp_path, where, gradients):
    """The maximum of the private rows, in a tensor that no noise reaches."""
    with pytest.raises((Incompatible, UnsupportedLayer), match=SEEN.format(where)):
        list(_private(tmp_path, _model(where), gradients=gradients))


def test_a_model_that_writes_nowhere_runs(tmp_path):
    with _private(tmp_path, _model("")) as run:
        assert len(list(run)) == 6


def test_what_is_written_between_steps_is_neither_saved_nor_finished(tmp_path):
    model = _model("")
    with _private(tmp_path, model, folder=tmp_path / "run") as run:
        run.step()
        model.frozen.data.add_(1.0)
        for ended in (run.save, run.finish):
            with pytest.raises(Incompatible, match="'frozen' was written into"):
                ended()


@pytest.mark.parametrize("where", ["frozen", "kept", "passing"])
@pytest.mark.parametrize("text", [CENTRAL, FEDERATED], ids=["central", "federated"])
def test_a_recipe_hands_nothing_over(tmp_path, text, where):
    (tmp_path / "keeps.py").write_text(_code(4, 3))
    model = {"kind": "python", "call": "keeps:make", "arguments": {"where": where}}
    with pytest.raises((Incompatible, UnsupportedLayer), match=SEEN.format(where)):
        train(plan(recipe(tmp_path, text, model=model)), tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()


# -- what only noised updates move ---------------------------------------------------------------

WRITING = """
import os

from torch import nn


class Writes(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        if "NACRE_TEST_WRITES" in os.environ:
            self.head.bias.data.add_(x.detach().mean())
        return self.head(x)


def make():
    return Writes()
"""

WRITTEN = "trainable weight '{}bias' was written into within a step"


@pytest.mark.parametrize("gradients", ["auto", "looped"])
@pytest.mark.parametrize("begun", [0, 1])
def test_a_loop_of_ones_own_releases_no_weight_that_a_pass_wrote(tmp_path, gradients, begun):
    model = _model("")
    with _private(tmp_path, model, gradients=gradients) as run:
        for _ in range(begun):
            run.step()
        before = run.epsilon()
        model.forward = lambda x: _writes(model, x)
        with pytest.raises(Incompatible, match=WRITTEN.format("head.")):
            run.step()
        assert run.epsilon() == before  # nothing left, so nothing was charged
        for ended in (run.step, run.finish):
            with pytest.raises(Incompatible, match="has moved the model's weights"):
                ended()


def _writes(model, x):
    model.head.bias.data.add_(x.detach().mean())
    return model.head(x)


@pytest.mark.parametrize("what", ["lr", "momentum_buffer"])
def test_the_optimizer_is_no_way_out_either(tmp_path, what):
    model = _model("")
    optimizer = sgd(model.head)

    def losses(model, features, label):
        if on:
            mean = features.detach().abs().mean()
            if what == "lr":
                optimizer.param_groups[0]["lr"] = mean
            else:
                optimizer.state[model.head.bias]["momentum_buffer"].data.fill_(mean)
        return cross_entropy(model, features, label)

    on = False
    with private(tmp_path, model, optimizer, losses=losses) as run:
        run.step()
        on = True
        with pytest.raises(Incompatible, match=f"optimizer's `{what}`.*nothing of this step"):
            run.step()


def test_step_sizes_and_frozen_momentum_may_be_moved_between_steps(tmp_path):
    """A scheduler does that, for momentum too, by numbers that no row decides."""
    model = linear()
    optimizer = sgd(model)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=20)
    with private(tmp_path, model, optimizer) as run:
        for _ in run:
            pace.step()
        run.finish()


@pytest.mark.parametrize("text", [CENTRAL, FEDERATED], ids=["central", "federated"])
def test_a_recipe_releases_no_weight_that_a_pass_wrote(tmp_path, text, monkeypatch):
    """The pass begins to write when the first step does: the trials would see it else."""

    def entering(*arguments):
        monkeypatch.setenv("NACRE_TEST_WRITES", "1")
        return step.entering(*arguments)

    monkeypatch.setattr(fit, "entering", entering)
    (tmp_path / "writes.py").write_text(WRITING)
    model = {"kind": "python", "call": "writes:make"}
    with pytest.raises(Incompatible, match=WRITTEN.format("head.")):
        train(plan(recipe(tmp_path, text, model=model)), tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()

"""What no optimizer moves is handed over as it was, or not at all: through every door."""

import pytest

from nacre.core.errors import Incompatible, UnsupportedLayer
from nacre.planning.plan import plan
from nacre.runs.run import train
from tests.integrations.declared import private, sgd, table
from tests.training.tiny import CENTRAL, FEDERATED, recipe

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

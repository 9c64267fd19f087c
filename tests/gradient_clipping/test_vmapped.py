import pytest
import torch
from torch import nn

from nacre.adversarial_training import Standard
from nacre.core.errors import UnsupportedLayer
from nacre.core.random import Source
from nacre.gradient_clipping import Flat, Vmapped
from tests.laws.zoo import MLP

SOURCE = Source(bytes(32))


def _vmapped(model, batch, clip):
    return Vmapped(Standard(MLP.task))(model, batch, clip, SOURCE)


class Failing(nn.Module):
    """A linear layer whose forward ends in the given step."""

    def __init__(self, step):
        super().__init__()
        self.head, self.step = nn.Linear(6, 3), step
        self.register_buffer("calls", torch.zeros(6))

    def forward(self, x):
        return self.head(self.step(self, x))


def _branch(module, x):
    return x if x.sum() > 0 else -x


def _item(module, x):
    return x * x.sum().item()


def _update(module, x):
    module.calls.add_(x[0])
    return x + module.calls


@pytest.mark.parametrize("step", [_branch, _item, _update])
def test_models_it_cannot_trace_are_refused_with_the_remedy(step):
    with pytest.raises(
        UnsupportedLayer, match=r"^Failing cannot .* use `gradients: bookkeeping` or `looped`$"
    ):
        _vmapped(Failing(step), MLP.batch(3), Flat(norm=1.0))


def test_a_model_that_fails_by_itself_says_so_itself():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        _vmapped(nn.Linear(5, 3), MLP.batch(3), Flat(norm=1.0))


def test_lack_of_memory_is_not_blamed_on_the_model():
    calls = []

    def exhausted(module, x):
        calls.append(1)
        if len(calls) == 1:  # all units at once; a single unit would have had room
            raise torch.OutOfMemoryError("no memory left")
        return x

    with pytest.raises(torch.OutOfMemoryError):
        _vmapped(Failing(exhausted), MLP.batch(3), Flat(norm=1.0))


def test_dropout_is_refused_since_masks_are_keyed_by_unit():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3)).train()
    with pytest.raises(UnsupportedLayer, match="use `gradients: bookkeeping`"):
        _vmapped(model, MLP.batch(4), Flat(norm=1.0))
    assert _vmapped(model.eval(), MLP.batch(4), Flat(norm=1.0)).local.dropped == 0

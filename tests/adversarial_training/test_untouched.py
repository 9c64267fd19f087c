"""What a model did to itself or to the process during an attack is undone, and said."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from nacre.adversarial_training.evaluation.untouched import untouched
from nacre.core.errors import Incompatible

X = torch.zeros(1, 2)


class Counting(nn.Module):
    """A network that notes each call in a buffer: in place, by a new tensor, or by a new name."""

    def __init__(self, how, persistent):
        super().__init__()
        self.body, self.how = nn.Linear(2, 2), how
        self.register_buffer("seen", torch.zeros(1), persistent=persistent)

    def forward(self, x):
        if self.how == "in place":
            self.seen += 1
        elif self.how == "anew":
            self.seen = self.seen + 1
        elif self.how == "resized":
            self.seen.resize_(3).fill_(1)
        return self.body(x)


class Guessing(nn.Module):
    """A network that draws by all three generators."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(2, 2)

    def forward(self, x):
        return self.body(x) + random.random() + np.random.rand() + torch.rand(1)


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize("how", ["in place", "anew", "resized"])
def test_a_buffer_that_forward_writes_is_refused_and_put_back(how, persistent):
    model = Counting(how, persistent)
    buffer = model.seen
    with pytest.raises(Incompatible, match="changed a weight or a buffer"), untouched(model):
        model(X)
    assert model.seen is buffer and torch.equal(buffer, torch.zeros(1))


def test_after_an_exception_buffers_are_put_back_too():
    model = Counting("in place", False)
    with pytest.raises(KeyboardInterrupt), untouched(model):
        model(X)
        raise KeyboardInterrupt
    assert torch.equal(model.seen, torch.zeros(1))


@pytest.mark.parametrize("fault", [None, KeyboardInterrupt])
def test_every_generator_is_as_it_was(fault):
    def states():
        numpys = np.random.get_state()
        return random.getstate(), numpys[1].tolist(), numpys[2:], torch.get_rng_state().tolist()

    model, before = Guessing(), states()
    try:
        with untouched(model):
            model(X)
            assert states() != before
            if fault is not None:
                raise fault
    except KeyboardInterrupt:
        assert fault is KeyboardInterrupt
    assert states() == before


def test_a_layer_without_a_size_is_refused_with_its_name():
    model = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d())
    with pytest.raises(Incompatible, match=r"'0.weight' has no size"), untouched(model):
        model(X)
    model(torch.zeros(3, 2))
    with untouched(model):
        model(X)


def test_state_that_is_no_tensor_is_the_models_own():
    class Noted(nn.Linear):
        def get_extra_state(self):
            return {"made": "today"}

        def set_extra_state(self, state):
            pass

    model = Noted(2, 2)
    with untouched(model):
        model(X)

"""What a model did to itself or to the process during an attack is undone, and said."""

import contextlib
import copy
import random
from collections import OrderedDict

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


class Rebuilding(nn.Module):
    """A network that puts an equal weight, bias or part in place of its own, or adds one."""

    def __init__(self, how):
        super().__init__()
        self.body, self.how = nn.Linear(2, 2), how

    def forward(self, x):
        if self.how == "weight":
            self.body.weight = nn.Parameter(self.body.weight.detach().clone())
        elif self.how == "part":
            self.body = copy.deepcopy(self.body)
        elif self.how == "no bias":
            self.body.bias = None
        elif self.how == "one more":
            self.body.register_parameter("more", nn.Parameter(torch.zeros(1)))
        return self.body(x)


@pytest.mark.parametrize("fault", [None, KeyboardInterrupt])
@pytest.mark.parametrize("how", ["weight", "part", "no bias", "one more"])
def test_what_forward_puts_in_place_of_its_own_is_gone(how, fault):
    """An equal one changes no answer, so it goes without a word; another model is refused."""
    model = Rebuilding(how)
    body, weight, bias = model.body, model.body.weight, model.body.bias
    weight.requires_grad_(False)
    bias.grad = torch.ones(2)
    expected = fault or (Incompatible if how in ("no bias", "one more") else None)
    with pytest.raises(expected) if expected else contextlib.nullcontext(), untouched(model):
        model(X)
        if fault is not None:
            raise fault
    assert model.body is body and body.weight is weight and body.bias is bias
    assert [name for name, _ in model.named_parameters()] == ["body.weight", "body.bias"]
    assert not weight.requires_grad and torch.equal(bias.grad, torch.ones(2))


def test_a_part_that_is_made_when_the_model_is_first_asked_stays():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.ready = nn.Linear(2, 2), False

        def forward(self, x):
            if not self.ready:
                self.out, self.ready = nn.Identity(), True
            return self.out(self.body(x))

    model = Late()
    with untouched(model):
        model(X)
    assert torch.equal(model(X), model.body(X))


class Hooking(nn.Module):
    """A network that hooks itself, or takes a hook off, when it is called."""

    def __init__(self, kind):
        super().__init__()
        self.body, self.kind = nn.Linear(2, 2), kind
        self.own = self.body.register_forward_hook(lambda *_: None)

    def forward(self, x):
        if self.kind == "removed":
            self.own.remove()
        elif self.kind == "anew":
            self.body._forward_hooks = OrderedDict()
        else:
            getattr(self.body, f"register_{self.kind}")(lambda *_: None)
        return self.body(x)


@pytest.mark.parametrize("fault", [None, KeyboardInterrupt])
@pytest.mark.parametrize(
    "kind",
    ["forward_hook", "forward_pre_hook", "full_backward_hook", "state_dict_pre_hook", "removed",
     "anew"],
)  # fmt: skip
def test_hooks_that_forward_registers_or_removes_are_refused_and_put_back(kind, fault):
    model = Hooking(kind)

    def hooks():
        return [
            dict(held)
            for module in model.modules()
            for name, held in vars(module).items()
            if "hooks" in name and isinstance(held, dict)
        ]

    before = hooks()
    with pytest.raises(fault or Incompatible) as caught, untouched(model):
        model(X)
        if fault is not None:
            raise fault
    assert fault is not None or "registered or removed a hook" in str(caught.value)
    assert hooks() == before
    model.own.remove()  # its handle still knows the dictionary
    assert not model.body._forward_hooks


def test_a_hook_for_one_call_is_none_of_this():
    class Looking(nn.Linear):
        def forward(self, x):
            with self.register_forward_hook(lambda *_: None):
                return super().forward(x)

    model = Looking(2, 2)
    with untouched(model):
        model(X)
    assert not model._forward_hooks


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

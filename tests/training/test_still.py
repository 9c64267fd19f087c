"""What a step compares: bits of weights, settings and state, whatever form they have."""

import pytest
import torch
from torch import nn

from nacre.core.errors import Incompatible
from nacre.core.random import Source
from nacre.gradient_clipping import Flat
from nacre.training.step import State, entering
from nacre.training.still import Still, _added_up

SOURCE = Source(bytes(32))


def _made(width=3, **settings):
    torch.manual_seed(0)
    model = nn.Linear(width, 2)
    optimizer = torch.optim.Adam(model.parameters(), **settings)
    model(torch.ones(2, width)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def _write(model, optimizer, what):
    held = optimizer.state[model.bias]
    group = optimizer.param_groups[0]
    if what == "one bit":
        model.weight.data.view(torch.int32)[0, 0] ^= 1
    elif what == "places":
        model.weight.data.copy_(model.weight.data.flip(1))
    elif what == "minus zero":
        model.bias.data.view(torch.int32)[0] = -(2**31)
    elif what == "data":
        model.bias.data = model.bias.data + 1
    elif what == "state":
        held["exp_avg"].data.add_(1)
    elif what == "more state":
        held["kept"] = [torch.ones(1)]
    elif what == "no state":
        optimizer.state.clear()
    elif what == "betas":
        group["betas"] = (0.5, 0.999)
    elif what == "a tensor":
        group["lr"].add_(1e-6)
    elif what == "group":
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    elif what == "hook":
        optimizer.register_step_pre_hook(lambda *_: None)


WRITES = [
    "one bit", "places", "minus zero", "data", "state", "more state", "no state", "betas",
    "a tensor", "group", "hook",
]  # fmt: skip


@pytest.mark.parametrize("width", [3, 5000])
@pytest.mark.parametrize("what", WRITES)
def test_every_write_is_seen(what, width):
    model, optimizer = _made(width, lr=torch.tensor(0.1))
    model.bias.data.zero_()
    still = Still.of(model, optimizer, SOURCE)
    still.require(model, optimizer)
    _write(model, optimizer, what)
    with pytest.raises(Incompatible, match="nothing of this step was released"):
        still.require(model, optimizer)


def test_settings_are_those_of_the_beginning_of_a_step():
    model, optimizer = _made(lr=0.1)
    still = Still.of(model, optimizer, SOURCE)
    optimizer.param_groups[0]["lr"] = 0.2
    still.begun(optimizer).require(model, optimizer)
    with pytest.raises(Incompatible, match="optimizer's `lr` was set within a step"):
        still.require(model, optimizer)


def test_the_weight_is_named():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    still = Still.of(model, optimizer, SOURCE)
    model[1].bias.detach().numpy()[1] = 5.0
    with pytest.raises(Incompatible, match=r"'1\.bias' was written .*compute a new tensor instead"):
        still.require(model, optimizer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.complex64])
@pytest.mark.parametrize("shape", [(), (7,), (300, 41)])
def test_blocks_of_an_accelerator_are_moved_by_any_number(dtype, shape):
    values = torch.zeros(shape, dtype=dtype)
    before = _added_up(values)
    values.view(-1)[-1] = 1
    assert not torch.equal(_added_up(values), before)


def test_one_pass_over_the_weights_gives_what_enters_a_step():
    model, optimizer = _made(5000)
    state = State(model, optimizer, Flat(norm=1.0), done=3)
    still = Still.of(model, optimizer, SOURCE)
    assert entering(state, SOURCE, b"more", still) == entering(state, SOURCE, b"more")
    other = SOURCE.child("other")  # whose digests are others
    assert entering(state, other, b"", still) == entering(state, other) != entering(state, SOURCE)


def test_what_enters_a_step_is_the_same_however_weights_lie():
    """Columns first, as a weight that was transposed is, or on another device."""
    model, optimizer = _made(5000)
    state = State(model, optimizer, Flat(norm=1.0))
    plain = entering(state, SOURCE, still=Still.of(model, optimizer, SOURCE))
    model.weight.data = model.weight.data.t().contiguous().t()
    still = Still.of(model, optimizer, SOURCE)
    assert still.marks is None
    assert entering(state, SOURCE, still=still) == plain
    model.weight.data[0, 0] += 1e-6
    assert entering(state, SOURCE) != plain

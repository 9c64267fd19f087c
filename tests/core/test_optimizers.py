import subprocess
import sys

import pytest
import torch

from nacre.core.optimizers import OPTIMIZERS, SGD, Adam, AdamW, Schedule, scale_steps


@pytest.mark.parametrize("option", [SGD(lr=0.5, momentum=0.9), Adam(lr=0.5), AdamW(lr=0.5)])
def test_an_optimizer_moves_against_the_gradient(option):
    w = torch.nn.Parameter(torch.zeros(1))
    optimizer = option.build([w])
    w.grad = torch.ones(1)
    optimizer.step()
    assert w.item() == pytest.approx(-0.5, rel=1e-4)


SETTINGS = ("lr", "momentum", "weight_decay", "betas", "eps")


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_steps_are_those_of_torch_to_the_bit(kind):
    def moved(make):
        torch.manual_seed(0)
        layer = torch.nn.Linear(5, 3)
        optimizer = make(layer.parameters())
        for _ in range(4):
            optimizer.zero_grad()
            layer(torch.randn(7, 5)).square().sum().backward()
            optimizer.step()
        again = make(layer.parameters())
        again.load_state_dict(optimizer.state_dict())
        again.step()
        return [p.detach() for p in layer.parameters()], again.state_dict()

    option = kind(momentum=0.9) if kind is SGD else kind()
    defaults = option.build([torch.zeros(1)]).defaults
    settings = {name: defaults[name] for name in SETTINGS if name in defaults}
    stock = getattr(torch.optim, kind.__name__)
    weights, state = moved(option.build)
    expected, their_state = moved(lambda parameters: stock(parameters, **settings))
    assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))
    assert str(state) == str(their_state)


STEPS = """
import sys, torch
from nacre.core.optimizers import OPTIMIZERS, scale_steps
from nacre.gradient_clipping.tape.carried_rows.handed import Hidden
layer = torch.nn.Linear(2, 1)
for option in OPTIMIZERS:
    optimizer = option().build(layer.parameters())
    scale_steps(optimizer, 0.5)
    with Hidden():
        layer(torch.ones(3, 2).view(3, 2)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules
"""


@pytest.mark.slow
def test_a_step_that_is_not_compiled_imports_no_compiler():
    subprocess.run([sys.executable, "-c", STEPS], check=True)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (SGD, {"lr": 0}),
        (SGD, {"momentum": 1.0}),
        (Schedule, {"warmup": 1.0}),
        (Adam, {"beta1": -0.1}),
        (AdamW, {"lr": -1}),
    ],
)
def test_values_out_of_range_are_refused(kind, values):
    with pytest.raises(ValueError, match="must be"):
        kind(**values)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@pytest.mark.parametrize(("warmup", "steps"), [(0.0, 1), (0.0, 7), (0.3, 10), (0.99, 5)])
def test_a_schedule_rises_then_falls_and_never_stands_still(shape, warmup, steps):
    factors = [Schedule(shape=shape, warmup=warmup).factor(step, steps) for step in range(steps)]
    top = factors.index(max(factors))
    assert max(factors) == pytest.approx(1.0) and min(factors) > 0
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)


def test_a_schedule_halves_at_its_middle():
    assert Schedule(shape="linear").factor(5, 10) == pytest.approx(0.5)
    assert Schedule(shape="cosine").factor(5, 10) == pytest.approx(0.5)


def test_step_sizes_are_multiples_of_the_first_one():
    optimizer = SGD(lr=0.5).build([torch.nn.Parameter(torch.zeros(1))])
    for factor in (0.5, 0.1):
        scale_steps(optimizer, factor)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * factor)

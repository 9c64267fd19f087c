import subprocess
import sys

import pytest
import torch

from nacre.core.optimizers import (
    OPTIMIZERS,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Schedule,
    Yogi,
    scale_steps,
)


@pytest.mark.parametrize(
    "option",
    [SGD(lr=0.5, momentum=0.9), Adam(lr=0.5), AdamW(lr=0.5), Adagrad(lr=0.5)],
)
def test_an_optimizer_moves_against_the_gradient(option):
    w = torch.nn.Parameter(torch.zeros(1))
    optimizer = option.build([w])
    w.grad = torch.ones(1)
    optimizer.step()
    assert w.item() == pytest.approx(-0.5, rel=1e-4)


SETTINGS = ("lr", "momentum", "weight_decay", "betas", "eps", "initial_accumulator_value")


@pytest.mark.parametrize("kind", [kind for kind in OPTIMIZERS if kind is not Yogi])
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


@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_yogi_is_its_formula(beta1):
    option = Yogi(lr=0.3, beta1=beta1, beta2=0.8, epsilon=0.01)
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = option.build([w])
    expected, mean, square = w.detach().double(), torch.zeros(2).double(), 0.01**2
    for step in range(6):
        gradient = torch.tensor([0.5, -3.0]) / (1 + step)
        w.grad = gradient.clone()
        if step == 3:  # a run that resumes continues
            kept = optimizer.state_dict()
            optimizer = option.build([w])
            optimizer.load_state_dict(kept)
        optimizer.step()
        g = gradient.double()
        mean = beta1 * mean + (1 - beta1) * g
        square = square - (1 - 0.8) * torch.sign(square - g**2) * g**2
        expected = expected - 0.3 * mean / (square.sqrt() + 0.01)
        assert w.detach().double() == pytest.approx(expected, rel=1e-5)


def test_fed_adagrad_starts_its_sum_of_squares_at_the_square_of_tau():
    w = torch.nn.Parameter(torch.zeros(1))
    optimizer = Adagrad(lr=0.5, initial=0.04, epsilon=0.2).build([w])
    w.grad = torch.tensor([0.3])
    optimizer.step()
    assert w.item() == pytest.approx(-0.5 * 0.3 / ((0.04 + 0.09) ** 0.5 + 0.2))


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
        (Adagrad, {"epsilon": 0}),
        (Adagrad, {"initial": -1}),
        (Yogi, {"beta2": 1.0}),
        (Yogi, {"epsilon": float("nan")}),
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

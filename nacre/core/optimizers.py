"""Optimizers as options: `torch.optim` takes over once the noise is on."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from nacre.core import require
from nacre.core.errors import BadArgument


class _Uncompiled(torch.optim.Optimizer):
    """What torch's optimizers do, without what they first do for `torch.compile`.

    Torch wraps these functions so that its compiler leaves them out, and the wrappers import the
    compiler (`torch._dynamo`, with SymPy) at their first call: two seconds, though nothing here
    compiles an optimizer. Where a version of torch wraps them otherwise, they are as it has them.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class _SGD(_Uncompiled, torch.optim.SGD):
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class _Adam(_Uncompiled, torch.optim.Adam):
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class _AdamW(_Uncompiled, torch.optim.AdamW):
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class _Adagrad(_Uncompiled, torch.optim.Adagrad):
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adagrad.step))


class _Yogi(_Uncompiled):
    """What torch does not have; `Yogi` says what it computes."""

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float], eps: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Moves every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        (beta1, beta2), eps = group["betas"], group["eps"]
        kept = self.state[parameter]
        if not kept:
            kept["mean"] = torch.zeros_like(parameter)
            kept["square"] = torch.full_like(parameter, eps**2)
        mean, square, new = kept["mean"], kept["square"], gradient.square()
        mean.lerp_(gradient, 1 - beta1)
        square.addcmul_(torch.sign(square - new), new, value=beta2 - 1)
        parameter.addcdiv_(mean, square.sqrt().add_(eps), value=-group["lr"])


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise BadArgument(f"{name}={value} must be > 0")


def _kept(momentum: float, decay: float) -> str:
    named = {"momentum": momentum, "weight decay": decay}
    return "".join(f", {name} {value:g}" for name, value in named.items() if value)


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent; for a server, lr 1 is FedAvg (McMahan et al. 2017)."""

    kind: Literal["sgd"] = "sgd"
    lr: float = 0.1
    """Step size."""
    momentum: float = 0.0
    """Share of the last step that is kept, in [0, 1)."""
    weight_decay: float = 0.0
    """Strength of the pull towards zero."""

    def __post_init__(self) -> None:
        _positive("lr", self.lr)
        require.below_one(momentum=self.momentum)

    def sentence(self) -> str:
        """The optimizer with its numbers."""
        return f"SGD, step size {self.lr:g}" + _kept(self.momentum, self.weight_decay)

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimizer over `parameters`."""
        return _SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma & Ba 2015); as a server's optimizer it is FedAdam (Reddi et al. 2021)."""

    kind: Literal["adam"] = "adam"
    lr: float = 1e-3
    """Step size."""
    beta1: float = 0.9
    """Memory of the mean."""
    beta2: float = 0.999
    """Memory of the square."""
    epsilon: float = 1e-8
    """Added to the root of the square; FedAdam calls it tau."""

    def __post_init__(self) -> None:
        _positive("lr", self.lr)
        require.below_one(beta1=self.beta1)
        require.below_one(beta2=self.beta2)

    def sentence(self) -> str:
        """The optimizer with its numbers."""
        return f"Adam, step size {self.lr:g}, betas {self.beta1:g} and {self.beta2:g}"

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimizer over `parameters`."""
        betas = (self.beta1, self.beta2)
        return _Adam(parameters, lr=self.lr, betas=betas, eps=self.epsilon)


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"
    lr: float = 1e-3
    """Step size."""
    beta1: float = 0.9
    """Memory of the mean."""
    beta2: float = 0.999
    """Memory of the square."""
    weight_decay: float = 0.01
    """Strength of the pull towards zero."""

    def __post_init__(self) -> None:
        _positive("lr", self.lr)
        require.below_one(beta1=self.beta1)
        require.below_one(beta2=self.beta2)

    def sentence(self) -> str:
        """The optimizer with its numbers."""
        betas = f"betas {self.beta1:g} and {self.beta2:g}"
        return f"AdamW, step size {self.lr:g}, {betas}" + _kept(0.0, self.weight_decay)

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimizer over `parameters`."""
        betas = (self.beta1, self.beta2)
        return _AdamW(parameters, lr=self.lr, betas=betas, weight_decay=self.weight_decay)


@dataclass(frozen=True, kw_only=True)
class Adagrad:
    """Adagrad (Duchi et al. 2011); as a server's optimizer it is FedAdagrad (Reddi et al. 2021,
    algorithm 2, with beta1 = 0)."""

    kind: Literal["adagrad"] = "adagrad"
    lr: float = 1e-2
    """Step size."""
    initial: float = 0.0
    """What the sum of squares starts at; FedAdagrad starts it at the square of tau."""
    epsilon: float = 1e-8
    """Added to the root of the sum of squares; FedAdagrad calls it tau."""

    def __post_init__(self) -> None:
        _positive("lr", self.lr)
        _positive("epsilon", self.epsilon)
        require.not_negative(initial=self.initial)

    def sentence(self) -> str:
        """The optimizer with its numbers."""
        return f"Adagrad, step size {self.lr:g}"

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimizer over `parameters`."""
        return _Adagrad(
            parameters, lr=self.lr, initial_accumulator_value=self.initial, eps=self.epsilon
        )


@dataclass(frozen=True, kw_only=True)
class Yogi:
    """Adam whose memory of the square moves by no more than the new square, so that a few large
    gradients do not make later steps small for long (Zaheer et al. 2018, algorithm 2); as a
    server's optimizer it is FedYogi (Reddi et al. 2021, algorithm 2).

    The mean m and the square v of a gradient g follow m ← beta1 m + (1 - beta1) g and
    v ← v - (1 - beta2) sign(v - g²) g², and a weight moves by -lr m / (√v + epsilon). As in the
    second source, v starts at epsilon² and nothing is corrected for the start.
    """

    kind: Literal["yogi"] = "yogi"
    lr: float = 1e-2
    """Step size."""
    beta1: float = 0.9
    """Memory of the mean."""
    beta2: float = 0.99
    """Memory of the square."""
    epsilon: float = 1e-3
    """Added to the root of the square; FedYogi calls it tau."""

    def __post_init__(self) -> None:
        _positive("lr", self.lr)
        _positive("epsilon", self.epsilon)
        require.below_one(beta1=self.beta1)
        require.below_one(beta2=self.beta2)

    def sentence(self) -> str:
        """The optimizer with its numbers."""
        return f"Yogi, step size {self.lr:g}, betas {self.beta1:g} and {self.beta2:g}"

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimizer over `parameters`."""
        return _Yogi(parameters, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.epsilon)


OptimizerOption = SGD | Adam | AdamW | Adagrad | Yogi

OPTIMIZERS: tuple[type[OptimizerOption], ...] = get_args(OptimizerOption)
"""Every optimizer that a recipe can name; the laws run over them."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the step size goes over a run: a function of the step's number alone, so it costs no
    privacy. A falling one averages over the noise of the last steps instead of ending on it."""

    shape: Literal["linear", "cosine"] = "linear"
    """The way down: along a line, or along half a cosine (Loshchilov & Hutter 2017)."""
    warmup: float = 0.0
    """Share of all steps over which it rises from 0 first, in [0, 1)."""

    def __post_init__(self) -> None:
        require.below_one(warmup=self.warmup)

    def factor(self, step: int, steps: int) -> float:
        """Of the optimizer's own step size, in (0, 1], for `step` of 0 … steps - 1.

        >>> [Schedule(warmup=0.5).factor(step, 4) for step in range(4)]
        [0.5, 1.0, 1.0, 0.5]
        """
        rising = math.ceil(self.warmup * steps)
        if step < rising:
            return (step + 1) / rising
        left = 1 - (step - rising) / (steps - rising)
        return left if self.shape == "linear" else (1 - math.cos(math.pi * left)) / 2


@dataclass(frozen=True, kw_only=True)
class Average:
    """The finished model is an exponential moving average of the weights over the steps, which
    takes out much of their noise (Polyak & Juditsky 1992; under privacy De et al. 2022, section
    3.4). It is computed from weights that are released anyway, so it costs no privacy."""

    decay: float = 0.99
    """Share of the average that a step keeps, in [0, 1): it spans about 1 / (1 - decay) steps."""

    def __post_init__(self) -> None:
        require.below_one(decay=self.decay)

    def sentence(self) -> str:
        """What becomes of the weights.

        >>> Average(decay=0.98).sentence()
        'the finished model is a moving average of the weights, decay 0.98'
        """
        return f"the finished model is a moving average of the weights, decay {self.decay:g}"

    def memory(self, done: int) -> float:
        """The share that is kept at step `done`, counted from 1: less at first, so that the
        weights of the start are soon forgotten.

        >>> [round(Average(decay=0.9).memory(done), 3) for done in (1, 10, 1000)]
        [0.182, 0.55, 0.9]
        """
        return min(self.decay, (1 + done) / (10 + done))


def scale_steps(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every step size to this multiple of the one that the optimizer was built with."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group.setdefault("initial_lr", group["lr"])

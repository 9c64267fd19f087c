"""Whether `torch.compile` pays for a run, found out on made-up rows, and the losses it then makes.

It is considered only where no epsilon covers the run and one process trains one model. The sums
that clip units follow each operation of the model, and a compiled model hides its operations: a
taped sum would refuse it. And a step that is taken again has to round as it did, which the compiler
does not promise, so nothing that is answered for in a ledger may depend on it.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from nacre.adversarial_training.objectives import at
from nacre.core.errors import NacreError
from nacre.core.parts import Clip, GradientSum, Objective
from nacre.core.random import Source
from nacre.core.swapped import unmoved
from nacre.core.tensors import norm, subtract
from nacre.core.types import Batch, BoundedSum
from nacre.gradient_clipping import Whole
from nacre.recipe.schema import Recipe

_AGREES = 1e-3  # relative: as far as a gradient sum may be from another one on made-up rows
_PAYS = 0.95  # a gain below one in twenty is lost in the noise of timing


@dataclass(frozen=True)
class CompileVerdict:
    """Whether the compiled model is taken, and why."""

    taken: bool
    why: str


class Compiled:
    """An objective whose losses go through the compiled model; attacks see the plain one.

    Sizes are compiled as unknowns, so a draw of another size needs no new compilation; dropout
    draws the numbers that it draws without the compiler. Raises `NacreError` where the compiler
    fails.
    """

    def __init__(self, objective: Objective, model: nn.Module) -> None:
        self._plain = objective
        self._compiled: nn.Module = torch.compile(  # pyright: ignore[reportAttributeAccessIssue]
            model, dynamic=True, options={"fallback_random": True}
        )

    def at(self, done: float) -> Self:
        """The objective at this share of the run's steps, through the model compiled already."""
        other = copy.copy(self)
        other._plain = at(self._plain, done)
        return other

    def perturb(self, model: nn.Module, batch: Batch, source: Source) -> Batch:
        """As the plain objective perturbs."""
        return self._plain.perturb(model, batch, source)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (B,); `model` is the one that was compiled."""
        try:
            return self._plain.losses(self._compiled, batch)
        except Exception as error:
            from torch._dynamo.exc import TorchDynamoException  # by now it is loaded; it takes 2 s

            if not isinstance(error, TorchDynamoException):
                raise
            raise NacreError(
                f"torch.compile failed on the model ({_first_line(error)}); put the compiler back, "
                "or start a run with `execution: {compile: false}`"
            ) from error


def unfit(recipe: Recipe, sums: GradientSum) -> str | None:
    """Why compiling is not even tried; None where it may be."""
    if recipe.differential_privacy is not None:
        return (
            "a step that is taken again has to round as it did, which the compiler cannot promise"
        )
    if recipe.federated_learning is not None:
        return "each party would compile a model of its own"
    if recipe.adversarial_training is not None and recipe.adversarial_training.on_tokens:
        return (
            "moves of embeddings enter the model between its operations, and compiling hides them"
        )
    if not isinstance(sums, Whole):
        return "sums that clip units follow each operation of the model, and compiling hides them"
    return None


def tried(sums: Whole, model: nn.Module, sample: Batch, clip: Clip, steps: int) -> CompileVerdict:
    """Compiles the model and times one sum over `sample` with and without it, both warm.

    The compiled model is taken where its sum agrees with the plain one and it saves more over
    `steps` than compiling took. The model is afterwards what it was, also where this raises.
    """
    with unmoved(model):
        plain, expected = _timed(sums, model, sample, clip)
        start = time.perf_counter()
        compiled = replace(sums, objective=Compiled(sums.objective, model))
        try:
            fast, seen = _timed(compiled, model, sample, clip)
        except NacreError as error:
            return CompileVerdict(False, f"not compiled, since {error}")
        compiling = time.perf_counter() - start
    apart = norm(subtract(seen.total, expected.total))
    if not apart <= _AGREES * norm(expected.total) + 1e-12:
        return CompileVerdict(False, f"compiled: the sum is off by {apart:.3g}: not taken")
    return compile_verdict(plain, fast, compiling, steps)


def is_compiled(sums: GradientSum) -> bool:
    """Whether this sum goes through a compiled model."""
    return isinstance(sums, Whole) and isinstance(sums.objective, Compiled)


def compile_verdict(plain: float, compiled: float, compiling: float, steps: int) -> CompileVerdict:
    """The verdict on these seconds a step, and these for compiling.

    >>> compile_verdict(0.010, 0.012, 3.0, 1000).why
    'compiled: 12.0 ms against 10.0 ms a step plain: not taken'
    >>> compile_verdict(0.010, 0.008, 3.0, 10_000).taken
    True
    """
    times = f"compiled: {1e3 * compiled:.1f} ms against {1e3 * plain:.1f} ms a step plain"
    if compiled > _PAYS * plain:
        return CompileVerdict(False, f"{times}: not taken")
    if steps * (plain - compiled) <= compiling:
        lost = f"compiling takes {compiling:.1f} s, more than {steps} steps save"
        return CompileVerdict(False, f"{times}, but {lost}: not taken")
    return CompileVerdict(True, f"{times}: taken")


def compiled(sums: Whole, model: nn.Module, sample: Batch, clip: Clip) -> Whole:
    """The sum through the compiled model, which is compiled here and now: on made-up rows of the
    same shape each time, so that a resumed run goes on with the same code.

    Raises `NacreError` where the compiler fails.
    """
    made = replace(sums, objective=Compiled(sums.objective, model))
    with unmoved(model):
        _sum(made, model, sample, clip)
    return made


def _timed(sums: Whole, model: nn.Module, sample: Batch, clip: Clip) -> tuple[float, BoundedSum]:
    """The fastest of three sums, after one that warms up; from the same random state each time."""
    warm = _sum(sums, model, sample, clip)
    return min(_seconds(lambda: _sum(sums, model, sample, clip)) for _ in range(3)), warm


def _sum(sums: Whole, model: nn.Module, sample: Batch, clip: Clip) -> BoundedSum:
    torch.default_generator.manual_seed(0)
    return sums(model, sample, clip, Source(bytes(32)))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__

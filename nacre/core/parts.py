"""The extension points of Nacre, as protocols: the parts of a step that can be replaced.

Options (what a recipe says) are frozen dataclasses with a `kind`; a part is what an option
builds once the data's shape, the task and the calibrated numbers are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from nacre.core.random import Source
from nacre.core.types import Adjacency, Batch, BoundedSum, Losses, Release, Tensors

AnyUnits = Any
"""What a gradient sum runs over: a `Batch` of rows, or a tuple of party names."""

NoiseState = Tensors | None
"""What a noise remembers between steps; None where it remembers nothing. It is private, and on
disk it lies in `local/` alone."""


class Task(Protocol):
    """What the model's outputs mean: losses and scores, row by row."""

    @property
    def kind(self) -> str:
        """`classification`, `regression`, `causal_lm` or `token_classification`."""
        ...

    @property
    def outputs(self) -> int:
        """Width of the model's output: classes, or 1."""
        ...

    def predict(self, model: nn.Module, features: Tensor) -> Tensor:
        """(R, *shape) -> (R, outputs): the model's outputs (logits or values)."""
        ...

    def row_losses(self, outputs: Tensor, label: Tensor) -> Tensor:
        """(R, outputs), (R,) -> (R,): the loss of each row."""
        ...

    def divergence(self, reference: Tensor, outputs: Tensor) -> Tensor:
        """(R, outputs) twice -> (R,): how far `outputs` lie from `reference` (KL, or squares)."""
        ...

    def correct(self, outputs: Tensor, label: Tensor) -> Tensor:
        """(R, outputs), (R,) -> (R,) bool: whether each row is answered rightly."""
        ...

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (B,): the loss of each unit, averaged over its own rows. A `Losses`."""
        ...


class Sampling(Protocol):
    """Which units enter a step. Fields are public facts."""

    kind: ClassVar[str]
    """The name of the draw in a recipe."""

    @property
    def expected(self) -> float:
        """Units a step: the divisor, declared, never counted."""
        ...

    @property
    def separation(self) -> int:
        """The least number of steps from one participation of a unit to its next; 1 where a unit
        may enter two steps in a row."""
        ...

    def sentence(self) -> str:
        """How a step draws, as the object of "each step draws"."""
        ...

    def facts(self) -> dict[str, Any]:
        """The draw as plan.json has it."""
        ...

    def resized(self, factor: float) -> Sampling | None:
        """The same draw of `factor` times as many units a step; None where there is none."""
        ...

    def draw(self, units: int, step: int, source: Source, entered: bytes) -> Tensor:
        """(b,) int64 indices into `units` units; b is random and private.

        `source` is the run's sampling source; `entered` is the digest of what enters the step.
        Poisson keys its stream by both, a shuffle by its epoch alone.
        """
        ...


class Attack(Protocol):
    """Moves the features of each row inside its region to raise that row's loss."""

    def __call__(self, model: nn.Module, batch: Batch, losses: Losses, source: Source) -> Batch:
        """The batch with other features; row i depends on row i, its unit's number and `source`.

        `batch` has one row an entry (see `rows.flatten`). The model's mode, its `requires_grad`
        and its `.grad` are as they were.
        """
        ...


class Objective(Protocol):
    """What a step minimises: Standard, Madry, Trades, a climb in embedding space."""

    def perturb(self, model: nn.Module, batch: Batch, source: Source) -> Batch:
        """The batch that `losses` wants; it may carry more entries (as `adversarial`)."""
        ...

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (B,), entry i a function of row i alone."""
        ...


@runtime_checkable
class SharedDescent(Protocol):
    """An objective whose search for the worst input shares its passes with the descent."""

    def descend(
        self,
        losses: Callable[[Batch], Tensor],
        model: nn.Module,
        parameters: Tensors,
        batch: Batch,
        source: Source,
    ) -> Tensors | None:
        """name -> the gradient of the sum of the losses over the batch, as `perturb` and `losses`
        would give it; None where there is no such way. `losses` takes a batch with `perturb`'s
        entries at these parameters. The batch has not passed `perturb`."""
        ...


class Shape(Protocol):
    """What is done to a released mean gradient before the update: post-processing."""

    def shape(self, mean: Tensors) -> Tensors:
        """The mean gradient that the optimizer is given; of the same names and shapes."""
        ...


class Clip(Protocol):
    """A rule from norms to factors. Frozen; `after` returns the next one.

    *Law:* whatever a unit's gradient is, the gradient times its factors together with the unit's
    own entries of `extras` is no longer than `bound`.
    """

    @property
    def kind(self) -> str:
        """The name of the rule in a recipe."""
        ...

    one_factor: ClassVar[bool]
    """Whether a unit has one factor, whatever the parameters are: `groups` gives one group."""

    def sentence(self, share: str) -> str:
        """What the rule does to `share` (as "Each unit's gradient"), with all its numbers."""
        ...

    def facts(self) -> dict[str, Any]:
        """The rule as plan.json has it: kind, bound of the first step (None where there is none),
        and what moves the bound of a rule that moves."""
        ...

    def groups(self, names: Sequence[str]) -> list[list[str]]:
        """G groups of parameters, each with a norm of its own."""
        ...

    def factors(self, norms: Tensor) -> Tensor:
        """(B, G) -> (B, G); 0 where the norm is not finite."""
        ...

    def bound(self, groups: int) -> float:
        """The joint norm that no unit's share exceeds; inf where the rule bounds nothing."""
        ...

    def extras(self, norms: Tensor) -> Tensors:
        """(B, G) finite norms -> ":name" entries added to the sum, over the units, float32.

        The names and shapes are always the same: zeros for no unit. Most rules have none.
        """
        ...

    def after(self, release: Release, expected: float) -> Clip:
        """The rule of the next step, from a release and the *declared* units a step.

        Adaptive rules move, the others return themselves.
        """
        ...

    def moved(self) -> dict[str, float]:
        """The state for a checkpoint; {} for a rule without one."""
        ...

    def at(self, moved: Mapping[str, float]) -> Clip:
        """The same rule in the state that `moved` returned."""
        ...


class GradientSum(Protocol):
    """The clipped sum of per-unit gradients, with its bound, computed in one call."""

    def __call__(
        self, model: nn.Module, units: AnyUnits, clip: Clip, source: Source
    ) -> BoundedSum: ...


class NoiseShare(Protocol):
    """One holder's share of a noise on whole numbers, which no one holder knows."""

    @property
    def dimension(self) -> int:
        """Entries of the vector."""
        ...

    @property
    def shares(self) -> int:
        """Shares that are unknown to those who look, at least."""
        ...

    @property
    def variance(self) -> float:
        """Of one share, in squared whole numbers."""
        ...

    @property
    def deviation(self) -> float:
        """Of those shares together, in whole numbers."""
        ...

    def drawn(self, source: Source) -> np.ndarray:
        """(dimension,) int64; the same source gives the same share."""
        ...


class Noise(Protocol):
    """Adds what hides one unit; the only maker of a `Release`."""

    @property
    def multiplier(self) -> float | None:
        """Deviation in units of the sensitivity; None until calibrated."""
        ...

    def init(self, like: Tensors) -> NoiseState: ...

    def add(
        self,
        total: BoundedSum,
        state: NoiseState,
        source: Source,
        adjacency: Adjacency,
        *,
        consume: bool = False,
    ) -> tuple[Release, NoiseState]:
        """What leaves; with `consume` it may take over the memory of `total`."""
        ...


@runtime_checkable
class Handler(Protocol):
    """What a party does with the bytes of a request: `Party.handle` on both sides of a wire."""

    def __call__(self, request: bytes) -> bytes: ...


class Transport(Protocol):
    """How requests reach the parties: their names and one method, all that a deployment writes."""

    @property
    def parties(self) -> Sequence[str]:
        """Their names, in a fixed order."""
        ...

    def ask(self, requests: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Sends each party its request; an absent key means no answer in time."""
        ...

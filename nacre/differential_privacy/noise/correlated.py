"""Noise that later noise takes back in part, so that less of it is left in the weights.

Released is `sums + C^-1 z`, step by step, with z independent and C lower triangular. As the same
noise on C times the sums determines it, and is determined by it, it reveals exactly what that
reveals; and a unit is hidden there by z as by independent noise, once its share of C times the
sums is bounded (`nacre.differential_privacy.events` says by what).

*The sums may depend on earlier releases.* A Gaussian mechanism on C times an adaptive stream costs
what it costs on a fixed one (Denisov et al. 2022, theorem 2.1). What is kept between the steps:
`unit_scale.py`.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from nacre.core.errors import BadArgument, RunError
from nacre.core.normals.box_muller import Normals
from nacre.core.parts import NoiseState
from nacre.core.random import Source
from nacre.core.types import Adjacency, BoundedSum, Noised, Release, Tensors
from nacre.differential_privacy.noise.blt import Buffered
from nacre.differential_privacy.noise.factorization import inverse
from nacre.differential_privacy.noise.unit_scale import (
    draws_like,
    pack_state,
    released,
    require_multiplier,
    scale_of_draws,
    unpack_state,
)


@dataclass(frozen=True, kw_only=True)
class Banded:
    """Noise C^-1 z for a banded Toeplitz C: each step takes back part of the last ones' noise.

    *Guarantee:* with w_t the noise of step t in units of `multiplier * sensitivity`,
    c_0 w_t + … + c_(b-1) w_(t-b+1) are independent standard normals, on every coordinate and at
    every step. The columns of C have length 1 at most.

    *State:* the noise of the last b - 1 steps, at unit scale: 4 (b - 1) bytes a parameter.

    Source: Choquette-Choo et al. 2023, "(Amplified) banded matrix factorization", section 4.
    """

    kind: Literal["banded"] = "banded"
    coefficients: tuple[float, ...]  # c_0 … c_(b-1), of length 1
    multiplier: float | None = None
    """Standard deviation of z in units of the sensitivity; None until calibrated."""

    def __post_init__(self) -> None:
        require_multiplier(self.multiplier)
        length = math.sqrt(math.fsum(c * c for c in self.coefficients))
        if not self.coefficients or not self.coefficients[0] > 0 or not length <= 1 + 1e-12:
            raise BadArgument(
                f"coefficients={self.coefficients} must start above 0 and have length 1"
            )

    @property
    def bands(self) -> int:
        """Diagonals of C; noise of steps further apart has nothing to do with each other's C."""
        return len(self.coefficients)

    def facts(self) -> dict[str, Any]:
        """Kind, multiplier, bands and the first column of C, as plan.json has them."""
        own = {"bands": self.bands, "coefficients": list(self.coefficients)}
        return {"kind": self.kind, "multiplier": self.multiplier, **own}

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any], steps: int) -> Self:
        """What `facts` described, uncalibrated."""
        return cls(coefficients=tuple(facts["coefficients"]))

    def init(self, like: Tensors) -> NoiseState:
        """No steps yet; what the noise was begun with, so that it is gone on with in kind."""
        return {"step": torch.tensor(0), "made by": torch.tensor(self.coefficients).double()}

    def spread(self, step: int) -> float:
        """Deviation of the release of `step` (from 0) in units of `multiplier * sensitivity`: the
        length of a row of C^-1."""
        return float(np.linalg.norm(_inverse(self.coefficients, step + 1)))

    def add(
        self,
        total: BoundedSum,
        state: NoiseState,
        source: Source,
        adjacency: Adjacency,
        *,
        consume: bool = False,
    ) -> tuple[Release, NoiseState]:
        """The noised sum in float32, and the state with the noise of this step.

        Raises as `Gaussian.add`; `RunError` for a state of other coefficients or parameters.
        """
        unit = scale_of_draws(self.multiplier, total, adjacency)
        made = torch.tensor(self.coefficients).double()
        step, past = unpack_state(state, made, total, self.bands - 1)
        first, *later = self.coefficients
        fresh = draws_like(total)
        for coefficient, drawn in zip(later, past, strict=False):  # fewer in the first steps
            fresh.add_(drawn.to(fresh.device), alpha=-coefficient / first)
        Normals(source, fresh.numel()).onto(fresh, 1 / first, fresh)
        noised = released(total, fresh, unit, consume)
        kept = [fresh, *past][: self.bands - 1]
        deviation = unit * self.spread(step)
        return Release(noised, Noised(deviation, total.bound)), pack_state(step + 1, made, kept)


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Noise on the nodes of a binary tree over the steps; each prefix sum is estimated from the
    nodes of its subtrees, inner ones included.

    *Guarantee:* what is released is a function of the sums under the tree's nodes, each with
    independent normal noise of `multiplier * sensitivity * reach`, where `reach` is how far a unit
    that enters every `separation` steps, at most, moves all nodes together.

    *State:* an estimate for each complete subtree that waits for its sibling: 4 bytes a parameter
    for each bit of the number of steps.

    Source: Kairouz et al. 2021, "Practical and private (deep) learning without sampling or
    shuffling", algorithm 1 and appendix B.1; Honaker 2015, "Efficient use of differentially private
    binary trees", section 3.2 (the estimate from below, which needs no later step).
    """

    kind: Literal["tree"] = "tree"
    steps: int
    separation: int  # steps from one participation of a unit to its next, at least
    multiplier: float | None = None
    """Standard deviation on the nodes in units of the sensitivity of all of them; None until
    calibrated."""

    def __post_init__(self) -> None:
        require_multiplier(self.multiplier)
        if self.steps < 1 or self.separation < 1:
            raise BadArgument(
                f"steps={self.steps} and separation={self.separation} must be at least 1"
            )

    @property
    def reach(self) -> float:
        """See `tree_reach`."""
        return tree_reach(self.steps, self.separation)

    def facts(self) -> dict[str, Any]:
        """Kind, multiplier and separation, as plan.json has them."""
        own = {"separation": self.separation}
        return {"kind": self.kind, "multiplier": self.multiplier, **own}

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any], steps: int) -> Self:
        """What `facts` described, uncalibrated."""
        return cls(steps=steps, separation=facts["separation"])

    def init(self, like: Tensors) -> NoiseState:
        """No steps yet, and the numbers that decide the scale."""
        return {"step": torch.tensor(0), "made by": self._made()}

    def _made(self) -> Tensor:
        return torch.tensor([float(self.steps), float(self.separation)]).double()

    def spread(self, step: int) -> float:
        """Deviation of the release of `step` (from 0) in units of `multiplier * sensitivity`."""
        return self.reach * math.sqrt(_variance(step))

    def add(
        self,
        total: BoundedSum,
        state: NoiseState,
        source: Source,
        adjacency: Adjacency,
        *,
        consume: bool = False,
    ) -> tuple[Release, NoiseState]:
        """The noised sum in float32: the difference of two estimated prefix sums.

        Raises as `Gaussian.add`; `RunError` for a state of another tree or other parameters, and
        for more steps than the tree has.
        """
        sensitivity = scale_of_draws(self.multiplier, total, adjacency)
        unit = sensitivity * self.reach
        step, waiting = unpack_state(state, self._made(), total, self.steps.bit_length())
        if step >= self.steps:
            raise RunError(
                f"the tree has steps={self.steps} and all are taken, so nothing hides another "
                "one; plan more steps in a new run"
            )
        merges = _merges(step)
        now = draws_like(total)
        normals = Normals(source, (merges + 1) * now.numel())
        normals.onto(now, 1.0, now)
        for level in range(1, merges + 1):  # the smallest subtree waits in front
            sibling = waiting[level - 1].to(now.device)
            own = _weight(level)
            now.add_(sibling).mul_(1 - own)
            normals.onto(now, own, now)
        # The prefix before was all that waited; what was merged is now in one estimate.
        change = now.clone()
        for sibling in waiting[:merges]:
            change.sub_(sibling.to(now.device))
        noised = released(total, change, unit, consume)
        kept = [now, *waiting[merges:]]
        how = Noised(sensitivity * self.spread(step), total.bound)
        return Release(noised, how), pack_state(step + 1, self._made(), kept)


WholeRun = Tree | Buffered
"""Noises whose steps are one mechanism together, made for so many steps and such turns."""

Correlated = Banded | WholeRun
"""Noises that remember earlier steps."""


@functools.cache
def tree_reach(steps: int, separation: int) -> float:
    """The L2 norm by which the sums of all nodes move together, where a unit moves the sums of
    steps t, t + `separation`, … by 1 each, for the worst t.

    Exact for participations every `separation` steps, and a bound for any subset of such: a node
    counts the participations under it, so all in one direction is the worst, and more are worse.
    """
    worst = 0
    for first in range(min(separation, steps)):
        taken = np.zeros(steps + 1, dtype=np.int64)
        taken[first + 1 :: separation] = 1
        before = np.cumsum(taken)  # participations in the first t steps
        size, total = 1, 0
        while size <= steps:
            ends = np.arange(size, steps + 1, size)  # complete nodes alone are ever drawn
            total += int(((before[ends] - before[ends - size]) ** 2).sum())
            size *= 2
        worst = max(worst, total)
    return math.sqrt(worst)


def _merges(step: int) -> int:
    """How many subtrees are complete with step `step` (from 0) beside the leaf."""
    return (~step & (step + 1)).bit_length() - 1


def _weight(level: int) -> float:
    """How much of a node's estimate is its own draw, the rest its children's: inverse variances.

    Which is also the variance of the estimate: v_h = 1 / (1 + 1 / (2 v_(h-1))), v_0 = 1.
    """
    value = 1.0
    for _ in range(level):
        value = 2 * value / (2 * value + 1)
    return value


def _variance(step: int) -> float:
    """Of the noise of one step's release, in units of a node's.

    The new estimate is `own` parts fresh draw and 1 - own parts of the children's, of which all
    but the newest have been subtracted whole.
    """
    merges = _merges(step)
    # Weight of the subtree that waited at each level, in the new estimate.
    share, fresh = 1.0, 0.0
    subtracted = 0.0
    for level in range(merges, 0, -1):
        own = _weight(level)
        fresh += (share * own) ** 2
        share *= 1 - own
        subtracted += (share - 1) ** 2 * _weight(level - 1)
    return fresh + share**2 + subtracted


@functools.lru_cache(maxsize=64)
def _inverse(coefficients: tuple[float, ...], steps: int) -> tuple[float, ...]:
    return tuple(inverse(np.array(coefficients), steps))

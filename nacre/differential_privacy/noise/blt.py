"""Noise that takes back a part of all earlier noise, kept in a few buffers (BLT)."""

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
from nacre.differential_privacy.noise.factorization import (
    falling,
    length_of_turns,
    opposite,
    series,
)
from nacre.differential_privacy.noise.unit_scale import (
    draws_like,
    pack_state,
    released,
    require_multiplier,
    scale_of_draws,
    unpack_state,
)


@dataclass(frozen=True, kw_only=True)
class Buffered:
    """Noise C^-1 z for the C with c_0 = 1 and c_i = the sum of weights_j decays_j^(i-1): a buffered
    linear Toeplitz matrix.

    *Guarantee:* with w_t the noise of step t in units of `multiplier * sensitivity * reach`,
    c_0 w_t + c_1 w_(t-1) + … are independent standard normals, on every coordinate and at every
    step, where `reach` is how far a unit that enters steps at least `separation` apart moves C
    times the sums, in sensitivities. So all steps are one Gaussian mechanism of that sensitivity.

    *State:* a buffer for each weight, at unit scale: 4 bytes a parameter each, however many steps.
    Buffer j holds the sum over i >= 1 of decays_j^(i-1) w_(t-i).

    Source: Dvijotham et al. 2024, "Efficient and near-optimal noise generation for streaming
    differential privacy", algorithm 1; McMahan et al. 2024, "A hassle-free algorithm for private
    learning in practice: don't use tree aggregation, use BLTs" (turns).
    """

    kind: Literal["blt"] = "blt"
    weights: tuple[float, ...]  # (d,) not negative, 1 together at most
    decays: tuple[float, ...]  # (d,) in [0, 1)
    steps: int
    separation: int  # steps from one participation of a unit to its next, at least
    multiplier: float | None = None
    """Standard deviation of z in units of the sensitivity of all steps; None until calibrated."""

    def __post_init__(self) -> None:
        require_multiplier(self.multiplier)
        if self.steps < 1 or self.separation < 1:
            raise BadArgument(
                f"steps={self.steps} and separation={self.separation} must be at least 1"
            )
        same = len(self.weights) == len(self.decays) > 0
        if not same or not falling(self.weights, self.decays):
            raise BadArgument(
                f"weights={self.weights} must be as many as decays={self.decays}, not negative and "
                "1 together at most, and the decays in [0, 1): the reach is proven for these"
            )

    @property
    def reach(self) -> float:
        """How far a unit moves C times the sums, in sensitivities; see `length_of_turns`."""
        return _reach(self.weights, self.decays, self.steps, self.separation)

    def facts(self) -> dict[str, Any]:
        """Kind, multiplier, buffers and separation, as plan.json has them."""
        return {
            "kind": self.kind,
            "multiplier": self.multiplier,
            "buffers": len(self.weights),
            "weights": list(self.weights),
            "decays": list(self.decays),
            "separation": self.separation,
        }

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any], steps: int) -> Self:
        """What `facts` described, uncalibrated."""
        weights, decays = tuple(facts["weights"]), tuple(facts["decays"])
        return cls(weights=weights, decays=decays, steps=steps, separation=facts["separation"])

    def init(self, like: Tensors) -> NoiseState:
        """No steps yet, and the numbers that decide the noise."""
        return {"step": torch.tensor(0), "made by": self._made()}

    def _made(self) -> Tensor:
        numbers = (*self.weights, *self.decays, float(self.steps), float(self.separation))
        return torch.tensor(numbers).double()

    def spread(self, step: int) -> float:
        """Deviation of the release of `step` (from 0) in units of `multiplier * sensitivity`."""
        return self.reach * _deviations(self.weights, self.decays, self.steps)[step]

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

        Raises as `Gaussian.add`; `RunError` for a state of other buffers or parameters, and for
        more steps than the noise is scaled for.
        """
        sensitivity = scale_of_draws(self.multiplier, total, adjacency)
        unit = sensitivity * self.reach
        step, past = unpack_state(state, self._made(), total, len(self.weights))
        if step >= self.steps:
            raise RunError(
                f"the noise is scaled for steps={self.steps} and all are taken, so another one is "
                "not covered; plan more steps in a new run"
            )
        drawn = draws_like(total)
        past = [kept.to(drawn.device) for kept in past]
        for weight, kept in zip(self.weights, past, strict=False):  # none at the first step
            drawn.add_(kept, alpha=-weight)
        Normals(source, drawn.numel()).onto(drawn, 1.0, drawn)
        noised = released(total, drawn, unit, consume)
        past = past or [torch.zeros_like(drawn) for _ in self.decays]
        kept = [torch.add(drawn, b, alpha=t) for b, t in zip(past, self.decays, strict=True)]
        how = Noised(sensitivity * self.spread(step), total.bound)
        return Release(noised, how), pack_state(step + 1, self._made(), kept)


@functools.lru_cache(maxsize=64)
def _reach(
    weights: tuple[float, ...], decays: tuple[float, ...], steps: int, separation: int
) -> float:
    coefficients = series(np.array(weights), np.array(decays), steps)
    return length_of_turns(coefficients, separation)


@functools.lru_cache(maxsize=64)
def _deviations(
    weights: tuple[float, ...], decays: tuple[float, ...], steps: int
) -> tuple[float, ...]:
    """Of the noise of each step, for z of deviation 1: the lengths of the rows of C^-1."""
    rows = series(*opposite(np.array(weights), np.array(decays)), steps)
    return tuple(math.sqrt(value) for value in np.cumsum(rows**2))

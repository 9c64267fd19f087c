"""Noise that the parties of a secure sum add in shares: nobody knows the noise of the sum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

import torch

from nacre.core import require
from nacre.core.errors import BadArgument, Incompatible, Unbounded
from nacre.core.parts import NoiseState
from nacre.core.random import Source
from nacre.core.types import Adjacency, BoundedSum, Noised, Release, Tensors
from nacre.differential_privacy.noise.shares import NoiseShares
from nacre.differential_privacy.noise.unit_scale import scale_of_draws

WRAPS = 2.0**-40
"""The chance that an entry of any sum of a run leaves the ring. It costs accuracy, not privacy."""


@dataclass(frozen=True, kw_only=True)
class RingSums:
    """The sums that shares of noise go into: whole numbers modulo 2**bits, of which a step is one.

    *Guarantee (no wrap):* the step is the smallest power of two for which `parties` vectors of
    length `bound` and their noise fit the ring, whatever they hold, but for a chance of `WRAPS`.
    """

    bits: int  # of the ring
    parties: int  # who may enter a sum, at most
    threshold: int  # who enters each sum, at least
    colluders: int  # of those, who may tell what they know
    dimension: int  # entries of a vector
    bound: float  # L2 norm of a party's vector
    rounds: int  # sums of the whole run

    def __post_init__(self) -> None:
        require.at_least(1, bits=self.bits, parties=self.parties, rounds=self.rounds)
        require.at_least(1, dimension=self.dimension)
        require.positive(bound=self.bound)
        if self.threshold - self.colluders < 1:
            raise BadArgument(
                f"threshold={self.threshold} less colluders={self.colluders} leaves no share of "
                "noise that is not known; raise `threshold`"
            )

    def fitted(
        self,
        multiplier: float,  # deviation of the unknown shares together, in sensitivities
        distance: float,  # sensitivity, in bounds
        shares: int,  # that are unknown
    ) -> tuple[float, NoiseShares]:
        """The step of the grid, and the noise in steps. Raises `Incompatible` where a vector of
        length `bound` would be shorter than a step."""
        room = 2 ** (self.bits - 1) - 1
        exponent = math.frexp(self.bound)[1] - max(1, room // self.parties).bit_length()
        while (length := math.ldexp(self.bound, -exponent)) >= 1:
            noise = NoiseShares.of(
                multiplier, shares=shares, dimension=self.dimension, sensitivity=distance * length
            )
            reach = noise.reach(self.parties, WRAPS / self.rounds)
            if self.parties * math.floor(length) + reach <= room:
                return math.ldexp(1.0, exponent), noise
            exponent += 1
        raise Incompatible(
            f"{self.bits} bits hold no sum over {self.parties} parties with their shares of noise; "
            "use `gather: {bits: 32}`, or a larger epsilon"
        )


@dataclass(frozen=True, kw_only=True)
class DistributedGaussian:
    """Discrete Gaussian noise, added by each party to its own vector before it is masked.

    *Guarantee:* the sum over any `threshold` parties or more has noise of deviation `multiplier *
    sensitivity` from parties that are no colluders, whatever the others and the server do; its
    price is `NoiseShares.event`, and never that of one Gaussian. `add` makes a `Release` of a sum
    that says it holds this noise, and of no other.

    Source: Kairouz, Liu & Steinke 2021, https://arxiv.org/abs/2102.06387.
    """

    kind: Literal["distributed_gaussian"] = "distributed_gaussian"
    multiplier: float | None = None
    """Deviation of the shares of honest parties together, in sensitivities; None until
    calibrated."""
    sums: RingSums | None = None
    """What the noise goes into; None until the plan has fixed it."""

    def __post_init__(self) -> None:
        require.positive(multiplier=self.multiplier)

    def facts(self) -> dict[str, Any]:
        """Kind, multiplier and sums, as plan.json has them."""
        sums = None if self.sums is None else asdict(self.sums)
        return {"kind": self.kind, "multiplier": self.multiplier, "sums": sums}

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any], steps: int) -> Self:
        """What `facts` described, uncalibrated."""
        sums = facts["sums"]
        return cls(sums=None if sums is None else RingSums(**sums))

    def init(self, like: Tensors) -> NoiseState:
        """None: draws of different rounds are independent."""
        return None

    def spread(self, step: int) -> float:
        """1: each round's deviation is `multiplier * sensitivity`."""
        return 1.0

    def fitted(self, adjacency: Adjacency) -> tuple[float, NoiseShares]:
        """The step of the grid and the noise in steps, as the parties add it: priced against the
        server, and colluders who know their own shares. Raises `ValueError` before calibration."""
        if self.multiplier is None or self.sums is None:
            raise ValueError("multiplier=None: calibrate the mechanism before it is priced")
        distance = BoundedSum({}, 1.0).sensitivity(adjacency)
        return self.sums.fitted(
            self.multiplier, distance, self.sums.threshold - self.sums.colluders
        )

    def surplus(self) -> float:
        """Deviation of what all parties add, colluders among them, in those of what is counted: the
        most that a sum holds. Raises `ValueError` before the plan has fixed the sums."""
        if self.sums is None:
            raise ValueError("sums=None: plan the sums before their noise is spoken of")
        return math.sqrt(self.sums.parties / (self.sums.threshold - self.sums.colluders))

    def without_colluders(self) -> Self:
        """The same noise as it is for those who see the model alone: all shares are unknown to
        them. Raises `ValueError` before calibration."""
        if self.multiplier is None or self.sums is None:
            raise ValueError("multiplier=None: calibrate the mechanism before it is priced")
        known = self.sums.threshold - self.sums.colluders
        return replace(
            self,
            multiplier=self.multiplier * math.sqrt(self.sums.threshold / known),
            sums=replace(self.sums, colluders=0),
        )

    def add(
        self,
        total: BoundedSum,
        state: NoiseState,
        source: Source,
        adjacency: Adjacency,
        *,
        consume: bool = False,
    ) -> tuple[Release, NoiseState]:
        """The sum as it is, in float32: its noise is in it. It shares no memory with `total` but
        where `consume` allows that.

        Raises `Unbounded` for a sum without a bound, or whose noise is not this one; `ValueError`
        before calibration.
        """
        deviation = scale_of_draws(self.multiplier, total, adjacency)
        own = total.noised
        if own is None or not own.shares:
            raise Unbounded(
                "no party has added its share of noise to this sum; use `gather: {kind: secure}` "
                "with `noise: {kind: distributed_gaussian}`, or `noise: {kind: gaussian}`"
            )
        if not math.isclose(own.deviation, deviation, rel_tol=1e-9):
            raise Unbounded(
                f"the parties' noise has deviation {own.deviation:.6g} where {deviation:.6g} is "
                "due; see that all sides plan the same recipe"
            )
        values = {
            name: value.detach().to(torch.float32, copy=not consume)
            for name, value in total.total.items()
        }
        return Release(values, Noised(deviation, total.bound, own.shares)), state

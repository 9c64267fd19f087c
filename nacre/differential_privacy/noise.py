"""What hides one unit: the only makers of a `Release`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from nacre.core.errors import Unbounded
from nacre.core.parts import NoiseState
from nacre.core.random import Source, Stream
from nacre.core.types import (
    Adjacency,
    BoundedSum,
    Inherited,
    Noised,
    Release,
    Tensors,
    Unprotected,
)


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Adds independent normal noise to every coordinate.

    *Guarantee:* the deviation is `multiplier * total.sensitivity(adjacency)`, the same on every
    coordinate; the numbers depend on the key of `source`, the names and the shapes alone, never on
    the values of the sum. A sum over no unit is noised like any other.

    Source: Dwork et al. 2006, "Our data, ourselves"; Abadi et al. 2016, algorithm 1.
    """

    kind: Literal["gaussian"] = "gaussian"
    multiplier: float | None = None
    """Standard deviation in units of the sensitivity; None until calibrated."""

    def __post_init__(self) -> None:
        if self.multiplier is not None and not 0 < self.multiplier < math.inf:
            raise ValueError(f"multiplier={self.multiplier} must be > 0 and finite")

    def init(self, like: Tensors) -> NoiseState:
        """None: draws of different steps are independent."""
        return None

    def add(
        self, total: BoundedSum, state: NoiseState, source: Source, adjacency: Adjacency
    ) -> tuple[Release, NoiseState]:
        """The noised sum in float32.

        Raises `Unbounded` where the bound is not a positive, finite number, `ValueError` before
        calibration.
        """
        if self.multiplier is None:
            raise ValueError("multiplier=None: calibrate the mechanism before it adds noise")
        if not 0 < total.bound < math.inf:
            raise Unbounded(
                f"noise was asked for on a sum with bound={total.bound}, so no deviation hides one "
                "unit; clip each unit with a rule that bounds it, as "
                "`gradient_clipping: {kind: flat, norm: 1.0}`"
            )
        deviation = self.multiplier * total.sensitivity(adjacency)
        stream = source.stream()
        noised = {
            name: _noised(total.total[name], deviation, stream) for name in sorted(total.total)
        }
        ordered = {name: noised[name] for name in total.total}
        return Release(ordered, Noised(deviation)), state


def _noised(value: Tensor, deviation: float, stream: Stream) -> Tensor:
    """value + deviation * N(0, 1), added in float64 and rounded once."""
    noise = stream.normal(*value.shape) * deviation
    return (value.detach().cpu().double() + noise).to(torch.float32).to(value.device)


@dataclass(frozen=True)
class NoNoise:
    """Releases the sum as it is, and says by what right.

    With `inherited` the sum was computed from releases that were private already (post-processing);
    without it nothing protects the release, and the report prints `because`.
    """

    because: str
    """Why no noise is added; printed in the report."""
    inherited: tuple[str, ...] = ()
    """The private releases that the sum was computed from."""

    multiplier: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not self.because:
            raise ValueError("because='' must say why no noise is added")

    def init(self, like: Tensors) -> NoiseState:
        """None."""
        return None

    def add(
        self, total: BoundedSum, state: NoiseState, source: Source, adjacency: Adjacency
    ) -> tuple[Release, NoiseState]:
        """The sum itself in float32, whatever its bound; it shares no memory with `total`."""
        how = Inherited(self.inherited) if self.inherited else Unprotected(self.because)
        copies = {name: value.detach().float().clone() for name, value in total.total.items()}
        return Release(copies, how), state

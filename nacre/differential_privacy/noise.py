"""What hides one unit: the only makers of a `Release`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch

from nacre.core.errors import Unbounded
from nacre.core.normals import Normals
from nacre.core.parts import NoiseState
from nacre.core.random import Source
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
    the values of the sum. A sum over no unit is noised like any other. How far the numbers are
    from exact normals is stated in `nacre.core.normals`: 6e-22 for 1e8 draws, beside rounding.

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
        self,
        total: BoundedSum,
        state: NoiseState,
        source: Source,
        adjacency: Adjacency,
        *,
        consume: bool = False,
    ) -> tuple[Release, NoiseState]:
        """The noised sum in float32.

        With `consume` the release may take over the memory of `total`, which is not to be read
        again; without it they share none. Raises `Unbounded` where the bound is not a positive,
        finite number, `ValueError` before calibration.
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
        normals = Normals(source, sum(value.numel() for value in total.total.values()))
        noised: Tensors = {}
        for name, value in sorted(total.total.items()):
            # Flat in the order of rows whatever the strides, as the numbers go by shape alone.
            flat = value.detach().to(torch.float32).reshape(-1)
            own = consume or flat.data_ptr() != value.data_ptr()
            out = flat if own else torch.empty_like(flat)
            noised[name] = normals.onto(flat, deviation, out).view(value.shape)
        ordered = {name: noised[name] for name in total.total}
        return Release(ordered, Noised(deviation)), state


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
        self,
        total: BoundedSum,
        state: NoiseState,
        source: Source,
        adjacency: Adjacency,
        *,
        consume: bool = False,
    ) -> tuple[Release, NoiseState]:
        """The sum itself in float32, whatever its bound.

        It shares no memory with `total` but where `consume` allows that.
        """
        how = Inherited(self.inherited) if self.inherited else Unprotected(self.because)
        values = {
            name: value.detach().to(torch.float32, copy=not consume)
            for name, value in total.total.items()
        }
        return Release(values, how), state

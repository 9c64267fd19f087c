"""What hides one unit: the only makers of a `Release`."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal, Self

import torch
from torch import Tensor

from nacre.core import require
from nacre.core.errors import BadArgument, Incompatible, Unbounded
from nacre.core.normals import rounded
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
from nacre.differential_privacy.noise.unit_scale import flattened, scale_of_draws

_SMALL = 1 << 15  # entries

Draws = Literal["secure", "fast"]
"""Where normals come from: AES keyed by the operating system, or PyTorch's generator."""


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Adds independent normal noise to every coordinate.

    *Guarantee:* the deviation is `multiplier * total.sensitivity(adjacency)`, the same on every
    coordinate; the numbers depend on the key of `source`, the names and the shapes alone, never on
    the values of the sum. A sum over no unit is noised like any other. Under `secure` draws the
    release is the sum plus exact real normals, rounded to multiples of a power of two that is a
    16th to a 32nd of the deviation: no trace of floating-point noise is left
    (`core.normals.rounded`).

    Source: Dwork et al. 2006, "Our data, ourselves"; Abadi et al. 2016, algorithm 1.
    """

    kind: Literal["gaussian"] = "gaussian"
    multiplier: float | None = None
    """Standard deviation in units of the sensitivity; None until calibrated."""
    draws: Draws = "secure"
    """`fast`: PyTorch's generator, on an accelerator and in its floating point."""

    def __post_init__(self) -> None:
        require.positive(multiplier=self.multiplier)

    def facts(self) -> dict[str, Any]:
        """Kind, multiplier and where normals come from, as plan.json has them."""
        return {"kind": self.kind, "multiplier": self.multiplier, "draws": self.draws}

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any], steps: int) -> Self:
        """What `facts` described, uncalibrated."""
        return cls()

    def init(self, like: Tensors) -> NoiseState:
        """None: draws of different steps are independent."""
        return None

    def spread(self, step: int) -> float:
        """1: each step's deviation is `multiplier * sensitivity`."""
        return 1.0

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
        finite number or so far from 1 that float32 has no grid for its noise, `Incompatible` for
        `fast` draws on a processor, `ValueError` before calibration.
        """
        deviation = scale_of_draws(self.multiplier, total, adjacency)
        named = sorted(total.total.items())
        flats = [flattened(value, consume) for _, value in named]
        if self.draws == "fast":
            _fast(source, deviation, flats)
        else:
            _secure(source, deviation, flats)
        noised = {
            name: own.view(value.shape) for (name, value), own in zip(named, flats, strict=True)
        }
        return Release(
            {name: noised[name] for name in total.total}, Noised(deviation, total.bound)
        ), state


def _secure(source: Source, deviation: float, flats: list[Tensor]) -> None:
    """Puts noised sums in place of `flats`, exactly rounded, of which it takes the memory; sums on
    an accelerator pass through the processor."""
    if not rounded.LEAST <= deviation <= rounded.MOST:
        raise Unbounded(
            f"noise of deviation={deviation:.3g} cannot be rounded exactly, since float32 has no "
            "grid for it; choose a clipping norm nearer to 1"
        )
    held = [flat if flat.is_cpu else flat.cpu() for flat in flats]
    together = _side_by_side(held)
    rounded.add_rounded_noise(source, deviation, together, together)
    for i, (own, made) in enumerate(zip(flats, held, strict=True)):
        flats[i] = made if own.is_cpu else own.copy_(made)


def _side_by_side(flats: list[Tensor]) -> list[Tensor]:
    """The same entries in the same order as fewer tensors: small ones that follow each other are
    copied into one, and `flats` become parts of it. A call for each would cost more than its noise.
    """
    joined: list[Tensor] = []
    for small, run in groupby(range(len(flats)), key=lambda i: flats[i].numel() <= _SMALL):
        places = list(run)
        if not small or len(places) == 1:
            joined += [flats[i] for i in places]
            continue
        whole = torch.cat([flats[i] for i in places])
        parts = whole.split([flats[i].numel() for i in places])
        for i, part in zip(places, parts, strict=True):
            flats[i] = part
        joined.append(whole)
    return joined


def _fast(source: Source, deviation: float, flats: list[Tensor]) -> None:
    """Adds noise in place, by the generator of the device that the sums lie on."""
    generators: dict[torch.device, torch.Generator] = {}
    for own in flats:
        if own.device.type == "cpu":
            raise Incompatible(
                "`draws: fast` is PyTorch's generator, which on a processor takes 32 bits of seed, "
                "so anyone can try them all; `draws: secure` is faster there as well: use it"
            )
        if own.device not in generators:
            made = torch.Generator(own.device)
            generators[own.device] = made.manual_seed(source.number("fast", str(own.device)))
        normals = torch.randn(own.shape, generator=generators[own.device], device=own.device)
        own.add_(normals, alpha=deviation)


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
            raise BadArgument("because='' must say why no noise is added")

    def facts(self) -> dict[str, Any]:
        """Kind and multiplier, as plan.json has them."""
        return {"kind": "nonoise", "multiplier": None}

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

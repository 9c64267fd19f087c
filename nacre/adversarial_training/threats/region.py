"""Where an attacked input may lie: the geometry that every attack shares.

A region is a ball around each row's own clean input, cut with the range of legal inputs. Radii
are given entry by entry, so a ball may be a box with unequal sides or an ellipsoid, and an entry
with radius 0 never moves. All lengths are in the model's own (scaled) units.

*Guarantee:* whatever goes in, `project` returns a point of the region, up to the rounding of one
float32 addition; entries with radius 0 come back bit for bit. A clean input that lies outside the
legal range (a clamped test row, say) is not dragged into it: the range is widened to that input,
so the ball is never left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Region(ABC):
    """The inputs that an attack may choose from, around any clean input."""

    radii: Tensor  # (*shape) float32, at least 0; how far each entry may move
    low: Tensor  # (*shape) float32, the smallest legal input
    high: Tensor  # (*shape) float32, the largest legal input

    @property
    @abstractmethod
    def draws(self) -> int:
        """How many uniform numbers a random start takes, for one row."""

    @property
    def columns(self) -> Tensor:
        """(D,) int64, of the flattened input: equal for entries that can only move as one."""
        return torch.arange(self.radii.numel())

    @property
    def relaxed(self) -> Region:
        """A region of which `project` makes points of this one, in which small steps count: itself,
        unless it holds separate points, as whole numbers are."""
        return self

    def project(
        self,
        x: Tensor,  # (R, *shape) any numbers at all
        centre: Tensor,  # (R, *shape) the clean inputs
    ) -> Tensor:  # (R, *shape) points of the region
        """The point of the ball that belongs to `x`, then clamped to the legal range.

        The clamp moves each entry towards a legal centre, so it cannot leave the ball again. An
        entry that is not finite goes back to the centre.
        """
        inside = self._shrink(torch.where(torch.isfinite(x), x, centre), centre)
        inside = inside.to(centre.dtype).clamp(*self.legal(centre))
        return torch.where(self.radii.to(centre.device) > 0, inside, centre)

    def scaled(self, share: float) -> Self:
        """The region with all radii this many times as large; the legal range stays."""
        return replace(self, radii=self.radii * share)

    @abstractmethod
    def start(
        self,
        centre: Tensor,  # (R, *shape) the clean inputs
        uniform: Tensor,  # (R, draws) float64 in (0, 1)
    ) -> Tensor:  # (R, *shape)
        """A uniformly random point of each ball, projected into the legal range."""

    @abstractmethod
    def steepest(
        self,
        gradient: Tensor,  # (R, *shape) of each row's loss at its own input
        step: float,  # length, as a share of the radius
    ) -> Tensor:  # (R, *shape)
        """The move of that length which raises the linearised loss most.

        A zero gradient gives a zero move; entries that are not finite count as zero.
        """

    def limits(self, centre: Tensor) -> dict[str, Tensor]:
        """What `within` and `stepped` need to know of each clean input, row by row, (R, *shape)
        each: taken once for a climb of many steps."""
        return {}

    def within(self, x: Tensor, centre: Tensor, reach: Mapping[str, Tensor]) -> Tensor:
        """`project(x, centre)` for finite `x`, bit for bit."""
        return self.project(x, centre)

    def stepped(
        self,
        x: Tensor,  # (R, *shape) points of the region
        gradient: Tensor,  # (R, *shape)
        step: float,
        centre: Tensor,
        reach: Mapping[str, Tensor],
    ) -> Tensor:
        """`project(x + steepest(gradient, step), centre)`, bit for bit."""
        return self.project(x + self.steepest(gradient, step), centre)

    def contains(
        self,
        x: Tensor,  # (R, *shape)
        centre: Tensor,  # (R, *shape)
        tolerance: float = 1e-6,
    ) -> Tensor:  # (R,) bool
        """Whether each row lies in its region, `tolerance` being relative to centre and radius.

        Entries with radius 0 must equal the centre exactly.
        """
        low, high = self.legal(centre)
        radii = self.radii.to(centre.device).double()
        rounding = tolerance * (centre.double().abs() + radii)
        # Only the part of a move that rounding cannot explain is measured.
        moved = ((x.double() - centre.double()).abs() - rounding).clamp(min=0)
        share = torch.where(radii > 0, moved / radii, torch.zeros_like(moved))
        legal = (x >= low) & (x <= high) & ((radii > 0) | (x == centre))
        return (self._length(share) <= 1 + tolerance) & legal.flatten(1).all(1)

    def legal(self, centre: Tensor) -> tuple[Tensor, Tensor]:
        """The legal range, widened to the clean inputs: (R, *shape) twice."""
        low, high = self.low.to(centre), self.high.to(centre)
        return torch.minimum(low, centre), torch.maximum(high, centre)

    @abstractmethod
    def _shrink(self, x: Tensor, centre: Tensor) -> Tensor:
        """(R, *shape) -> (R, *shape): the point of the ball that belongs to `x`."""

    @abstractmethod
    def _length(self, share: Tensor) -> Tensor:
        """(R, *shape) moves as shares of the radii -> (R,): 1 on the surface of the ball."""


class Box(Region):
    """|x - centre| <= radius, entry by entry: the L-infinity ball."""

    @property
    def draws(self) -> int:
        return self.radii.numel()

    def start(self, centre: Tensor, uniform: Tensor) -> Tensor:
        share = (2 * uniform - 1).reshape(centre.shape).to(centre)
        return self.project(centre + share * self.radii.to(centre), centre)

    def steepest(self, gradient: Tensor, step: float) -> Tensor:
        return _signs(gradient).mul_(step * self.radii.to(gradient))

    def limits(self, centre: Tensor) -> dict[str, Tensor]:
        """The least and the largest value of each entry."""
        radii = self.radii.to(centre)
        low, high = self.legal(centre)
        return {
            "low": torch.maximum(centre - radii, low),
            "high": torch.minimum(centre + radii, high),
        }

    def within(self, x: Tensor, centre: Tensor, reach: Mapping[str, Tensor]) -> Tensor:
        return x.clamp(reach["low"], reach["high"])

    def stepped(
        self, x: Tensor, gradient: Tensor, step: float, centre: Tensor, reach: Mapping[str, Tensor]
    ) -> Tensor:
        moved = torch.addcmul(x, _signs(gradient), step * self.radii.to(x))
        return moved.clamp_(reach["low"], reach["high"])

    def _shrink(self, x: Tensor, centre: Tensor) -> Tensor:
        radii = self.radii.to(centre)
        return x.clamp(centre - radii, centre + radii)

    def _length(self, share: Tensor) -> Tensor:
        return share.flatten(1).amax(1)


class Ellipsoid(Region):
    """The L2 norm of (x - centre) / radius is at most 1; equal radii give the L2 ball.

    `project` scales the move down along its own line: the nearest point, where lengths are
    measured in radii. Measured otherwise it may not be the nearest, which the climb does not need.
    """

    @property
    def draws(self) -> int:
        return self.radii.numel() + 1  # a direction and a length

    def start(self, centre: Tensor, uniform: Tensor) -> Tensor:
        radii = self.radii.to(centre.device).double()
        free = radii > 0
        normals = _normal(uniform[:, :-1]).to(centre.device).reshape(centre.shape)
        direction = unit_length(normals * free)
        # The volume inside a share s of the radius grows as s to the number of free entries.
        share = uniform[:, -1].to(centre.device) ** (1 / max(1, int(free.sum())))
        return self.project(centre + radii * direction * column(share, centre), centre)

    def steepest(self, gradient: Tensor, step: float) -> Tensor:
        radii = self.radii.to(gradient.device).double()
        return (step * radii * unit_length(radii * finite_or_zero(gradient))).to(gradient.dtype)

    def _shrink(self, x: Tensor, centre: Tensor) -> Tensor:
        radii = self.radii.to(centre.device).double()
        move = x.double() - centre.double()
        share = torch.where(radii > 0, move / radii, torch.zeros_like(move))
        return centre + move / column(self._length(share).clamp(min=1), centre)

    def _length(self, share: Tensor) -> Tensor:
        return _lengths(share)


def finite_or_zero(gradient: Tensor) -> Tensor:
    return gradient.nan_to_num(0.0, 0.0, 0.0)


def _signs(gradient: Tensor) -> Tensor:
    """-1, 0 or 1; entries that are not finite count as zero."""
    return finite_or_zero(gradient).sign_()


def _normal(uniform: Tensor) -> Tensor:
    """Uniforms in (0, 1) -> standard normals, entry by entry."""
    return torch.special.ndtri(uniform)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _lengths(values: Tensor) -> Tensor:
    """(R, *shape) -> (R,) L2 norms."""
    return torch.linalg.vector_norm(values.flatten(1), dim=1)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def unit_length(values: Tensor) -> Tensor:
    """(R, *shape) float64 -> each row at length 1, or 0 where it is zero."""
    length = _lengths(values)
    # Gradients of a saturated model are as small as 1e-30: in float64 their squares survive.
    return values / column(torch.where(length > 0, length, torch.ones_like(length)), values)


def column(
    values: Tensor,  # (R,)
    like: Tensor,  # (R, *shape)
) -> Tensor:  # (R, 1, …) with as many dimensions as `like`
    return values.reshape(-1, *[1] * (like.dim() - 1))


def chosen_rows(
    mask: Tensor,  # (R,) bool
    one: Tensor,  # (R, *shape)
    other: Tensor,  # (R, *shape)
) -> Tensor:  # (R, *shape)
    """Row by row `one` where `mask` holds, else `other`; no copy where all rows agree.

    Whole rows are copied, the fewer of the two over a copy of the others: that is three times as
    fast as `torch.where`, which asks at each entry.
    """
    chosen = mask.nonzero().squeeze(1)
    if len(chosen) in (0, len(mask)):
        return one if len(chosen) else other
    if 2 * len(chosen) > len(mask):
        one, other, chosen = other, one, (~mask).nonzero().squeeze(1)
    return other.index_copy(0, chosen, one.index_select(0, chosen))

"""The least value of a linear function over a region: where bounds meet the geometry.

The least over a ball cut with the legal range is at least the larger of the least over the ball
and the least over the range, so the larger of the two is a bound; for the box it is exact.

An attacked input is a float32 tensor, which may lie a rounding outside the ball. What is bounded
here is therefore everything that `Region.contains` accepts with its own tolerance, by which what
attacks return is checked: no point that counts as an attack is outside of what is certified.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nacre.adversarial_training.threats.diamond import Diamond
from nacre.adversarial_training.threats.region import Box, Ellipsoid, Region
from nacre.core.errors import Incompatible

TOLERANCE = 1e-6
"""That of `Region.contains`."""


def row_vectors(x: Tensor) -> Tensor:
    """(R, *shape) -> (R, D), also where a row is a single number without a dimension."""
    return x.flatten(1) if x.dim() > 1 else x[:, None]


def surrounding(region: Region, centre: Tensor) -> tuple[Tensor, Tensor]:
    """(low, high) float64, (R, *shape) each: a box that holds the region of each row."""
    low, high = region.legal(centre)
    reach = (1 + TOLERANCE) * region.radii.to(centre).double() + _rounding(region, centre)
    centre = centre.double()
    return torch.maximum(centre - reach, low.double()), torch.minimum(centre + reach, high.double())


def over_box(slope: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(P, *shape) three times -> (P,): the least of <slope, x> for low <= x <= high."""
    # 0 times an unbounded entry is 0.
    ends = torch.where(slope > 0, slope * low, slope * high)
    return row_vectors(torch.where(slope == 0, torch.zeros_like(slope), ends)).sum(1)


def over_region(slope: Tensor, region: Region, centre: Tensor) -> Tensor:
    """(P, *shape), one region around each of the (P, *shape) centres -> (P,) float64: a number
    that <slope, x> is not below for any x of the region. Raises `Incompatible` for a region of a
    geometry that has no such bound here."""
    least = over_box(slope, *surrounding(region, centre))
    weighed = (slope * region.radii.to(centre).double()).flatten(1)
    match region:
        case Box():
            return least
        case Ellipsoid():
            reach = weighed.norm(dim=1)
        case Diamond():
            reach = weighed.abs().amax(1)
        case _:
            raise Incompatible(
                f"no certificate is known over a {type(region).__name__}: use a ball of kind "
                "`linf`, `l2` or `l1`"
            )
    middle = (slope * centre.double()).flatten(1).sum(1)
    rounding = (slope.abs() * _rounding(region, centre)).flatten(1).sum(1)
    return torch.maximum(least, middle - (1 + TOLERANCE) * reach - rounding)


def longest(region: Region, centre: Tensor) -> Tensor:
    """(R, *shape) -> (R,) float64: the L2 length of the longest move in each region, whatever the
    legal range."""
    radii, rounding = region.radii.double(), _rounding(region, centre).flatten(1).norm(dim=1)
    match region:
        case Box():
            length = radii.norm()
        case Ellipsoid() | Diamond():
            length = radii.max() if radii.numel() else radii.sum()
        case _:
            raise Incompatible(
                f"no length is known of moves in a {type(region).__name__}: use a ball of kind "
                "`linf`, `l2` or `l1`"
            )
    return (1 + TOLERANCE) * length + rounding


def _rounding(region: Region, centre: Tensor) -> Tensor:
    """(R, *shape) float64: how much farther than the ball each entry of an attacked input may be,
    which is what `Region.contains` grants to the rounding of float32."""
    radii, centre = region.radii.to(centre).double(), centre.double()
    return torch.where(radii > 0, TOLERANCE * (centre.abs() + radii), torch.zeros_like(centre))

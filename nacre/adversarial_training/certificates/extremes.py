"""The least value of a linear function over a region: where bounds meet the geometry.

The least over a ball cut with the legal range is at least the larger of the least over the ball
and the least over the range, so the larger of the two is a bound; for the box it is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nacre.adversarial_training.threats.diamond import Diamond
from nacre.adversarial_training.threats.region import Box, Ellipsoid, Region
from nacre.core.errors import Incompatible


def surrounding(region: Region, centre: Tensor) -> tuple[Tensor, Tensor]:
    """(low, high) float64, (R, *shape) each: a box that holds the region of each row."""
    low, high = region.legal(centre)
    radii, centre = region.radii.to(centre).double(), centre.double()
    return torch.maximum(centre - radii, low.double()), torch.minimum(centre + radii, high.double())


def over_box(slope: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(P, *shape) three times -> (P,): the least of <slope, x> for low <= x <= high."""
    # 0 times an unbounded entry is 0.
    ends = torch.where(slope > 0, slope * low, slope * high)
    return torch.where(slope == 0, torch.zeros_like(slope), ends).flatten(1).sum(1)


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
    return torch.maximum(least, middle - reach)


def longest(region: Region) -> float:
    """The L2 length of the longest move in the region, whatever the legal range."""
    radii = region.radii.double()
    match region:
        case Box():
            return float(radii.norm())
        case Ellipsoid() | Diamond():
            return float(radii.max()) if radii.numel() else 0.0
        case _:
            raise Incompatible(
                f"no length is known of moves in a {type(region).__name__}: use a ball of kind "
                "`linf`, `l2` or `l1`"
            )

"""Bounds on a network's scores over a whole region: by intervals (IBP), and by lines (CROWN).

*Guarantee:* a margin is never above the least one that any input of the region has under the
network in real numbers, but for the rounding of float64. What the model computes in float32 may
have a margin that is smaller by the rounding that comes with it, at most: a row whose margin
exceeds its rounding is certified.

*Source:* Gowal et al. 2018, "On the Effectiveness of Interval NodeBounds Propagation",
https://arxiv.org/abs/1810.12715, section 3; Zhang et al. 2018, "Efficient Neural Network
Robustness Certification with General Activation Functions", https://arxiv.org/abs/1811.00866,
theorem 3.2 and table 3 (the adaptive lower line of ReLU). The other line, with the slope of the
upper one, is that of Wong & Kolter 2018, https://arxiv.org/abs/1711.00851, and Fast-Lin.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from nacre.adversarial_training.certificates.extremes import (
    over_box,
    over_region,
    row_vectors,
    surrounding,
)
from nacre.adversarial_training.certificates.rounding import roundings
from nacre.adversarial_training.certificates.steps import Addition, Affine, Network, Rectifier
from nacre.adversarial_training.threats.region import Box, Region

NodeBounds = tuple[Tensor, Tensor]
"""(R, *shape) float64 twice: nothing in the region takes a node below or above them."""

Line = Literal["adaptive", "parallel"]
"""The line below a ReLU that may be cut: of slope 0 or 1, whichever loses less, or parallel to the
line above."""

ENTRIES = 1 << 19
"""Numbers that one batch of functionals may hold (4 MiB, which stay in the cache)."""


def interval_margins(
    network: Network, region: Region, centre: Tensor, label: Tensor
) -> tuple[Tensor, Tensor]:  # (R,) float64 twice
    """(a lower bound of the right score minus the best other one, its rounding), by intervals.

    The last affine step is taken together with the difference of two scores (Gowal, section 3.2).
    """
    bounds = _all(network, region, centre, refined=False)
    rows, direction = _differences(network, label)
    last = network.steps[-1]
    if isinstance(last, Affine):
        constant = (direction * last.constant).sum(1)
        slope, (low, high) = last.transpose(direction), bounds[last.source]
    else:
        constant, slope, (low, high) = torch.zeros(len(rows)).double(), direction, bounds[-1]
    least = _least(constant + over_box(slope, low[rows], high[rows]), len(label))
    return least, roundings(network, bounds, label)


def linear_margins(
    network: Network, region: Region, centre: Tensor, label: Tensor
) -> tuple[Tensor, Tensor]:  # (R,) float64 twice
    """The same by lines carried back to the input, never below that by intervals.

    Each ReLU's own range is bounded in this way too, where intervals leave its sign open. Of the
    two lower lines the better one counts, margin by margin.
    """
    bounds = _all(network, region, centre, refined=True)
    rows, direction = _differences(network, label)
    place = len(network.steps)
    found = _lowest(network, bounds, place, rows, direction, region, centre, "adaptive")
    other = _lowest(network, bounds, place, rows, direction, region, centre, "parallel")
    least = _least(torch.maximum(found, other), len(label))
    loose, _ = interval_margins(network, region, centre, label)
    return torch.maximum(least, loose), roundings(network, bounds, label)


def _differences(network: Network, label: Tensor) -> tuple[Tensor, Tensor]:
    """(P,) rows and (P, K) functionals "the right score minus another", for all other classes."""
    classes = network.shapes[-1][0]
    rows = torch.arange(len(label)).repeat_interleave(classes - 1)
    others = torch.arange(classes).repeat(len(label), 1)
    others = others[others != label[:, None]]
    eye = torch.eye(classes, dtype=torch.float64)
    return rows, eye[label][rows] - eye[others]


def _least(values: Tensor, count: int) -> Tensor:
    return values.reshape(count, -1).amin(1) if count else values.new_zeros(0)


def _all(network: Network, region: Region, centre: Tensor, *, refined: bool) -> list[NodeBounds]:
    """The bounds of every node; those that a ReLU reads by lines as well, if `refined`."""
    bounds: list[NodeBounds] = [surrounding(region, centre)]
    read = {step.source for step in network.steps if isinstance(step, Rectifier)}
    for place, step in enumerate(network.steps, start=1):
        match step:
            case Affine():
                low, high = bounds[step.source]
                middle = step.linear((low + high) / 2) + step.constant
                reach = step.magnitude((high - low) / 2)
                made = middle - reach, middle + reach
                exact = step.source == 0 and isinstance(region, Box)
            case Rectifier():
                low, high = bounds[step.source]
                made, exact = (low.clamp(min=0), high.clamp(min=0)), True
            case Addition():
                (low, high), (more, most) = bounds[step.left], bounds[step.right]
                made, exact = (low + more, high + most), False
        bounds.append(made)
        if refined and place in read and not exact:
            bounds[place] = _refined(network, bounds, place, region, centre)
    return bounds


def _refined(
    network: Network, bounds: list[NodeBounds], place: int, region: Region, centre: Tensor
) -> NodeBounds:
    """The bounds of a node's entries whose sign intervals leave open, by lines."""
    low, high = (row_vectors(bound).clone() for bound in bounds[place])
    rows, entries = ((low < 0) & (high > 0)).nonzero().unbind(1)
    shape = network.shapes[place]
    width = max(math.prod(one) for one in network.shapes[: place + 1])
    for part in torch.arange(len(rows)).split(max(1, ENTRIES // width)):
        own, entry = rows[part], entries[part]
        unit = torch.zeros(len(part), low.shape[1], dtype=torch.float64)
        unit[torch.arange(len(part)), entry] = 1
        unit = unit.reshape(-1, *shape)
        least = _lowest(network, bounds, place, own, unit, region, centre, "adaptive")
        most = -_lowest(network, bounds, place, own, -unit, region, centre, "adaptive")
        low[own, entry] = torch.maximum(low[own, entry], least)
        high[own, entry] = torch.minimum(high[own, entry], most)
    return low.reshape(-1, *shape), high.reshape(-1, *shape)


def _lowest(
    network: Network,
    bounds: list[NodeBounds],
    place: int,  # of the node that is asked about
    rows: Tensor,  # (P,) int64: whose region each functional is asked over
    direction: Tensor,  # (P, *shape of the node)
    region: Region,
    centre: Tensor,  # (R, *shape)
    line: Line,
) -> Tensor:  # (P,) float64
    """A number that <direction, node> is not below for any input of the row's region.

    The functional is carried back step by step: exactly through affine steps, and under every ReLU
    by a line below it where its weight is positive and a line above where it is negative.
    """
    weights, constant = {place: direction}, torch.zeros(len(rows), dtype=torch.float64)
    for at in range(place, 0, -1):
        weight = weights.pop(at, None)
        if weight is None:
            continue
        step = network.steps[at - 1]
        match step:
            case Affine():
                constant = constant + row_vectors(weight * step.constant).sum(1)
                moved = ((step.source, step.transpose(weight)),)
            case Rectifier():
                low, high = bounds[step.source]
                below, above, offset = _lines(low, high, line)
                up, down = weight.clamp(min=0), weight.clamp(max=0)
                constant = constant + row_vectors(down * offset[rows]).sum(1)
                moved = ((step.source, up * below[rows] + down * above[rows]),)
            case Addition():
                moved = ((step.left, weight), (step.right, weight))
        for source, part in moved:
            weights[source] = weights[source] + part if source in weights else part
    if 0 not in weights:
        return constant
    return constant + over_region(weights[0], region, centre[rows])


def _lines(low: Tensor, high: Tensor, line: Line) -> tuple[Tensor, Tensor, Tensor]:
    """(slope below, slope above, offset above) for inputs of a ReLU between `low` and `high`."""
    on, cut = (low >= 0).double(), (low < 0) & (high > 0)
    above = torch.where(cut, high / torch.where(cut, high - low, torch.ones_like(low)), on)
    below = above
    if line == "adaptive":
        below = torch.where(cut, (high >= -low).double(), on)
    return below, above, torch.where(cut, -above * low, torch.zeros_like(low))

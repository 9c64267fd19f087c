"""Bounds on a network's scores over a whole region: by intervals (IBP), and by lines (CROWN).

*Guarantee:* margins are never above the least margin that any input of the region has, under the
network of exact numbers and under the model that rounds each of its operations to the relative
error `unit` (`unit_of`), in whatever order it adds up. Each step may miss by the number of its
terms times that, of the sizes that its region allows, and this error is carried through the later
layers as any other move. Products that are rounded to fewer bits than their type
has (TF32, autocast) are not covered.

*Source:* Gowal et al. 2018, "On the Effectiveness of Interval NodeBounds Propagation",
https://arxiv.org/abs/1810.12715, section 3; Zhang et al. 2018, "Efficient Neural Network
Robustness Certification with General Activation Functions", https://arxiv.org/abs/1811.00866,
theorem 3.2 and table 3 (the adaptive lower line of ReLU). The other line, with the slope of the
upper one, is that of Wong & Kolter 2018, https://arxiv.org/abs/1711.00851, and Fast-Lin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from nacre.adversarial_training.certificates.extremes import over_box, over_region, surrounding
from nacre.adversarial_training.certificates.network import Addition, Affine, Network, Rectifier
from nacre.adversarial_training.threats.region import Box, Region

NodeBounds = tuple[Tensor, Tensor]
"""(R, *shape) float64 twice: nothing in the region takes a node below or above them."""

Line = Literal["adaptive", "parallel"]
"""The line below a ReLU that may be cut: of slope 0 or 1, whichever loses less, or parallel to the
line above."""

ENTRIES = 1 << 19
"""Numbers that one batch of functionals may hold (4 MiB, which stay in the cache)."""


def unit_of(model: nn.Module) -> float:
    """The relative error of one operation of the model: that of the least exact of its weights, and
    of float32 at least, in which inputs come."""
    types = {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
    return max(torch.finfo(kind).eps / 2 for kind in types | {torch.float32})


def interval_margins(
    network: Network, region: Region, centre: Tensor, label: Tensor, unit: float = 0.0
) -> Tensor:  # (R,) float64
    """A lower bound of the right score minus the best other one, by intervals.

    The last affine step is taken together with the difference of two scores (Gowal, section 3.2).
    """
    bounds, errors = _all(network, region, centre, unit, refined=False)
    rows, direction = _differences(network, label)
    last = network.steps[-1]
    if isinstance(last, Affine):
        constant = (direction * last.constant).sum(1)
        slope, (low, high) = last.transpose(direction), bounds[last.source]
    else:
        constant, slope, (low, high) = torch.zeros(len(rows)).double(), direction, bounds[-1]
    if errors is not None and isinstance(last, Affine):
        constant = constant - (direction.abs() * errors[-1][rows]).flatten(1).sum(1)
    return _least(constant + over_box(slope, low[rows], high[rows]), len(label))


def linear_margins(
    network: Network, region: Region, centre: Tensor, label: Tensor, unit: float = 0.0
) -> Tensor:  # (R,) float64
    """The same bound by lines carried back to the input, never below that by intervals.

    Each ReLU's own range is bounded in this way too, where intervals leave its sign open. Of the
    two lower lines the better one counts, margin by margin.
    """
    bounds, errors = _all(network, region, centre, unit, refined=True)
    rows, direction = _differences(network, label)
    asked = _Asked(network, bounds, errors, region, centre)
    place = len(network.steps)
    found = asked.lowest(place, rows, direction, "adaptive")
    other = asked.lowest(place, rows, direction, "parallel")
    least = _least(torch.maximum(found, other), len(label))
    return torch.maximum(least, interval_margins(network, region, centre, label, unit))


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


def _all(
    network: Network, region: Region, centre: Tensor, unit: float, *, refined: bool
) -> tuple[list[NodeBounds], list[Tensor] | None]:
    """(bounds, errors): of every node, those that a ReLU reads by lines as well, if `refined`; and
    by how much rounding may move it (R, *shape) in the step that makes it, None without any."""
    bounds: list[NodeBounds] = [surrounding(region, centre)]
    # An attacked input is a float32 number that may lie next to an end of its range.
    errors = None if not unit else [(region.radii > 0).to(centre) * unit * 2 * _size(bounds[0])]
    if errors is not None:
        bounds[0] = bounds[0][0] - errors[0], bounds[0][1] + errors[0]
    asked = _Asked(network, bounds, errors, region, centre)
    read = {step.source for step in network.steps if isinstance(step, Rectifier)}
    for place, step in enumerate(network.steps, start=1):
        match step:
            case Affine():
                low, high = bounds[step.source]
                middle = step.linear((low + high) / 2) + step.constant
                reach = step.magnitude((high - low) / 2)
                made = middle - reach, middle + reach
                sizes = step.constant.abs() if step.sizes is None else step.sizes
                sizes = step.magnitude(_size(bounds[step.source])) + sizes
                error = sizes * _gamma(step.terms, unit)
                exact = step.source == 0 and isinstance(region, Box)
            case Rectifier():
                low, high = bounds[step.source]
                made, exact = (low.clamp(min=0), high.clamp(min=0)), True
                error = torch.zeros_like(low)
            case Addition():
                (low, high), (more, most) = bounds[step.left], bounds[step.right]
                made, exact = (low + more, high + most), False
                error = _size(made) * unit
        if errors is not None:
            errors.append(error)
            made = made[0] - error, made[1] + error
        bounds.append(made)
        if refined and place in read and not exact:
            bounds[place] = _refined(asked, place)
    return bounds, errors


def _size(bounds: NodeBounds) -> Tensor:
    return torch.maximum(bounds[0].abs(), bounds[1].abs())


def _gamma(terms: int, unit: float) -> float:
    """How far a sum of so many products lies from the exact one at most, as a share of the sum of
    their sizes, in any order of adding (Higham 2002, lemma 3.1 and section 3.1); inf where the sum
    is too long for its type."""
    return terms * unit / (1 - terms * unit) if terms * unit < 1 else math.inf


def _refined(asked: _Asked, place: int) -> NodeBounds:
    """The bounds of a node's entries whose sign intervals leave open, by lines."""
    network, bounds = asked.network, asked.bounds
    low, high = (bound.flatten(1).clone() for bound in bounds[place])
    rows, entries = ((low < 0) & (high > 0)).nonzero().unbind(1)
    shape = network.shapes[place]
    width = max(math.prod(one) for one in network.shapes[: place + 1])
    for part in torch.arange(len(rows)).split(max(1, ENTRIES // width)):
        own, entry = rows[part], entries[part]
        unit = torch.zeros(len(part), low.shape[1], dtype=torch.float64)
        unit[torch.arange(len(part)), entry] = 1
        unit = unit.reshape(-1, *shape)
        least = asked.lowest(place, own, unit, "adaptive")
        most = -asked.lowest(place, own, -unit, "adaptive")
        low[own, entry] = torch.maximum(low[own, entry], least)
        high[own, entry] = torch.minimum(high[own, entry], most)
    return low.reshape(-1, *shape), high.reshape(-1, *shape)


@dataclass(frozen=True, eq=False)
class _Asked:
    """A network over the regions of some rows, with what is known of its nodes so far."""

    network: Network
    bounds: list[NodeBounds]
    errors: list[Tensor] | None  # by how much rounding may move each node in its own step
    region: Region
    centre: Tensor  # (R, *shape)

    def lowest(
        self,
        place: int,  # of the node that is asked about
        rows: Tensor,  # (P,) int64: whose region each functional is asked over
        direction: Tensor,  # (P, *shape of the node)
        line: Line,
    ) -> Tensor:  # (P,) float64
        """A number that <direction, node> is not below for any input of the row's region.

        The functional is carried back step by step: exactly through affine steps, and under every
        ReLU by a line below it where its weight is positive and a line above where it is negative.
        """
        weights, constant = {place: direction}, torch.zeros(len(rows), dtype=torch.float64)
        for at in range(place, 0, -1):
            weight = weights.pop(at, None)
            if weight is None:
                continue
            step = self.network.steps[at - 1]
            match step:
                case Affine():
                    constant = constant + (weight * step.constant).flatten(1).sum(1)
                    moved = ((step.source, step.transpose(weight)),)
                case Rectifier():
                    low, high = self.bounds[step.source]
                    below, above, offset = _lines(low, high, line)
                    up, down = weight.clamp(min=0), weight.clamp(max=0)
                    constant = constant + (down * offset[rows]).flatten(1).sum(1)
                    moved = ((step.source, up * below[rows] + down * above[rows]),)
                case Addition():
                    moved = ((step.left, weight), (step.right, weight))
            if not isinstance(step, Rectifier):  # whose maximum is exact
                constant = self._rounded(constant, at, rows, weight)
            for source, part in moved:
                weights[source] = weights[source] + part if source in weights else part
        if 0 not in weights:
            return constant
        constant = self._rounded(constant, 0, rows, weights[0])
        return constant + over_region(weights[0], self.region, self.centre[rows])

    def _rounded(self, value: Tensor, at: int, rows: Tensor, weight: Tensor) -> Tensor:
        """`value` less the most that the rounding of this node takes from the functional."""
        if self.errors is None:
            return value
        return value - (weight.abs() * self.errors[at][rows]).flatten(1).sum(1)


def _lines(low: Tensor, high: Tensor, line: Line) -> tuple[Tensor, Tensor, Tensor]:
    """(slope below, slope above, offset above) for inputs of a ReLU between `low` and `high`."""
    on, cut = (low >= 0).double(), (low < 0) & (high > 0)
    above = torch.where(cut, high / torch.where(cut, high - low, torch.ones_like(low)), on)
    below = above
    if line == "adaptive":
        below = torch.where(cut, (high >= -low).double(), on)
    return below, above, torch.where(cut, -above * low, torch.zeros_like(low))

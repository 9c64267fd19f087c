"""DDN: how near the nearest broken input is, in L2."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.access import Scorer, WhiteBox
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.evaluation.losses import cross_entropy
from nacre.adversarial_training.threats.region import Ellipsoid, column, finite_or_zero, unit_length
from nacre.core import require
from nacre.core.random import Source

LONGEST, SHORTEST = 1.0, 0.01
"""Length of the first and of the last step, as shares of `first` (section 4: a cosine between)."""


@dataclass(frozen=True, eq=False)
class NearestFound:
    """The nearest broken point that was found for each row: an upper bound on the minimum."""

    points: Tensor  # (R, *shape): the clean input where none was found
    distances: Tensor  # (R,) float64, L2 in the inputs' own units: 0 where the clean input is
    # broken already, inf where nothing was found


def nearest_broken(
    scorer: Scorer,
    region: Ellipsoid,  # its legal range and its fixed entries hold; its size does not
    rows: Inputs,
    source: Source,
    *,
    steps: int = 100,
    first: float | None = None,  # length of the first move; None takes the largest radius
    change: float = 0.05,  # by which share the length grows or shrinks a step
    width: int = 256,  # rows at a time
) -> NearestFound:
    """The nearest broken points by decoupling direction and norm: the direction follows the
    gradient of the cross-entropy, the length shrinks where a row is broken and grows where not.

    *Guarantee:* each point is legal and is scored once more here, after its last rounding; a row
    whose point does not break it then has the distance inf. The model has to be `untouched` around
    the call. *Limit:* distances below first * (1 - change) ** steps are not resolved. Raises
    `BadArgument` unless steps >= 1, first > 0 and 0 < change < 1.

    *Source:* Rony et al. 2019, "Decoupling Direction and Norm for Efficient Gradient-Based L2
    Adversarial Attacks and Defenses", https://arxiv.org/abs/1811.09600, algorithm 1.
    """
    longest = float(region.radii.max()) if first is None else first
    require.at_least(1, steps=steps, width=width)
    require.positive(first=longest)
    require.between(0, 1, change=change)
    points, distances = [rows.clean[:0]], [torch.zeros(0, dtype=torch.float64)]
    target = WhiteBox(scorer)
    for part in torch.arange(len(rows)).split(width):
        some = rows.take(part)
        found = _searched(target, region, some, source, steps, longest, change)
        broken = some.broken(target.scores(found))
        length = _length(found - some.clean)
        points.append(torch.where(column(broken, found), found, some.clean))
        distances.append(torch.where(broken, length, torch.full_like(length, math.inf)))
    return NearestFound(torch.cat(points), torch.cat(distances))


def _searched(
    target: WhiteBox, region: Ellipsoid, rows: Inputs, source: Source, steps: int, first: float,
    change: float,
) -> Tensor:  # fmt: skip
    clean, count = rows.clean, len(rows)
    x, best = clean, clean
    least = torch.full((count,), math.inf, dtype=torch.float64)
    length = torch.full((count,), first, dtype=torch.float64)
    free = (region.radii > 0).to(torch.float64)
    uniform = source.child("direction").stream().rows(rows.unit, clean[0].numel())
    anywhere = unit_length(free * (2 * uniform - 1).reshape(clean.shape))

    def raised(scores: Tensor) -> Tensor:
        return cross_entropy(scores, rows.label, rows.aimed)

    for step in range(steps + 1):
        scores, _, gradient = target.slopes(x, raised)
        broken, far = rows.broken(scores), _length(x - clean)
        nearer = broken & (far < least)
        best = torch.where(column(nearer, x), x, best)
        least = torch.where(nearer, far, least)
        share = (1 + math.cos(math.pi * step / steps)) / 2
        stride = first * (SHORTEST + (LONGEST - SHORTEST) * share)
        steep = unit_length(free * finite_or_zero(gradient).double())
        # A gradient of 0 shows no way: a direction of the row's own is taken.
        lost = steep.flatten(1).abs().amax(1) == 0
        steep = torch.where(column(lost, steep), anywhere, steep)
        move = (x - clean).double() + stride * steep
        length = length * torch.where(broken, 1 - change, 1 + change)
        moved = clean.double() + column(length, move) * unit_length(move)
        low, high = region.legal(clean)
        legal = moved.to(clean.dtype).clamp(low, high)
        x = torch.where(region.radii > 0, legal, clean)
    return best


def _length(move: Tensor) -> Tensor:
    """(R, *shape) -> (R,) float64"""
    return torch.linalg.vector_norm(move.double().flatten(1), dim=1)

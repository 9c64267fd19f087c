"""How far a float32 model may be from the real numbers that it stands for, over a whole region.

An attack moves the model as it computes, whose scores carry the roundings of every layer; bounds
are about the network in real numbers. What may lie between the two is carried through the layers
beside the bounds, as the classical analysis does: a sum of n products has an error of at most
gamma_n times the sum of the products' absolute values, in whatever order it is taken, with or
without fused operations.

*Guarantee:* holds for sums of products in float32. TensorFloat-32, half precision and Winograd
convolutions round more.

*Source:* Higham 2002, "Accuracy and Stability of Numerical Algorithms", section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nacre.adversarial_training.certificates.steps import Addition, Affine, Network, Rectifier

UNIT = 2.0**-24
"""Half the distance from 1 to the next float32."""

SMALLEST, LARGEST = 2.0**-126, 2.0**127
"""Smaller products may become 0; larger sums may become infinite."""

OWN = 1e-3
"""Share that is put on top for the float64 in which bounds are computed: it rounds 2**29 times
finer, over a few times as many steps."""


def roundings(
    network: Network,
    bounds: Sequence[tuple[Tensor, Tensor]],  # of every node, (R, *shape) float64 twice
    label: Tensor,  # (R,)
) -> Tensor:  # (R,) float64
    """How much smaller the right score minus any other may be in float32 than in real numbers.
    Not finite where float32 may overflow."""
    errors = [torch.zeros_like(bounds[0][0])]
    for step in network.steps:
        errors.append(_error(step, errors, bounds))
    found = (1 + OWN) * errors[-1]
    own = found.gather(1, label[:, None])
    return (own + found.scatter(1, label[:, None], 0.0).amax(1, keepdim=True)).squeeze(1)


def _error(
    step: Affine | Rectifier | Addition,
    errors: Sequence[Tensor],
    bounds: Sequence[tuple[Tensor, Tensor]],
) -> Tensor:
    """(R, *shape) of what a step makes."""
    match step:
        case Affine():
            before, size = errors[step.source], _size(bounds, errors, step.source)
            carried = step.magnitude(before)
            if not step.terms:
                return carried
            weight = step.constant.abs() if step.weight is None else step.weight
            summed = step.magnitude(size) + weight
            gamma = step.terms * UNIT / (1 - step.terms * UNIT)
            return _finite(carried + gamma * summed + step.terms * SMALLEST, summed)
        case Rectifier():
            before = errors[step.source]
            # Where nothing of it gets above 0 in float32 either, 0 comes out.
            off = bounds[step.source][1] + before < 0
            return torch.where(off, torch.zeros_like(before), before)
        case Addition():
            summed = _size(bounds, errors, step.left) + _size(bounds, errors, step.right)
            return _finite(errors[step.left] + errors[step.right] + UNIT * summed, summed)


def _size(bounds: Sequence[tuple[Tensor, Tensor]], errors: Sequence[Tensor], node: int) -> Tensor:
    """(R, *shape): the largest absolute value of a node, as it is computed."""
    low, high = bounds[node]
    return torch.maximum(low.abs(), high.abs()) + errors[node]


def _finite(error: Tensor, summed: Tensor) -> Tensor:
    return torch.where(summed < LARGEST, error, torch.full_like(error, torch.inf))

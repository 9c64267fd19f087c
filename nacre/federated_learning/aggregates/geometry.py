"""Distances between contributions and weighted sums of them, in float64, without overflow.

Every rule but those that go coordinate by coordinate is a choice of weights, and needs nothing of
the contributions but their inner products: one (n, n) matrix, whatever the size of the model.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from nacre.core.types import Tensors

_COLUMNS = 1 << 16  # that are taken to float64 at once
_LARGEST = torch.finfo(torch.float32).max


def each_name(contributions: Sequence[Tensors], combine: Callable[[Tensor], Tensor]) -> Tensors:
    """`combine` on (n, *shape), name by name."""
    names = contributions[0]
    return {name: combine(torch.stack([c[name] for c in contributions])) for name in names}


def saturated(values: Tensor) -> Tensor:
    """As float32; what is larger than float32 holds becomes the largest that it holds.

    So no overflow ends as a difference of infinities, which would be no number.
    """
    return values.clamp(-_LARGEST, _LARGEST).float()


def weighted_sum(
    contributions: Sequence[Tensors],
    weights: Tensor,  # (n,) float64
) -> Tensors:
    """The sum of the contributions times their weights; a weight of 0 takes nothing."""
    return weighted_sums(contributions, weights[None])[0]


def weighted_sums(
    contributions: Sequence[Tensors],
    weights: Tensor,  # (k, n) float64
) -> list[Tensors]:  # k
    """The weighted sum of each row of weights."""
    places: list[int] = weights.any(0).nonzero()[:, 0].tolist()
    chosen, factors = [contributions[i] for i in places], weights[:, places]
    found: list[Tensors] = [{} for _ in weights]
    for name, value in contributions[0].items():
        sums = torch.zeros(len(weights), value.numel(), device=value.device)
        for start in range(0, value.numel() if chosen else 0, _COLUMNS):
            part = slice(start, start + _COLUMNS)
            rows = torch.stack([each[name].reshape(-1)[part] for each in chosen]).double()
            sums[:, part] = saturated(factors.to(rows.device) @ rows)
        for into, row in zip(found, sums, strict=True):
            into[name] = row.reshape(value.shape)
    return found


def middle(values: Tensor) -> Tensor:
    """(n, *shape) -> (*shape): entry by entry the middle; of an even number the mean of two.

    Halves are added, since two large numbers may overflow.
    """
    ranked, count = from_the_smallest(values), len(values)
    return ranked[(count - 1) // 2] / 2 + ranked[count // 2] / 2


def from_the_smallest(values: Tensor) -> Tensor:
    """(n, *shape), each entry's n values from the smallest. On a processor NumPy sorts them several
    times as fast as torch does."""
    if values.device.type != "cpu":
        return values.sort(0).values
    entries = np.ascontiguousarray(values.detach().reshape(len(values), -1).numpy().T)
    entries.sort(axis=1)
    return torch.from_numpy(entries.T).reshape(values.shape)


def around_middle(contributions: Sequence[Tensors]) -> Tensor:
    """(n, n) float64: inner products of the contributions minus their coordinate-wise median.

    Distances are the same around any point. Around this one, what honest parties have in common is
    taken off before it is squared, and no party at fault can move the point far.
    """
    device = next(iter(contributions[0].values())).device
    found = torch.zeros(len(contributions), len(contributions), dtype=torch.float64, device=device)
    for rows in _blocks(contributions):
        shifted = rows.double() - middle(rows).double()
        found += shifted @ shifted.T
    return found.cpu()


def squared_distances(contributions: Sequence[Tensors]) -> Tensor:
    """(n, n) float64, with a diagonal of zeros."""
    products = around_middle(contributions)
    squares = products.diagonal()
    found = (squares[:, None] + squares[None, :] - 2 * products).clamp(min=0)
    return found.fill_diagonal_(0)


def squared_lengths(contributions: Sequence[Tensors]) -> Tensor:
    """(n,) float64."""
    return torch.tensor(
        [sum(float(v.double().square().sum()) for v in c.values()) for c in contributions],
        dtype=torch.float64,
    )


def products_with(contributions: Sequence[Tensors], one: Tensors) -> Tensor:
    """(n,) float64: the inner product of each contribution with `one`."""
    return torch.tensor(
        [
            sum(float((value.double() * one[name].double()).sum()) for name, value in c.items())
            for c in contributions
        ],
        dtype=torch.float64,
    )


def smallest(
    values: Tensor,  # (k, n) float64
    keep: int,
) -> Tensor:  # (k, n) float64, rows of sum 1
    """Equal weights for the `keep` smallest values of each row. Those that tie for the last places
    share them, so that the order of the parties decides nothing."""
    last = values.sort(1).values[:, keep - 1 : keep]
    inside = (values < last * (1 - _TIED)).double()
    tied = (values <= last * (1 + _TIED)).double() - inside
    left = keep - inside.sum(1, keepdim=True)  # places for those that tie
    return (inside + tied * left / tied.sum(1, keepdim=True)) / keep


_TIED = 1e-9
"""Relative: values nearer than this are equal but for rounding."""


def _blocks(contributions: Sequence[Tensors]) -> Iterator[Tensor]:
    """(n, columns) parts of all entries, one after another."""
    for name in contributions[0]:
        flat = [c[name].reshape(-1) for c in contributions]
        for start in range(0, len(flat[0]), _COLUMNS):
            yield torch.stack([values[start : start + _COLUMNS] for values in flat])

"""Random rows of a declared shape: what a model is tried on, since trials may see no real row."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import torch
from torch import Tensor


def random_inputs(
    shape: tuple[int, ...],  # of one row
    tokens: int | None,  # size of the vocabulary; None where inputs are numbers
    count: int,
    seed: int = 0,
) -> Tensor:
    """(count, *shape): normal numbers, or int64 tokens with padding (-1) on the right.

    The first row of tokens is full; every other one has a random length of at least one. The same
    seed gives the same rows, and torch's own generator is left as it was.

    >>> rows = random_inputs((4,), 9, 3)
    >>> rows.dtype, bool((rows[0] >= 0).all()), bool((rows[:, 0] >= 0).all()), int(rows.max()) < 9
    (torch.int64, True, True, True)
    """
    generator = torch.Generator().manual_seed(seed)
    if tokens is None:
        return torch.randn(count, *shape, generator=generator)
    rows = torch.randint(tokens, (count, *shape), generator=generator)
    lengths = torch.randint(1, shape[-1] + 1, (count,), generator=generator)
    if count:
        lengths[0] = shape[-1]
    padded = torch.arange(shape[-1]) >= lengths.reshape(-1, *[1] * len(shape))
    return rows.masked_fill(padded, -1)


def other(rows: Tensor, tokens: int | None) -> Tensor:
    """(count, *shape) -> the same shape: rows of equal lengths of which each entry differs."""
    if tokens is None:
        return -3.0 * rows + 1.0
    return torch.where(rows >= 0, (rows + 1 + tokens // 3) % tokens, rows)

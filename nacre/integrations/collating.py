"""Whether a collate function keeps each row in an entry of its own: tried on made-up rows."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nacre.core.errors import Incompatible
from nacre.core.types import Batch
from nacre.integrations.mixing import same

Collated = Callable[[Sequence[Any]], Batch]
"""Rows -> named tensors with an entry for each."""


def require_own_entries(collate: Collated, rows: list[Any]) -> None:
    """Raises `Incompatible` where the function draws random numbers by a row's place, or where the
    entry of a row moves with what stands beside it.

    Each row is put together with copies of the row that needs the most room, in two orders, so that
    all batches are padded alike and nothing but other rows' content differs.
    """
    first = _seeded(collate, rows, 1)
    if any(not same(first, _seeded(collate, rows, seed)) for seed in (2, 3)):
        raise Incompatible(
            "the data collator draws random numbers by a row's place (as masking does), so "
            "taking one row away would change the draws of others; draw them in the data "
            "set's `__getitem__`, where each row has its own"
        )
    longest = max(rows, key=lambda row: _room(_seeded(collate, [row], 1)))
    count = len(rows)
    for place, row in enumerate(rows):
        beside = _seeded(collate, [row if i == place else longest for i in range(count)], 1)
        moved = [name for name in first if not same(first[name][place], beside[name][place])]
        flipped = _seeded(collate, rows[::-1], 1)
        moved += [n for n in first if not same(first[n][place], flipped[n][count - 1 - place])]
        if moved:
            raise Incompatible(
                f"the data collator makes another {moved[0]!r} of a row when other rows stand "
                "beside it, so another row's content would be in this row's gradient, and no bound "
                "on one row's share holds; let it pad and stack rows, and mix none of them"
            )


def _room(batch: Batch) -> int:
    return sum(value.numel() for value in batch.values())


def _seeded(collate: Collated, rows: Sequence[Any], seed: int) -> Batch:
    """The rows put together under these random numbers, all generators left as they were."""
    ours, numpys = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            return {name: _kept(value) for name, value in collate(rows).items()}
        finally:
            random.setstate(ours)
            np.random.set_state(numpys)


def _kept(value: Tensor) -> Tensor:
    return value.detach().clone()

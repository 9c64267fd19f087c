"""Rows that took part, and rows that did not, as independent trials."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from nacre.core.random import Source
from nacre.core.rows import select
from nacre.core.types import Batch
from nacre.data.dataset import Rows


def single(members: Batch, outsiders: Batch) -> tuple[Batch, Batch, int]:
    """(members, outsiders, rows left out): the rows that no other row of the two equals.

    *Why:* where a row took part once or twice, a guess about it is no guess about one coin, and a
    model under privacy of single rows may tell k equal rows at k epsilon. Which rows are single
    depends on both cohorts together and not on the coins, so the coins of those that are left stay
    fair and independent. A row that is left out twice says nothing about the others.
    """
    names = [_names(batch) for batch in (members, outsiders)]
    count = Counter(name for side in names for name in side)
    kept = [torch.tensor([count[name] == 1 for name in side], dtype=torch.bool) for side in names]
    left_out = sum(int((~mask).sum()) for mask in kept)
    return select(members, kept[0]), select(outsiders, kept[1]), left_out


def one_of_each_group(rows: Rows, source: Source) -> Rows:
    """One row of each group, drawn at random: rows that went in or stayed out together are one
    trial."""
    if rows.group is None:
        return rows
    chosen: dict[str, int] = {}
    for place in source.stream().permutation(len(rows)).tolist():
        chosen.setdefault(rows.group[place], place)
    return rows.take(torch.tensor(sorted(chosen.values()), dtype=torch.int64))


def _names(batch: Batch) -> list[bytes]:
    """The content of each row, features and label; 0.0 and -0.0 are equal."""
    parts = [_bytes(batch[key]) for key in ("features", "label")]
    return [features + label for features, label in zip(*parts, strict=True)]


def _bytes(values: Tensor) -> list[bytes]:
    flat = (values + 0).flatten(1) if values.ndim > 1 else (values + 0)[:, None]
    return [row.tobytes() for row in flat.cpu().numpy()]

"""Rows gathered into units: what a step draws, and what one clipped gradient belongs to."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nacre.core import require
from nacre.core.errors import Incompatible
from nacre.core.random import Source
from nacre.core.types import Batch
from nacre.data.dataset import Rows


class Units:
    """The units of a set of rows; how many there are is private.

    Unit `example`: unit i is row i. Unit `group`: the rows with the same value in the unit column,
    numbered in the order of these values. A group with more than `rows_per_unit` rows keeps a
    random subset that depends on `source` and on the group's own name and size, so it stays the
    same for the run and no other group moves it.

    >>> rows = Rows(torch.arange(3.0)[:, None], torch.tensor([0, 1, 0]), ("b", "a", "b"))
    >>> units = Units(rows, "group", 2, Source(bytes(32)))
    >>> len(units), units.batch(torch.tensor([0]))["rows"].tolist()
    (2, [[True, False]])
    """

    def __init__(
        self,
        rows: Rows,  # scaled
        unit: Literal["example", "group"],
        rows_per_unit: int | None,  # None keeps every row of the widest group
        source: Source,
        *,
        numbered_by: Literal["name", "place"] = "name",  # `place` where no unit is protected
    ) -> None:
        require.at_least(1, rows_per_unit=rows_per_unit)
        self._rows = rows
        self._places: Tensor | None = None  # (U, K) int64, -1 where a group has fewer rows
        if unit == "group":
            names, members = members_of(_named_groups(rows))
            self._places = kept_rows(names, members, rows_per_unit, source)
            self._ids = _numbers((name.encode() for name in names), source)
        elif numbered_by == "place":
            self._ids = torch.arange(len(rows))
        else:
            contents = (hashlib.sha256(row).digest() for row in rows.in_bytes())
            self._ids = _numbers(contents, source)
        self._widths = _widths(rows.features, self._places)  # (U,), None for numbers

    def __len__(self) -> int:
        return len(self._rows) if self._places is None else len(self._places)

    def numbers(self, indices: Tensor) -> Tensor:
        """(B,) int64: the number of each unit, which depends on its own name and the key alone."""
        return self._ids[indices]

    def batch(self, indices: Tensor) -> Batch:
        """The units at `indices` (B,), all present, with the keys of `nacre.core.types.Batch`."""
        ids = self._ids[indices]
        batch = {"present": torch.ones(len(indices), dtype=torch.bool), "unit": ids}
        if self._places is None:
            return {
                "features": self._rows.features[indices],
                "label": self._rows.label[indices],
                **batch,
            }
        places = self._places[indices]
        held = places >= 0
        features, label = self._rows.features[places], self._rows.label[places]
        # Place -1 read the last row; nothing of it may reach the unit.
        features[~held] = 0 if features.is_floating_point() else -1
        label[~held] = 0 if label.ndim == 2 else -100
        return {"features": features, "label": label, "rows": held, **batch}

    def micro(self, indices: Tensor, size: int | None) -> Iterator[Batch]:
        """The same units in batches of at most `size`; nothing for an empty draw.

        Units of tokens come with others of about their own length, and without the padding that
        none of them needs. *Why the sum stays bounded:* how wide a unit's rows are depends on that
        unit alone, so taking another one away changes neither its dropout nor its padding.
        """
        for width, alike in self._alike(indices):
            for part in alike.split(size or len(alike)):
                yield _narrowed(self.batch(part), width)

    def _alike(self, indices: Tensor) -> Iterator[tuple[int | None, Tensor]]:
        """(tokens of a row, the units of that width), the narrow ones first."""
        if self._widths is None:
            yield from [(None, indices)] if len(indices) else []
            return
        widths = self._widths[indices]
        for width in widths.unique().tolist():
            yield int(width), indices[widths == width]


_WIDTHS = 4  # the most different widths of rows
_NARROWEST = 8  # tokens


def _widths(features: Tensor, places: Tensor | None) -> Tensor | None:
    """(U,): tokens of the longest row of each unit, rounded up to a few even steps; None where the
    features are numbers, of which none can be left out."""
    if features.is_floating_point() or features.ndim != 2:
        return None
    full = features.shape[1]
    lengths = ((features >= 0) * torch.arange(1, full + 1)).amax(1)
    if places is not None:
        lengths = torch.where(places >= 0, lengths[places], 0).amax(1)
    step = max(_NARROWEST, -(-full // _WIDTHS))
    return ((lengths + step - 1) // step * step).clamp(min=min(step, full), max=full)


def _narrowed(batch: Batch, width: int | None) -> Batch:
    """The batch with rows of `width` tokens: the rest is padding."""
    if width is None:
        return batch
    features, label = batch["features"], batch["label"]
    by_position = label.shape == features.shape
    return batch | {
        "features": features[..., :width].contiguous(),
        "label": label[..., :width].contiguous() if by_position else label,
    }


_ID_BITS = 48  # room for the number of a row inside its unit, see `core.rows.flatten`


def _numbers(names: Iterable[bytes], source: Source) -> Tensor:
    """(U,) int64: a number for each unit that depends on its own name and the key alone.

    Random starts of attacks are keyed by it. Were they keyed by places, taking one unit away would
    move the starts, and so the gradients, of all that come after it, and the sums of neighbouring
    data sets would differ by more than one unit's share. The second of two equal names counts as
    another name, which of them it is makes no difference.
    """
    return torch.from_numpy(source.child("unit").numbers(names) >> (63 - _ID_BITS))


def _named_groups(rows: Rows) -> tuple[str, ...]:
    """(N,): whose each row is. Raises `Incompatible` where the data do not say so."""
    if rows.group is None:
        raise Incompatible(
            "unit `group` needs a column that names each row's group and the data declare none; "
            "set `unit` under `data` or protect unit `example`"
        )
    return rows.group


def members_of(group: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """(the different names in order, the place among them of each row's group)."""
    names = sorted(set(group))
    place = {name: i for i, name in enumerate(names)}
    return names, np.fromiter(map(place.__getitem__, group), np.int64, len(group))


def kept_rows(
    names: Sequence[str],  # of the groups
    members: NDArray[np.int64],  # (N,) the group of each row
    rows_per_unit: int | None,  # None keeps every row of the widest group
    source: Source,
) -> Tensor:
    """(U, K): the rows that each group keeps, in the order of the rows, padded by -1. Which rows a
    group keeps depends on its own name and size alone."""
    order = np.argsort(members, kind="stable")
    counts = np.bincount(members, minlength=len(names))
    starts = np.cumsum(counts) - counts
    width = rows_per_unit or int(counts.max(initial=1))
    table = np.full((len(names), width), -1, dtype=np.int64)
    group = members[order]
    within = np.arange(len(order)) - starts[group]
    whole = counts[group] <= width
    table[group[whole], within[whole]] = order[whole]
    for i in np.flatnonzero(counts > width).tolist():
        kept = order[starts[i] : starts[i] + counts[i]]
        drawn = source.child("rows", names[i]).stream().permutation(len(kept)).numpy()
        table[i] = kept[np.sort(drawn[:width])]
    return torch.from_numpy(table)

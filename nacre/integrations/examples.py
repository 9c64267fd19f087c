"""The rows of a PyTorch data set as units, each fetched under random numbers of its own."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nacre.core.errors import DataError
from nacre.core.random import Source
from nacre.core.rows import select
from nacre.core.theirs import form_of, theirs
from nacre.core.types import Batch
from nacre.data.sketches.cells import NARROW, Cells
from nacre.data.units import kept_rows, members_of
from nacre.integrations.fetching import Fetcher
from nacre.integrations.mixing import Alone

Collate = Callable[[Sequence[Any]], dict[str, Tensor]]
"""Rows of a data set -> tensors whose entry i belongs to row i."""


_BLOCK = 1024  # rows in memory at once while all are read


class Examples:
    """The units of a step: unit i is row i of the data set.

    *Guarantee:* what a row draws (augmentation by torch, numpy or `random` while it is fetched, its
    dropout masks) is keyed by the step and its place, so it is independent of all that the other
    rows draw. Taking one row away moves the places of those behind it, but not the law of what they
    draw, and under each fixed draw no more than one row's share is missing from the sum. How many
    rows there are is private.
    """

    def __init__(
        self,
        rows: Fetcher | Alone,
        collate: Collate,
        device: torch.device,
        source: Source,  # of the step
    ) -> None:
        self._alone = rows if isinstance(rows, Alone) else None
        self._fetcher = rows.fetcher if isinstance(rows, Alone) else rows
        self._collate = collate
        self._device = device
        self._source = source

    def __len__(self) -> int:
        return len(self._fetcher.dataset)

    def numbers(self, indices: Tensor) -> Tensor:
        """(b,) int64: a number of each row's own."""
        places: list[int] = indices.tolist()
        return torch.tensor([self._source.number("unit", i) >> 15 for i in places])

    def micro(self, indices: Tensor, size: int | None) -> Iterator[Batch]:
        """The drawn rows in batches of at most `size`; nothing for an empty draw."""
        if self._alone is not None:
            self._alone.check(self._places(indices), self._source)
        if len(indices):
            for part in indices.split(size or len(indices)):
                yield self._batch(part)

    def _places(self, indices: Tensor) -> list[int]:
        """The rows of these units."""
        return indices.tolist()

    def _batch(self, indices: Tensor) -> Batch:
        items = self._fetcher.rows(self._places(indices), self._source)
        return batch_of(collated(self._collate, items), self.numbers(indices), self._device)


@dataclass(frozen=True, eq=False)
class Owned:
    """Which rows each owner keeps in a run."""

    names: tuple[str, ...]  # (U,) of the owners, in order
    places: Tensor  # (U, K) int64: rows of the data set, -1 where an owner has fewer

    @classmethod
    def of(cls, owners: Sequence[str], rows_per_unit: int, source: Source) -> Owned:
        """Of whose each row is, by a draw under the run's key. What an owner keeps depends on the
        owner's own name and number of rows alone."""
        names, members = members_of(owners)
        return cls(tuple(names), kept_rows(names, members, rows_per_unit, source))


class OwnedRows(Examples):
    """The units of a step: unit i is everything that one owner keeps.

    *Guarantee:* what an owner's rows draw is keyed by the step, the owner's name and the row's
    place among the owner's own; so taking one owner away, with all of their rows, changes nothing
    of what is computed from the others'. How many owners there are is private.
    """

    def __init__(
        self,
        rows: Fetcher | Alone,
        collate: Collate,
        device: torch.device,
        source: Source,  # of the step
        owned: Owned,
    ) -> None:
        super().__init__(rows, collate, device, source)
        self._owned = owned

    def __len__(self) -> int:
        return len(self._owned.places)

    def numbers(self, indices: Tensor) -> Tensor:
        """(b,) int64: a number of each owner's own."""
        names = [self._owned.names[i] for i in indices.tolist()]
        return torch.tensor([self._source.number("unit", name) >> 15 for name in names])

    def _places(self, indices: Tensor) -> list[int]:
        places = self._owned.places[indices]
        return places[places >= 0].tolist()

    def _batch(self, indices: Tensor) -> Batch:
        places = self._owned.places[indices]  # (b, K)
        held = places >= 0
        names = [
            f"{place} of {self._owned.names[owner]}"
            for owner, own in zip(indices.tolist(), held.tolist(), strict=True)
            for place, there in enumerate(own)
            if there
        ]
        items = self._fetcher.rows(self._places(indices), self._source, names)
        flat = batch_of(collated(self._collate, items), torch.arange(len(items)), self._device)
        return in_units(flat, held.to(self._device), self.numbers(indices).to(self._device))


def in_units(
    flat: Batch,  # (R, …): the rows of all units, one unit's after another's
    held: Tensor,  # (B, K) bool: which places of each unit hold a row; the first always does
    numbers: Tensor,  # (B,) int64, of the units
) -> Batch:
    """The rows as units, (B, K, …). A place without a row repeats the unit's first one, which a
    loss can be computed of, and does not count."""
    order = (held.reshape(-1).cumsum(0) - 1).reshape(held.shape)
    places = torch.where(held, order, order[:, :1])
    units = {n: value[places] for n, value in flat.items() if n not in ("present", "unit")}
    present = torch.ones(len(held), dtype=torch.bool, device=held.device)
    return {**units, "rows": held, "present": present, "unit": numbers}


def collated(collate: Collate, items: Sequence[Any]) -> Mapping[str, Any]:
    """What the collate function makes of these rows. Raises `DataError` for anything but named
    tensors, `CallFailed` where the function fails."""
    with theirs("the collate function", "rows were put together"):
        found: Any = collate(items)
    if isinstance(found, Mapping) and found and all(isinstance(name, str) for name in found):
        return found
    raise DataError(
        f"the collate function made {form_of(found)} of {len(items)} rows, and the model is "
        "given named tensors; return a dict, as {'input_ids': …, 'labels': …}, with a row for each"
    )


def batch_of(tensors: Mapping[str, Any], ids: Tensor, device: torch.device) -> Batch:
    """The collated rows as a batch, all present. Raises `DataError` where an entry of the collated
    rows is not a tensor with a row for each."""
    count = len(ids)
    for name, value in tensors.items():
        if not isinstance(value, Tensor) or not value.dim() or len(value) != count:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise DataError(
                f"{name!r} came collated as {shape} for {count} rows, so nobody can tell whose is "
                "what: collate each row into an entry of its own, and pack none together"
            )
    batch = {name: value.to(device) for name, value in tensors.items()}
    present = torch.ones(count, dtype=torch.bool, device=device)
    return {**batch, "present": present, "unit": ids.to(device)}


def cells(rows: Fetcher, collate: Collate) -> tuple[Cells, ...]:
    """The values of each row, for `nacre.data.sketches`. Rows that are fetched with random changes
    are fetched with the same ones every time."""
    if not len(rows.dataset):
        return ()
    example = collated(collate, rows.rows([0], _SAME))
    first = _flat(example)
    listed = np.issubdtype(first.dtype, np.integer) and first.size >= _LISTED
    blocks = Cells("cells", lambda: (np.stack(block) for block in _blocks(rows, collate)))
    if not listed and first.size > NARROW:
        return (blocks,)
    held = [row for block in _blocks(rows, collate) for row in block]
    if len({row.size for row in held}) > 1 or (listed and "input_ids" in example):
        return (Cells("sequence", held),)
    table = Cells("cells", np.stack(held)) if first.size <= NARROW else blocks
    return (Cells("sequence", held), table) if listed else (table,)  # tokens, or measurements


def digest_of(rows: Fetcher, collate: Collate, source: Source) -> bytes:
    """A keyed digest of all rows in their order, each fetched as `cells` fetches it."""
    places = range(len(rows.dataset))
    state = b""
    for start in range(0, len(places), _BLOCK):
        block = rows.rows(places[start : start + _BLOCK], _SAME)
        each = [source.digest("row", dict(collated(collate, [item]))) for item in block]
        state = source.digest("rows", state, b"".join(each))
    return state


_LISTED = 16  # whole numbers a row, from which on their order may say something: tokens


def _blocks(rows: Fetcher, collate: Collate) -> Iterator[list[np.ndarray]]:
    count = len(rows.dataset)
    for start in range(0, count, _BLOCK):
        yield _values(collate, rows, range(start, min(start + _BLOCK, count)))


def _values(collate: Collate, rows: Fetcher, places: Iterable[int]) -> list[np.ndarray]:
    """All values of each row in one array; of tokens those that stand under its mask."""
    return [_flat(collated(collate, [item])) for item in rows.rows(places, _SAME)]


_SAME = Source(bytes(32))  # public: fixes what a row draws, hides nothing


def _flat(row: Mapping[str, Any]) -> np.ndarray:
    if "input_ids" in row:  # labels, masks and padding follow from the tokens or the collator
        mask = row.get("attention_mask")
        tokens = row["input_ids"] if mask is None else row["input_ids"][mask.bool()]
        return tokens.detach().cpu().reshape(-1).numpy()
    return np.concatenate([value.detach().cpu().reshape(-1).numpy() for value in row.values()])


def as_owned(sample: Batch, rows_per_unit: int) -> Batch:
    """The rows that the model is tried on as units, some of one row and some of more."""
    count = len(sample["present"])
    device = sample["present"].device
    places = torch.arange(rows_per_unit, device=device)
    first = torch.arange(count, device=device)
    held = places < 1 + first[:, None] % rows_per_unit
    flat = select(sample, (first[:, None] + places)[held] % count)
    return in_units(flat, held, sample["unit"])

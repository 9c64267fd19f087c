"""Whether a row of a data set is that row's alone: rows are fetched again beside others, and from a
copy of the data set in which the content of other rows is another."""

# A data set may hold anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nacre.core.errors import Incompatible
from nacre.core.random import Source
from nacre.integrations import storage
from nacre.integrations.containers import altered, everywhere, length, resembling, shifted
from nacre.integrations.fetching import Fetcher
from nacre.integrations.storage import RowStore

_SHARE = 0.01  # of the steps whose rows are looked at
_SEEDS = 2  # random numbers under which each row is tried
_ENOUGH = 3  # places that a row is found to hang on, then the search ends

_REMEDY = (
    "so another row's content would be in this row's gradient, and no bound on one row's share "
    "holds; let a row come from what is held of that row alone (mix inside it, or not at all)"
)


@dataclass(frozen=True, eq=False)
class Alone:
    """The data set whose rows were found to be their own, and what is looked at later.

    *Limits:* mixing is not seen where it happens behind a file, in code of a library, by numbers
    that were computed from all rows when the data set was made, or from a cache that an earlier
    trial did not fill; and rare mixing (one row in a hundred) may need many steps to be seen.
    """

    fetcher: Fetcher
    own: tuple[RowStore, ...]  # each row of the trial came from the entry of its own place alone

    def check(self, places: list[int], source: Source) -> None:
        """Looks at one of the rows that a step has drawn, in one step of a hundred, which follows
        from the step's key. Raises `Incompatible` where it is not its own."""
        stream = source.child("mixing").stream()
        chance, which, beside = stream.uniform(3).tolist()
        rows = len(self.fetcher.dataset)
        if chance >= _SHARE or rows < 2 or self.fetcher.plain or not places:
            return
        place = places[int(which * len(places))]
        _repeats(self.fetcher, place, [int(beside * rows)], source)
        _, before = _row(self.fetcher, place, source)
        for store in self.own:
            made = storage.changed(
                self.fetcher.dataset, {store.path: partial(everywhere, place=place, how=store.how)}
            )
            found, after = _row(self.fetcher.of(made), place, source)
            if found and not same(before, after):
                raise Incompatible(_of_others(place, store))


def alone(fetcher: Fetcher) -> Alone:
    """The data set, once some of its rows were fetched again and again.

    A row may draw random numbers of its own: each trial compares rows under the same ones. Raises
    `Incompatible` for a row that is another one when it is fetched a second time, after other
    rows, or where the content of other rows is another; `CallFailed` where the data set fails.
    """
    if fetcher.plain or len(fetcher.dataset) < 2:
        return Alone(fetcher, ())
    kept = storage.sandbox(fetcher.dataset)  # of the time before its caches are filled
    _tried(fetcher)
    own = _stored(fetcher.of(kept))
    for inner in storage.datasets(kept):
        if length(inner) > 1:
            _stored(fetcher.of(inner))
    return Alone(fetcher, own)


def _tried(fetcher: Fetcher) -> None:
    for number in range(_SEEDS):
        source = Source(bytes(32)).child("trial", number)
        for place in _places(fetcher):
            _repeats(fetcher, place, [p for p in _places(fetcher) if p != place], source)


def _places(fetcher: Fetcher) -> list[int]:
    """The first row, the last and two in between."""
    rows = len(fetcher.dataset)
    return sorted({0, rows // 3, 2 * rows // 3, rows - 1})


def _repeats(fetcher: Fetcher, place: int, others: list[int], source: Source) -> None:
    """Raises `Incompatible` where the row is another one when it is fetched again."""
    first, second, *_, last = fetcher.rows([place, place, *others, place], source)
    if not same(first, second):
        raise Incompatible(
            f"row {place} of the data set came out otherwise when it was fetched a second time "
            "under the same random numbers, so nobody can tell whether it holds what other rows "
            "hold; draw its random numbers from torch, numpy or `random`, or from a generator "
            "that the data set keeps as an attribute, and keep no count of what was fetched"
        )
    if not same(first, last):
        raise Incompatible(
            f"row {place} of the data set came out otherwise after other rows were fetched, "
            f"{_REMEDY}"
        )


def _stored(fetcher: Fetcher) -> tuple[RowStore, ...]:
    """The containers whose other entries move no row of the trial."""
    dataset = fetcher.dataset
    own: list[RowStore] = []
    for store in storage.stores(dataset):
        found = [_entries_of(fetcher, store, place) for place in _places(fetcher)]
        if all(
            held == [{place}] * _SEEDS for place, held in zip(_places(fetcher), found, strict=True)
        ):
            own.append(store)
    return tuple(own)


def _entries_of(fetcher: Fetcher, store: RowStore, place: int) -> list[set[int]]:
    """The entries that a row hangs on, under each of the random numbers. Raises `Incompatible`
    where there is more than one, or another one each time, so that rows have them in common."""
    found = [
        _search(fetcher, store, place, Source(bytes(32)).child("trial", number))
        for number in range(_SEEDS)
    ]
    rows = len(fetcher.dataset)
    if store.numbers:  # where a row begins and ends may be two entries, but always the same two
        far = {other for held in found for other in held if abs(other - place) > 1}
        mixed = found[0] != found[1] and all(place in held for held in found) and bool(far)
    else:
        mixed = store.size < 2 * rows and any(len(held) > 1 for held in found)
        if store.size == rows and all(found):  # as many as rows, and each time another one
            mixed |= found[0].isdisjoint(found[1])
    if mixed:
        raise Incompatible(_of_others(place, store))
    return found


def _of_others(place: int, store: RowStore) -> str:
    return (
        f"row {place} of the data set moved when only other entries of its `{store.name}` were "
        f"changed, {_REMEDY}"
    )


def _search(fetcher: Fetcher, store: RowStore, place: int, source: Source) -> set[int]:
    """The entries of the container that the row moves with, three at most; the row's own place
    where no other does."""
    sound, before = _row(fetcher, place, source)
    if not sound:
        return set()

    def moves(change: Callable[..., Any], *ranges: tuple[int, int]) -> bool:
        other = {store.path: partial(change, ranges=ranges, how=store.how)}
        found, after = _row(fetcher.of(storage.changed(fetcher.dataset, other)), place, source)
        return found and not same(before, after)

    others = ((0, place), (place + 1, store.size))
    if store.size == len(fetcher.dataset) and not moves(shifted, *others):
        for change in (altered, partial(resembling, place=place)):  # what all have in common moves
            if storage.is_large(fetcher.dataset) or not moves(change, *others):
                continue
            places = _found(partial(moves, change), store.size)
            if len(places) in (0, _ENOUGH):  # none alone, but all together
                raise Incompatible(_of_others(place, store))
            return places
        return {place}
    if storage.is_large(fetcher.dataset):  # its arrays are not copied, and one may be a cache
        return set()
    return _found(partial(moves, shifted), store.size)


def _found(moves: Callable[[tuple[int, int]], bool], size: int) -> set[int]:
    """Places whose entries move the row, three at most."""
    places: set[int] = set()
    waiting = [(0, size)]
    while waiting and len(places) < _ENOUGH:
        low, high = waiting.pop()
        if not moves((low, high)):
            continue
        if high - low == 1:
            places.add(low)
        else:
            middle = (low + high) // 2
            waiting += [(middle, high), (low, middle)]
    return places


def _row(fetcher: Fetcher, place: int, source: Source) -> tuple[bool, Any]:
    """The row of a copy, which may not be one that the data set's code can work with."""
    try:
        return True, fetcher.rows([place], source)[0]
    except Exception:
        return False, None


def same(first: Any, second: Any) -> bool:
    """Whether two rows are equal: tensors, arrays, numbers, texts, and what is made of them.

    >>> same({"x": torch.ones(2), "y": [1, None]}, {"x": torch.ones(2), "y": [1, None]})
    True
    >>> same((np.ones(2), "a"), (np.zeros(2), "a"))
    False
    """
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        alike: bool = first.dtype == second.dtype and first.shape == second.shape
        return alike and torch.equal(_bits(first), _bits(second))
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        if first.dtype.kind == "O":
            return same(first.tolist(), second.tolist())
        return first.shape == second.shape and first.tobytes() == second.tobytes()
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if type(first) is not type(second):
        return False
    if hasattr(first, "__array__"):
        return same(np.asarray(first), np.asarray(second))
    if type(first).__eq__ is object.__eq__:
        return same(getattr(first, "__dict__", {}), getattr(second, "__dict__", {}))
    return bool(first == second) or bool(first != first and second != second)


def _bits(tensor: Tensor) -> Tensor:
    """The memory of a tensor's values, so that NaN equals itself."""
    plain = tensor.detach().cpu()
    plain = plain if plain.layout == torch.strided else plain.to_dense()
    return plain.reshape(-1).contiguous().view(torch.uint8)

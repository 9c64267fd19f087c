"""The containers that a data set may keep its rows in, whatever form they have: how many entries
they hold, and the same container with other entries."""

# A data set may hold anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import array
import copy
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

RAW = (bytes, bytearray, memoryview, array.array)
"""Containers of plain numbers that are looked at as arrays."""


@dataclass(frozen=True)
class Entries:
    """How a container is cut into entries."""

    count: int = 0
    kind: str = ""
    """"rows", "values", "numbers" (whole ones, which may say where rows are); "" for no entries."""
    axis: int = 0
    block: int = 1
    """Numbers of an entry, where rows stand one after the other in one long array."""


def entries(value: Any, rows: int) -> Entries:
    """How this container is cut, for a data set of so many rows."""
    if isinstance(value, memoryview | array.array):
        value = _array_of(value)
    if isinstance(value, Tensor | np.ndarray):
        return _of_array(value, rows)
    if isinstance(value, bytes | bytearray):
        return _long(len(value), rows, "values")
    if isinstance(value, list | tuple | deque | dict | MappingProxyType):
        held = held_in(value)
        first = held[0] if held else None
        plain = "numbers" if isinstance(first, int) else "values"
        if isinstance(first, int | float):
            return _long(len(held), rows, plain)
        return Entries(len(held), "" if first is None else "rows")
    if is_frame(value) or is_dataset(value):
        return Entries(length(value), "rows")
    return Entries()


def _of_array(value: Any, rows: int) -> Entries:
    if value.ndim == 0:
        return Entries()
    if value.ndim > 1:
        sizes = list(value.shape)
        axis = sizes.index(rows) if sizes[0] < rows and rows in sizes else 0
        return Entries(sizes[axis], "rows", axis)
    floating = (
        value.is_floating_point() if isinstance(value, Tensor) else value.dtype.kind in "fcOUS"
    )
    return _long(len(value), rows, "values" if floating else "numbers")


def _long(size: int, rows: int, kind: str) -> Entries:
    """A number a row, or several for each one after the other."""
    if rows > 1 and size > rows and size % rows == 0:
        return Entries(rows, kind, 0, size // rows)
    return Entries(size, kind)


def held_in(value: Any) -> list[Any]:
    """The entries of a list, tuple, deque or dict, past what a class of one's own makes of it."""
    if isinstance(value, MappingProxyType):
        return list(value.values())
    if isinstance(value, dict):
        return list(dict.values(value))
    if isinstance(value, list):
        return [*list.__iter__(value)]
    if isinstance(value, tuple):
        return [*tuple.__iter__(value)]
    if isinstance(value, deque):
        return [*deque.__iter__(value)]
    return []


def length(value: Any) -> int:
    """0 for what cannot tell."""
    try:
        return len(value)
    except Exception:
        return 0


Ranges = Sequence[tuple[int, int]]
"""Places [low, high)."""


def shifted(value: Any, ranges: Ranges, how: Entries) -> Any:
    """The container with the entry of the next place at each place in these ranges."""
    places = np.arange(how.count)
    for low, high in ranges:
        places[low:high] = (places[low:high] + 1) % how.count
    return _taken(value, places, how)


def everywhere(value: Any, place: int, how: Entries) -> Any:
    """The container with the entry of this place at all places; arrays are not copied."""
    if how.axis == 0 and how.block == 1:
        if isinstance(value, Tensor):
            return value.detach()[place : place + 1].expand(value.shape)
        if isinstance(value, np.ndarray):
            return np.broadcast_to(value[place : place + 1], value.shape)
    return _taken(value, np.full(how.count, place), how)


def resembling(value: Any, ranges: Ranges, place: int, how: Entries) -> Any:
    """The container with the entry of this place at each place in these ranges."""
    places = np.arange(how.count)
    for low, high in ranges:
        places[low:high] = place
    return _taken(value, places, how)


def altered(value: Any, ranges: Ranges, how: Entries) -> Any:
    """The container with numbers and texts that none of its entries has at the places in these
    ranges: whole numbers stay between the smallest and the largest, since they may be places."""
    if isinstance(value, RAW):
        return _back(value, altered(_array_of(value), ranges, how))
    if isinstance(value, Tensor):
        array_of = value.detach().cpu().numpy()
        return torch.from_numpy(altered(array_of, ranges, how)).to(value.device)
    wide = [slice(low * how.block, high * how.block) for low, high in ranges]
    if isinstance(value, np.ndarray):
        made, other = np.array(value), _other_numbers(value)
        for where in wide:
            at = (slice(None),) * how.axis + (where,)
            made[at] = other[at]
        return made
    held = held_in(value)
    whole, draw = [one for one in held if type(one) is int], random.Random(0)
    other = [draw.choice(whole) if type(one) is int else _another(one) for one in held]
    for where in wide if held else ():
        held[where] = other[where]
    return _like(value, held) if held else value


def _other_numbers(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind in "fc":
        with np.errstate(all="ignore"):
            return values * values.dtype.type(-1000) + values.dtype.type(7)
    if values.dtype.kind == "b":
        return ~values
    if values.dtype.kind in "iu" and values.size:
        low, high = int(values.min()), int(values.max())
        draws = np.random.default_rng(0).random(values.shape)
        return (
            (low + np.floor(draws * (float(high) - low + 1))).clip(low, high).astype(values.dtype)
        )
    if values.dtype.kind in "OU":
        made = np.array(values)
        for place, held in np.ndenumerate(values):
            made[place] = _another(held)
        return made
    return np.array(values)


def _another(held: Any) -> Any:
    if isinstance(held, bool | int):
        return held
    if isinstance(held, float):
        return held * -1000 + 7
    if isinstance(held, str):
        return held[::-1] + "~"
    if isinstance(held, Tensor):
        return torch.from_numpy(_other_numbers(held.detach().cpu().numpy())).to(held.device)
    if isinstance(held, np.ndarray):
        return _other_numbers(held)
    if type(held) in (list, tuple, dict):
        return _like(held, [_another(part) for part in held_in(held)])
    return held


def _like(value: Any, made: list[Any]) -> Any:
    if isinstance(value, tuple):
        return tuple(made)
    if isinstance(value, dict | MappingProxyType):
        held = dict(zip(list(value), made, strict=True))
        return held if isinstance(value, dict) else MappingProxyType(held)
    other = copy.copy(value)
    if isinstance(value, deque):
        other.clear()
        other.extend(made)
    else:
        list.__setitem__(other, slice(None), made)
    return other


def _taken(value: Any, places: np.ndarray, how: Entries) -> Any:
    """The container with the entries of these places."""
    if isinstance(value, RAW):
        return _back(value, _taken(_array_of(value), places, how))
    if isinstance(value, Tensor):
        where = torch.from_numpy(places).to(value.device)
        if how.block > 1:
            return value.detach().reshape(-1, how.block)[where].reshape(-1)
        return value.detach().index_select(how.axis, where)
    if isinstance(value, np.ndarray):
        if how.block > 1:
            return value.reshape(-1, how.block)[places].reshape(-1)
        return value.take(places, how.axis)
    if is_frame(value):
        moved = value.take(places)
        moved.index = value.index
        return moved
    if is_dataset(value):
        return _Elsewhere(value, places)
    held, width = held_in(value), how.block
    return _like(value, [held[int(i) * width + k] for i in places for k in range(width)])


def _array_of(value: Any) -> np.ndarray:
    return np.frombuffer(value, np.uint8) if isinstance(value, bytes) else np.asarray(value)


def _back(value: Any, made: np.ndarray) -> Any:
    if isinstance(value, memoryview):
        return np.ascontiguousarray(made).data
    if isinstance(value, array.array):
        return array.array(value.typecode, made.tobytes())
    return type(value)(made.astype(np.uint8).tobytes())


class _Elsewhere(torch.utils.data.Dataset[Any]):
    """A data set that answers a place with the row of another one."""

    def __init__(self, inner: Any, places: np.ndarray) -> None:
        self.inner, self.places = inner, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        return self.inner[int(self.places[index])]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)


def is_frame(value: Any) -> bool:
    """A table of pandas."""
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "take")


def is_dataset(value: Any) -> bool:
    """A map-style data set: rows by number."""
    known = isinstance(value, torch.utils.data.Dataset) or hasattr(value, "__dict__")
    sized = hasattr(type(value), "__len__") and hasattr(type(value), "__getitem__")
    return (
        known
        and sized
        and not isinstance(value, type | nn.Module | Mapping | list | tuple | Tensor | np.ndarray)
        and not is_frame(value)
    )


def bytes_of(value: Any) -> int:
    """Of an array; 0 for anything else."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return value.nbytes if isinstance(value, np.ndarray) else 0


def array_copy(value: Any) -> Any:
    """An array of its own."""
    return value.detach().clone() if isinstance(value, Tensor) else np.array(value)

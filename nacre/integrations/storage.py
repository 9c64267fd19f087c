"""What a data set keeps, as far as it can be seen from outside: the containers that it reads rows
from, and copies of it in which the content of some rows is another.

Seen are attributes (of the object and of its classes), what those hold in turn, variables of
functions and methods, and the globals that they name. What lies behind a file, a library of its own
or a cache is not.
"""

# A data set may hold anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import copy
import functools
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Path = tuple[tuple[str, Any], ...]
"""From a data set to something that it holds: an attribute, an item, a variable, one after the
other."""

_Parts = list[tuple[tuple[str, Any], Any]]

_FEW = 64  # entries of a list or dict that is looked into
_DEEP = 6  # steps from the data set
_MANY = 4000  # things that are looked at
_ARRAYS = 1 << 30  # bytes of arrays that are copied for a trial

_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_PLAIN = (str, bytes, int, float, complex, bool, type(None), type, nn.Module, *_GENERATORS)
_LIBRARIES = {"torch", "numpy", "pandas", "transformers", "tokenizers", "nacre"}


@dataclass(frozen=True)
class RowStore:
    """A container of a data set that holds an entry for each row."""

    path: Path
    size: int  # entries
    numbers: bool  # whole numbers, which may say where rows are, rather than what they hold

    @property
    def name(self) -> str:
        """As a person would write it."""
        return "".join(_written(kind, key) for kind, key in self.path).lstrip(".")


def _written(kind: str, key: Any) -> str:
    if kind == "item":
        return f"[{key!r}]"
    return "" if kind == "method" else f".{key}"


def generators(dataset: object) -> list[Any]:
    """The random number generators that a data set holds: of torch, NumPy and `random`."""
    found = {id(held): held for _, held in _walk(dataset) if isinstance(held, _GENERATORS)}
    return list(found.values())


def datasets(dataset: object) -> list[Any]:
    """The data sets that a data set reads from."""
    return [held for path, held in _walk(dataset) if path and _is_dataset(held)]


def is_large(dataset: Any) -> bool:
    """Whether its arrays take more than a gibibyte, so that none of them is copied."""
    return sum(_bytes(value) for _, value in _walk(dataset)) > _ARRAYS


def stores(dataset: Any) -> list[RowStore]:
    """The containers with an entry for each row, or with more; plain numbers only where they are
    one a row."""
    rows = len(dataset)
    found: list[RowStore] = []
    for path, value in _walk(dataset):
        if not path and not isinstance(value, list):
            continue
        size, kind = _entries(value)
        if size >= max(2, rows) and (kind == "rows" or (kind and size == rows)):
            found.append(RowStore(path, size, kind == "numbers"))
    return found


def sandbox(dataset: object) -> Any:
    """A copy whose caches are its own, arrays too where they are not large: nothing that is
    fetched from it is kept by the data set."""
    arrays = [path for path, value in _walk(dataset) if isinstance(value, Tensor | np.ndarray)]
    return changed(dataset, dict.fromkeys([] if is_large(dataset) else arrays, _array_copy))


def changed(dataset: object, change: Mapping[Path, Callable[[Any], Any]]) -> Any:
    """A copy in which what lies at these paths is another. Lists and dicts are copied, what they
    hold is shared, and so are arrays."""
    return _Copy(change).of(dataset, ())


def shifted(value: Any, ranges: Sequence[tuple[int, int]]) -> Any:
    """The container with the entry of the next place at each place in these ranges [low, high)."""
    size = len(value)
    if isinstance(value, list | tuple):
        before = list(iter(value))
        ahead, entries = [*before[1:], before[0]], before[:]
        for low, high in ranges:
            entries[low:high] = ahead[low:high]
        return _like(value, entries)
    places = np.arange(size)
    for low, high in ranges:
        places[low:high] = (places[low:high] + 1) % size
    return _taken(value, places)


def everywhere(value: Any, place: int) -> Any:
    """The container with the entry of this place at all places; arrays are not copied."""
    size = len(value)
    if isinstance(value, list | tuple):
        return _like(value, [list(iter(value))[place]] * size)
    if isinstance(value, Tensor):
        return value[place : place + 1].expand(value.shape)
    if isinstance(value, np.ndarray):
        return np.broadcast_to(value[place : place + 1], value.shape)
    return _taken(value, np.full(size, place))


def _like(value: Any, entries: list[Any]) -> Any:
    if isinstance(value, tuple):
        return tuple(entries)
    made = copy.copy(value)
    list.__setitem__(made, slice(None), entries)
    return made


def _taken(value: Any, places: np.ndarray) -> Any:
    if isinstance(value, Tensor):
        return value[torch.from_numpy(places).to(value.device)]
    if isinstance(value, np.ndarray):
        return value[places]
    if isinstance(value, dict):
        keys, entries = list(value), list(value.values())
        return dict(zip(keys, (entries[int(i)] for i in places), strict=True))
    if _is_frame(value):
        moved = value.take(places)
        moved.index = value.index
        return moved
    return _Elsewhere(value, places)


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


def _entries(value: Any) -> tuple[int, str]:
    """How many entries, and what they are: "rows", "values", "numbers"; "" for no container."""
    if isinstance(value, Tensor | np.ndarray):
        if value.ndim == 0:
            return 0, ""
        whole = not (
            value.is_floating_point() if isinstance(value, Tensor) else value.dtype.kind in "fcOUS"
        )
        kind = "rows" if value.ndim > 1 else "numbers" if whole else "values"
        return len(value), kind
    if isinstance(value, list | tuple | dict):
        first = next(iter(value.values() if isinstance(value, dict) else value), None)
        plain = (
            "numbers"
            if isinstance(first, int)
            else "values"
            if isinstance(first, float)
            else "rows"
        )
        return len(value), "" if first is None else plain
    if _is_frame(value):
        return len(value), "rows"
    return (len(value), "rows") if _is_dataset(value) else (0, "")


def _is_frame(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "take")


def _is_dataset(value: Any) -> bool:
    """A map-style data set: rows by number."""
    known = isinstance(value, torch.utils.data.Dataset) or hasattr(value, "__dict__")
    sized = hasattr(type(value), "__len__") and hasattr(type(value), "__getitem__")
    return (
        known
        and sized
        and not isinstance(value, type | nn.Module | Mapping | list | tuple | Tensor | np.ndarray)
        and not _is_frame(value)
    )


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return value.nbytes if isinstance(value, np.ndarray) else 0


def _array_copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else np.array(value)


def _walk(root: object) -> Iterator[tuple[Path, Any]]:
    """Everything that can be seen, each once, nearest first."""
    seen: set[int] = set()
    waiting: list[tuple[Path, Any]] = [((), root)]
    for path, value in waiting:  # grows while it is read
        if id(value) in seen or len(seen) > _MANY:
            continue
        seen.add(id(value))
        yield path, value
        if len(path) < _DEEP:
            waiting += [((*path, step), held) for step, held in _parts(value)]


def _parts(value: Any) -> _Parts:
    """What a thing holds, and the step that leads there."""
    if isinstance(value, (*_PLAIN, Tensor, np.ndarray)) or _is_frame(value):
        return []
    if isinstance(value, list | tuple):
        return [(("item", i), held) for i, held in enumerate(value)] if len(value) <= _FEW else []
    if isinstance(value, dict):
        return [(("item", k), held) for k, held in value.items()] if len(value) <= _FEW else []
    if isinstance(value, functools.partial):
        return [
            (("func", "func"), value.func),
            (("args", "args"), value.args),
            (("args", "keywords"), value.keywords),
        ]
    if isinstance(value, MethodType):
        return [(("self", "self"), value.__self__)]
    if isinstance(value, FunctionType):
        return _variables(value)
    return _attributes(value)


def _variables(function: FunctionType) -> _Parts:
    """The free variables of a function, and the globals that it names and that may hold rows."""
    if _library(function.__module__):
        return []
    names = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found = [(("free", name), cell.cell_contents) for name, cell in names if _filled(cell)]
    for name in sorted(_named(function.__code__)):
        held = function.__globals__.get(name)
        if isinstance(held, _GENERATORS) or _holds(held):
            found.append((("global", name), held))
    return found


def _named(code: CodeType) -> set[str]:
    """The names that a function's code, and the code inside it, looks up."""
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return set(code.co_names).union(*(_named(const) for const in inner))


def _filled(cell: CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _holds(value: Any) -> bool:
    """Whether a global may hold rows, or be a function that does."""
    if isinstance(value, FunctionType):
        return not _library(value.__module__)
    return _entries(value)[0] > 1


def _attributes(value: Any) -> _Parts:
    if _library(type(value).__module__) and not isinstance(value, torch.utils.data.Dataset):
        return []
    found: dict[tuple[str, Any], Any] = {}
    for kind in reversed(type(value).__mro__):
        if _library(kind.__module__) or kind is object:
            continue
        for name, held in vars(kind).items():
            if isinstance(held, FunctionType):
                if _variables(held):
                    found["method", name] = held
            elif not name.startswith("__") and isinstance(
                held, list | dict | tuple | Tensor | np.ndarray
            ):
                found["attribute", name] = held
    slots = [s for kind in type(value).__mro__ for s in _listed(vars(kind).get("__slots__", ()))]
    found |= {("attribute", s): getattr(value, s) for s in slots if hasattr(value, s)}
    found |= {("attribute", name): held for name, held in getattr(value, "__dict__", {}).items()}
    return list(found.items())


def _listed(slots: Any) -> list[str]:
    return [slots] if isinstance(slots, str) else list(slots)


def _library(module: str | None) -> bool:
    top = (module or "").partition(".")[0]
    return top in _LIBRARIES or (top in sys.stdlib_module_names and top != "__main__")


class _Copy:
    """One copy of a data set; what is held twice stays one thing."""

    def __init__(self, change: Mapping[Path, Callable[[Any], Any]]) -> None:
        self._change = change
        self._made: dict[int, Any] = {}
        self._kept: list[Any] = []  # so that no number is used again

    def of(self, value: Any, path: Path) -> Any:
        if id(value) in self._made:
            return self._made[id(value)]
        self._kept.append(value)
        made = self._copied(value, path)
        if path in self._change:
            made = self._change[path](made)
        self._made[id(value)] = made
        return made

    def _copied(self, value: Any, path: Path) -> Any:
        parts = _parts(value) if len(path) < _DEEP else []
        if isinstance(value, set | deque):
            return copy.copy(value)
        if isinstance(value, list | dict):
            made = self._made[id(value)] = copy.copy(value)
            for (_, key), held in parts:
                made[key] = self.of(held, (*path, ("item", key)))
            return made
        if not parts:
            return value
        if isinstance(value, FunctionType):
            return self._function(value, path, parts)
        held = {
            step[1]: self.of(part, (*path, step)) for step, part in parts if step[0] != "method"
        }
        if isinstance(value, tuple):
            entries = list(held.values())
            return type(value)(*entries) if hasattr(value, "_fields") else tuple(entries)
        if isinstance(value, functools.partial):
            return functools.partial(held["func"], *held["args"], **held["keywords"])
        if isinstance(value, MethodType):
            return MethodType(value.__func__, held["self"])
        return self._object(value, path, parts)

    def _function(self, value: FunctionType, path: Path, parts: _Parts) -> Any:
        self._made[id(value)] = value  # where it names itself
        made = {step: self.of(held, (*path, step)) for step, held in parts}
        if all(made[step] is held for step, held in parts):
            return value
        named = {name: held for (kind, name), held in made.items() if kind == "global"}
        names = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        cells = tuple(
            CellType(made["free", name]) if ("free", name) in made else cell for name, cell in names
        )
        scope = {**value.__globals__, **named} if named else value.__globals__
        other = FunctionType(value.__code__, scope, value.__name__, value.__defaults__, cells)
        other.__kwdefaults__ = value.__kwdefaults__
        return other

    def _object(self, value: Any, path: Path, parts: _Parts) -> Any:
        kind = type(value)
        try:
            made = object.__new__(kind)
        except TypeError:  # it is made in C, and shared
            return value
        self._made[id(value)] = made
        methods: dict[str, Any] = {}
        for step, part in parts:
            held = self.of(part, (*path, step))
            if step[0] != "method":
                object.__setattr__(made, step[1], held)
            elif held is not part:
                methods[step[1]] = held
        if methods:
            scope = {"__module__": kind.__module__, "__slots__": (), **methods}
            object.__setattr__(made, "__class__", type(kind.__name__, (kind,), scope))
        return made

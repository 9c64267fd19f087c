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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import CellType, CodeType, FunctionType, MappingProxyType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nacre.integrations.containers import (
    RAW,
    Entries,
    array_copy,
    bytes_of,
    entries,
    held_in,
    is_dataset,
    is_frame,
)

Path = tuple[tuple[str, Any], ...]
"""From a data set to something that it holds: an attribute, an item, a variable, one after the
other."""

_Parts = list[tuple[tuple[str, Any], Any]]

_FEW = 64  # entries of a list or dict that is looked into
_DEEP = 6  # steps from the data set
_MANY = 4000  # things that are looked at
_ARRAYS = 1 << 30  # bytes of arrays that are copied for a trial

_LOOKED_INTO = (torch.utils.data.Dataset, nn.Module)  # whatever library they are of
_OF_MODULES = ("_parameters", "_buffers")  # a table of something else there is no container of rows

_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_PLAIN = (str, int, float, complex, bool, type(None), type, *RAW, *_GENERATORS)
_LIBRARIES = {"torch", "numpy", "pandas", "transformers", "tokenizers", "nacre"}


@dataclass(frozen=True)
class RowStore:
    """A container of a data set that holds an entry for each row."""

    path: Path
    how: Entries

    @property
    def size(self) -> int:
        """Entries."""
        return self.how.count

    @property
    def numbers(self) -> bool:
        """Whole numbers, which may say where rows are, rather than what they hold."""
        return self.how.kind == "numbers"

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
    return [held for path, held in _walk(dataset) if path and is_dataset(held)]


def is_large(dataset: Any) -> bool:
    """Whether its arrays take more than a gibibyte, so that none of them is copied."""
    return sum(bytes_of(value) for _, value in _walk(dataset)) > _ARRAYS


def stores(dataset: Any) -> list[RowStore]:
    """The containers with an entry for each row, or with more; plain numbers only where they are
    one a row."""
    rows = len(dataset)
    found: list[RowStore] = []
    for path, value in _walk(dataset):
        if not path and not isinstance(value, list):
            continue
        how = entries(value, rows)
        exactly = how.kind != "rows" or any(name in _OF_MODULES for _, name in path)
        if how.kind and how.count >= max(2, rows) and (how.count == rows or not exactly):
            found.append(RowStore(path, how))
    return found


def sandbox(dataset: object) -> Any:
    """A copy whose caches are its own, arrays too where they are not large: nothing that is
    fetched from it is kept by the data set."""
    arrays = [path for path, value in _walk(dataset) if isinstance(value, Tensor | np.ndarray)]
    return changed(dataset, dict.fromkeys([] if is_large(dataset) else arrays, array_copy))


def changed(dataset: object, change: Mapping[Path, Callable[[Any], Any]]) -> Any:
    """A copy in which what lies at these paths is another. Lists and dicts are copied, what they
    hold is shared, and so are arrays."""
    return _Copy(change).of(dataset, ())


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
    if isinstance(value, (*_PLAIN, Tensor, np.ndarray)) or is_frame(value):
        return []
    if isinstance(value, list | tuple | deque):
        held = held_in(value)
        return [(("item", i), one) for i, one in enumerate(held)] if len(held) <= _FEW else []
    if isinstance(value, dict | MappingProxyType):
        held = held_in(value)
        keys = list(value) if len(held) <= _FEW else []
        return [(("item", k), one) for k, one in zip(keys, held, strict=False)]
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
    for name, held in _defaults(function).items():
        if isinstance(held, _GENERATORS) or _holds(held):
            found.append((("default", name), held))
    for name in sorted(_named(function.__code__)):
        held = function.__globals__.get(name)
        if isinstance(held, _GENERATORS) or _holds(held):
            found.append((("global", name), held))
    return found


def _defaults(function: FunctionType) -> dict[str, Any]:
    """What arguments are where nobody gives them."""
    code, held = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(held) : code.co_argcount]
    return {**dict(zip(names, held, strict=True)), **(function.__kwdefaults__ or {})}


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
    return not isinstance(value, str) and entries(value, 2).count > 1


def _attributes(value: Any) -> _Parts:
    if _library(type(value).__module__) and not isinstance(value, _LOOKED_INTO):
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


def _copied_or_shared(value: Any) -> Any:
    """A container of the same class; the same one where a class of somebody's fails at that."""
    try:
        return copy.copy(value)
    except Exception:
        return value


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
        if isinstance(value, set):
            return _copied_or_shared(value)
        if isinstance(value, MappingProxyType):
            return MappingProxyType(
                {**value, **{step[1]: self.of(held, (*path, step)) for step, held in parts}}
            )
        if isinstance(value, list | dict | deque):
            made = self._made[id(value)] = _copied_or_shared(value)
            if made is value:
                return value
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
        given = {name: made.get(("default", name), held) for name, held in _defaults(value).items()}
        named_alone = list(value.__kwdefaults__ or {})
        defaults = tuple(held for name, held in given.items() if name not in named_alone)
        other = FunctionType(value.__code__, scope, value.__name__, defaults, cells)
        other.__kwdefaults__ = {name: given[name] for name in named_alone}
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

"""The names by which the calls of a forward pass are told again, on trial and on every batch."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from torch import Tensor

from nacre.gradient_clipping.tape.flow import Moved
from nacre.gradient_clipping.tape.followed import ANSWERS, POINTWISE

CallKey = tuple[str, tuple[str, ...], int]
"""Function, parameters that it takes, and how many times it has taken them before."""


MoveKey = tuple[str, tuple[tuple[int, int | None], ...], int]
"""Function, the axes of what it moves and along which, and how many times it has done so before."""


@dataclass
class Counter:
    """Names the calls of a forward pass, the same way each time."""

    seen: dict[tuple[str, tuple[str, ...]], int] = field(default_factory=dict)

    def key(self, function: Any, names: tuple[str, ...]) -> CallKey:
        """The key of the next call of this function on these parameters."""
        name = function_name(function)
        number = self.seen.get((name, names), 0)
        self.seen[(name, names)] = number + 1
        return name, names, number


@dataclass
class CallPath:
    """Which calls a forward pass made, in order, but for those that act entry by entry."""

    digest: int = 0

    def add(self, name: str) -> None:
        """One more call."""
        if name not in POINTWISE and name not in ANSWERS:
            self.digest = hash((self.digest, name))


@dataclass
class MoveCounter:
    """Names the calls that move something by values, the same way each time."""

    seen: dict[Any, int] = field(default_factory=dict)

    def key(self, function: Any, moved: Sequence[Moved]) -> MoveKey:
        """The key of the next such call of this function."""
        kind = function_name(function), tuple((t.dim(), axis) for t, axis in moved)
        number = self.seen.get(kind, 0)
        self.seen[kind] = number + 1
        return *kind, number


ALIKE = {Tensor.type_as, Tensor.to, Tensor.view_as, Tensor.expand_as, Tensor.reshape_as}
"""Functions that take no more than a type or a shape from what follows their first argument."""


def numbers_alone(result: Any) -> Any:
    """Numbers as they are, to be compared; anything else differs from everything."""
    return result if isinstance(result, bool | int | float | list) else object()


def in_place(function: Any) -> Callable[..., Any] | None:
    """The same function without the write, for one that writes into its first argument."""
    if function is Tensor.__setitem__:
        return _set
    if not writes(function):
        return None
    name = function_name(function)
    plain = f"__{name[3:]}" if name.endswith("__") else name[:-1]
    return getattr(Tensor, plain, None)


def writes(function: Any) -> bool:
    """Whether a function writes into its first argument."""
    name = function_name(function)
    if name.endswith("__"):
        return name.startswith("__i") and name not in ("__int__", "__index__", "__invert__")
    return name.endswith("_") and not name.startswith("_")


def _set(target: Tensor, index: Any, value: Any) -> Tensor:
    result = target.clone()
    result[index] = value
    return result


@lru_cache(maxsize=4096)
def function_name(function: Any) -> str:
    """`linear` of a function, `T` of a property's getter."""
    name = str(getattr(function, "__name__", function))
    return str(function.__self__.__name__) if name == "__get__" else name


def names_of(found: Any) -> tuple[str, ...]:
    """The parameters that the arguments of a call stem from, each once, in order."""
    names: dict[str, None] = {}
    for some in found:
        for name in some or ():
            names[name] = None
    return tuple(names)

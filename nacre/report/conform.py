"""Does a JSON value have the shape that a type declares? The types are those of `facts`."""

from __future__ import annotations

from functools import cache
from types import UnionType
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints
from typing import is_typeddict as is_record

_PLAIN = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def conform(value: Any, hint: Any, where: str = "") -> None:
    """Raises `ValueError` naming the first place where `value` is not of the type `hint`.

    Understands `TypedDict`, `list`, `dict`, unions, `Literal`, `Any` and plain JSON types. Keys
    that a `TypedDict` does not know are let through.

    >>> conform([1, 2.5], list[float])
    >>> conform({"a": [1, "x"]}, dict[str, list[float]], "sizes")
    Traceback (most recent call last):
        ...
    ValueError: `sizes.a[1]` should be a number
    """
    if not _fits(value, hint):
        raise ValueError(f"`{where or 'the whole'}` should be {_words(hint)}")
    origin = get_origin(hint)
    if is_record(hint):
        _record(value, hint, where)
    elif origin is list:
        for place, entry in enumerate(value):
            conform(entry, get_args(hint)[0], f"{where}[{place}]")
    elif origin is dict:
        for name, entry in value.items():
            conform(entry, get_args(hint)[1], _key(where, name))
    elif origin in (Union, UnionType):
        conform(value, next(kind for kind in get_args(hint) if _fits(value, kind)), where)


def _record(value: dict[str, Any], hint: Any, where: str) -> None:
    for name, kind in fields(hint).items():
        optional = get_origin(kind) is NotRequired
        if name in value:
            conform(value[name], get_args(kind)[0] if optional else kind, _key(where, name))
        elif not optional:
            raise ValueError(f"`{_key(where, name)}` is missing")


@cache
def fields(hint: Any) -> dict[str, Any]:
    """The keys of a `TypedDict` and their types, `NotRequired` kept."""
    return get_type_hints(hint, include_extras=True)


def _key(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _fits(value: Any, hint: Any) -> bool:
    """Whether the value is of this type at its own level; what it contains comes later."""
    origin = get_origin(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, kind) for kind in get_args(hint))
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, dict if is_record(hint) else origin or hint)


def _words(hint: Any) -> str:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return " or ".join(_words(kind) for kind in get_args(hint))
    if origin is Literal:
        return " or ".join(repr(choice) for choice in get_args(hint))
    if origin is list:
        return "a list"
    return "null" if hint is type(None) else _PLAIN.get(hint, "an object")

"""Option dataclasses, read by pydantic: what their types allow, and nothing else.

The techniques' options are plain dataclasses that know nothing of pydantic. Their type hints say
all that is needed: `kind` chooses among the members of a union, an unknown key is refused at
every level, and a value is taken only if it has the declared type (a whole number counts as a
number, nothing else is converted). Defaults and `__post_init__` are the dataclass's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache, partial
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic_core import CoreSchema, SchemaValidator, core_schema

LARGEST = 3e38
"""The largest number a recipe may hold: tensors of 32 bits turn more into infinity."""

Hint = Any
"""A resolved type hint; Python has no common type for them."""

_SCALARS: dict[Hint, CoreSchema] = {
    str: core_schema.str_schema(strict=True),
    int: core_schema.int_schema(strict=True),
    float: core_schema.float_schema(strict=True, allow_inf_nan=False, ge=-LARGEST, le=LARGEST),
    bool: core_schema.bool_schema(strict=True),
    Any: core_schema.any_schema(),
}


@cache
def keys(option: type) -> dict[str, Hint]:
    """Key -> hint of everything that may be written. Fields left out of `==` are no content."""
    hints = get_type_hints(option)
    return {field.name: hints[field.name] for field in dataclasses.fields(option) if field.compare}


def required(option: type, key: str) -> bool:
    """Whether a key has no default."""
    field = {field.name: field for field in dataclasses.fields(option)}[key]
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def without_none(hint: Hint) -> tuple[Hint, bool]:
    """The hint without None, and whether None was allowed.

    >>> without_none(int | None)
    (<class 'int'>, True)
    """
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    rest = tuple(member for member in members if member is not NoneType)
    return Union[rest], len(rest) < len(members)  # noqa: UP007 - the members are known at run time


def options(hint: Hint) -> tuple[type, ...]:
    """The option classes that a hint allows; () where it is no option."""
    hint, _ = without_none(hint)
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return members if all(dataclasses.is_dataclass(member) for member in members) else ()


def forms(hint: Hint) -> dict[str, Hint]:
    """How a value that is a list, or keys and values instead, may be written: `list` and `keys` ->
    the hint of each; {} where there is no such choice.

    >>> forms(tuple[str, ...] | None)
    {}
    """
    hint, _ = without_none(hint)
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else ()
    named = {_form(member): member for member in members}
    return named if named.keys() == {"list", "keys"} else {}


def _form(hint: Hint) -> str:
    return "list" if get_origin(hint) is tuple else "keys" if options(hint) else ""


def _form_of(value: Any) -> str:
    return "keys" if isinstance(value, Mapping) else "list"


def kinds(classes: tuple[type, ...]) -> dict[str, type]:
    """What `kind` may be -> the class that it names."""
    return {kind: option for option in classes for kind in get_args(keys(option).get("kind"))}


def usual_kind(classes: tuple[type, ...]) -> str | None:
    """The kind that is meant where none is written: the default of a first class that has several
    kinds, as a ball has three norms; None where one has to be written.
    """
    first = classes[0]
    if len(get_args(keys(first).get("kind"))) < 2 or required(first, "kind"):
        return None
    (kind,) = (field.default for field in dataclasses.fields(first) if field.name == "kind")
    return str(kind)


def _kind_or(usual: str) -> Callable[[Any], str]:
    """Reads the kind that a value names, or the usual one, which also judges what has no keys."""

    def named(value: Any) -> str:
        return str(value.get("kind", usual)) if isinstance(value, Mapping) else usual  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]

    return named


def inside(hint: Hint, part: str | int) -> Hint:
    """The hint of a key or an entry inside a value of this hint; `Any` where there is none."""
    hint, _ = without_none(hint)
    if written := forms(hint):
        hint = written["list" if isinstance(part, int) else "keys"]
    if classes := options(hint):
        return keys(classes[0]).get(str(part), Any)
    arguments = get_args(hint)
    if get_origin(hint) is tuple:
        return arguments[0]
    return arguments[1] if get_origin(hint) is dict else Any


@cache
def validator(option: type) -> SchemaValidator:
    """Reads a mapping as this option. Its errors name the place by keys, entries and kinds."""
    return SchemaValidator(_option(option))


def _schema(hint: Hint) -> CoreSchema:
    bare, optional = without_none(hint)
    schema = _SCALARS[bare] if bare in _SCALARS else _composite(bare)
    return core_schema.nullable_schema(schema) if optional else schema


def _composite(hint: Hint) -> CoreSchema:
    if written := forms(hint):
        choices: dict[Any, CoreSchema] = {name: _schema(each) for name, each in written.items()}
        return core_schema.tagged_union_schema(choices, discriminator=_form_of)
    classes = options(hint)
    if len(classes) == 1:
        return _option(classes[0])
    if classes:
        choices = {kind: _option(option) for kind, option in kinds(classes).items()}
        usual = usual_kind(classes)
        tag = "kind" if usual is None else _kind_or(usual)
        return core_schema.tagged_union_schema(choices, discriminator=tag)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return core_schema.literal_schema(list(arguments))
    if origin is tuple:
        return core_schema.tuple_schema([_schema(arguments[0])], variadic_item_index=0)
    if origin is dict:
        return core_schema.dict_schema(core_schema.str_schema(), _schema(arguments[1]))
    raise TypeError(f"no recipe can hold a value of type {hint}")


def _option(option: type) -> CoreSchema:
    fields = {
        key: core_schema.typed_dict_field(_schema(hint), required=required(option, key))
        for key, hint in keys(option).items()
    }
    read = core_schema.typed_dict_schema(fields, extra_behavior="forbid")
    return core_schema.no_info_after_validator_function(partial(_made, option), read)


def _made(option: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    return option(**values)


def content(value: Any) -> Any:
    """An option as plain values: what one would write in YAML to get it again.

    Everything is written out, so that a version with other defaults reads the same; a None that
    is the default anyway is left out.
    """
    if dataclasses.is_dataclass(value):
        return {
            field.name: content(inner)
            for field in dataclasses.fields(value)
            if field.compare
            and ((inner := getattr(value, field.name)) is not None or field.default is not None)
        }
    if isinstance(value, list | tuple):
        return [content(inner) for inner in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {key: content(inner) for key, inner in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return value

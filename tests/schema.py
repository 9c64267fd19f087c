"""A validator of JSON Schema, draft 2020-12, for the keywords that the schemas in docs/formats use.

A keyword that it does not know raises, so no schema says what nobody enforces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
}
_ANNOTATIONS = {"$schema", "$defs", "title", "description"}


def faults(value: Any, schema: Any, root: dict[str, Any], where: str = "$") -> Iterator[str]:
    """What is wrong with a value, place by place; nothing where it fits the schema."""
    if isinstance(schema, bool):
        if not schema:
            yield f"{where} may not be there"
        return
    for keyword in sorted(schema.keys() - _ANNOTATIONS):
        yield from _KEYWORDS[keyword](value, schema, root, where)


def _ref(value: Any, schema: Any, root: Any, where: str) -> Iterator[str]:
    found = root
    for part in schema["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    yield from faults(value, found, root, where)


def _any_of(value: Any, schema: Any, root: Any, where: str) -> Iterator[str]:
    if all(any(faults(value, choice, root, where)) for choice in schema["anyOf"]):
        yield f"{where} is none of what it may be"


def _type(value: Any, schema: Any, root: Any, where: str) -> Iterator[str]:
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_TYPES[name](value) for name in names):
        yield f"{where} is no {' or '.join(names)}"


def _enum(value: Any, schema: Any, root: Any, where: str) -> Iterator[str]:
    if not any(_same(value, choice) for choice in schema["enum"]):
        yield f"{where} is none of {schema['enum']}"


def _const(value: Any, schema: Any, root: Any, where: str) -> Iterator[str]:
    if not _same(value, schema["const"]):
        yield f"{where} is not {schema['const']!r}"


def _same(value: Any, other: Any) -> bool:
    """Equality of JSON: true is not 1."""
    return isinstance(value, bool) == isinstance(other, bool) and value == other


def _required(value: Any, schema: Any, root: Any, where: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (
            f"{where}.{name} is missing" for name in schema["required"] if name not in value
        )


def _properties(value: Any, schema: Any, root: Any, where: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name in value.keys() & schema["properties"].keys():
            inner = schema["properties"][name]
            yield from faults(value[name], inner, root, f"{where}.{name}")


def _additional(value: Any, schema: Any, root: Any, where: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name in value.keys() - schema.get("properties", {}).keys():
            yield from faults(value[name], schema["additionalProperties"], root, f"{where}.{name}")


def _items(value: Any, schema: Any, root: Any, where: str) -> Iterator[str]:
    if isinstance(value, list):
        for place, entry in enumerate(value):
            yield from faults(entry, schema["items"], root, f"{where}[{place}]")


def _text(value: Any, schema: Any, root: Any, where: str) -> Iterator[str]:
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            yield f"{where} is too short"
        if not re.search(schema.get("pattern", ""), value):
            yield f"{where} does not match {schema['pattern']}"


def _range(value: Any, schema: Any, root: Any, where: str) -> Iterator[str]:
    if _TYPES["number"](value) and not (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
        and schema.get("exclusiveMinimum", value - 1) < value
        and value < schema.get("exclusiveMaximum", value + 1)
    ):
        yield f"{where} lies outside of its range"


_KEYWORDS: dict[str, Callable[..., Iterator[str]]] = {
    "$ref": _ref,
    "anyOf": _any_of,
    "type": _type,
    "enum": _enum,
    "const": _const,
    "required": _required,
    "properties": _properties,
    "additionalProperties": _additional,
    "items": _items,
    "minLength": _text,
    "pattern": _text,
    "minimum": _range,
    "maximum": _range,
    "exclusiveMinimum": _range,
    "exclusiveMaximum": _range,
}

"""The JSON Schema of a type: `conform` in a form that other programs can read."""

from __future__ import annotations

from types import UnionType
from typing import Any, Literal, NotRequired, Union, get_args, get_origin
from typing import is_typeddict as is_record

from nacre.report.conform import fields

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PLAIN = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
}


def schema(hint: Any, title: str) -> dict[str, Any]:
    """The schema (draft 2020-12) of a `TypedDict`; the records in it are definitions of their own.

    It allows what `conform` allows: keys that a record does not know are let through.
    """
    records: dict[str, Any] = {}
    root = _of(hint, records)
    return {"$schema": DIALECT, "title": title, **root, "$defs": dict(sorted(records.items()))}


def _of(hint: Any, records: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type; records that it meets are added to `records`, once each."""
    origin = get_origin(hint)
    if hint is Any:
        return {}
    if is_record(hint):
        if hint.__name__ not in records:
            records[hint.__name__] = {}  # a record may hold itself
            records[hint.__name__] = _record(hint, records)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if origin is list:
        return {"type": "array", "items": _of(get_args(hint)[0], records)}
    if origin is dict or hint is dict:
        inner = get_args(hint)
        return {"type": "object", "additionalProperties": _of(inner[1], records) if inner else True}
    if origin in (Union, UnionType):
        return {"anyOf": [_of(kind, records) for kind in get_args(hint)]}
    if origin is Literal:
        return {"enum": list(get_args(hint))}
    return dict(_PLAIN[hint])


def _record(hint: Any, records: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, kind in fields(hint).items():
        optional = get_origin(kind) is NotRequired
        properties[name] = _of(get_args(kind)[0] if optional else kind, records)
        if not optional:
            required.append(name)
    text = " ".join((hint.__doc__ or "").split())
    return {
        "description": text,
        "type": "object",
        "properties": properties,
        "required": required,
    }

"""What server and parties have to agree on: all that a recipe says, but for what is each side's
own affair."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

from nacre.core.strict import canonical
from nacre.models.callables import PythonModel, files_beside
from nacre.planning.protection import protections_of
from nacre.recipe.options import content
from nacre.recipe.schema import Recipe

_OWN = ("ledger", "execution")
"""Sections that each side fills in by itself: who pays, and how the work is done."""


def agreed_digest(recipe: Recipe) -> str:
    """Hex SHA-256 of what the recipe says, without the ledger, the execution, and where data lie;
    and of the code beside it that its model comes from (`files_beside`).

    The accountant counts with its name, since a ledger's rule may have chosen it. Two parties with
    files and ledgers of their own have the same digest where they would train the same.
    """
    said: Any = content(recipe)
    protections = protections_of(recipe)
    shared = {key: value for key, value in said.items() if key not in _OWN}
    shared["data"] = _without_paths(recipe.data, shared["data"])
    if isinstance(recipe.model, PythonModel):
        shared["code"] = {
            file.relative_to(recipe.folder).as_posix(): hashlib.sha256(
                file.read_bytes()
            ).hexdigest()
            for file in files_beside(recipe.model, recipe.folder)
        }
    shared["accountant"] = protections[0].accountant if protections else None
    if len(protections) > 1:
        shared["accountant within parties"] = protections[1].accountant
    return hashlib.sha256(b"nacre federation" + canonical(_plain(shared)).encode()).hexdigest()


def _without_paths(option: Any, said: Any) -> Any:
    """What an option says, without the files that it and the options in it name. Names that the
    recipe chooses itself are no fields: a column may well be called `path`."""
    if dataclasses.is_dataclass(option):
        fields: dict[str, Any] = said
        return {
            key: _without_paths(getattr(option, key), each)
            for key, each in fields.items()
            if key != "path"
        }
    if isinstance(option, dict):
        inner: dict[str, Any] = option
        return {key: _without_paths(each, said[key]) for key, each in inner.items()}
    return said


def _plain(value: Any) -> Any:
    """`lr: 1` and `lr: 1.0` are the same recipe, as in `recipe_digest`."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [_plain(inner) for inner in value]  # pyright: ignore[reportUnknownVariableType]
    return int(value) if isinstance(value, float) and value.is_integer() else value

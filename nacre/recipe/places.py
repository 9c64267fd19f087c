"""Refusals that point at the recipe: file, line and key in front of the message."""

from __future__ import annotations

from typing import NoReturn

from nacre.core.errors import Incompatible, Refusal
from nacre.recipe.schema import Recipe


def refuse(recipe: Recipe, key: str, message: str, kind: type[Refusal] = Incompatible) -> NoReturn:
    """Raises `kind` with the place of `key` in front of the message."""
    raise kind(placed(recipe, key, message))


def placed(recipe: Recipe, key: str, message: str) -> str:
    """The message, with the place of `key` in the recipe in front of it."""
    file, line = recipe.where(key)
    place = f"{file}:{line} " if file is not None and line is not None else ""
    return f"{place}`{key}`: {message}"

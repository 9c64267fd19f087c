"""pydantic's errors as sentences with file, line, key and remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import date
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

from pydantic_core import ErrorDetails

from nacre.core.errors import RecipeError
from nacre.recipe.document import Document, LinePlace, key_path
from nacre.recipe.options import Hint, forms, inside, keys, kinds, options, without_none

MOST_TOLD = 20
"""Faults of one file in one error."""


def mistakes(errors: list[ErrorDetails], document: Document, root: type) -> RecipeError:
    """What is wrong, from the top; then what is missing. The first is the error, which carries the
    others.

    A misspelt key is wrong and missing at once, and counts as wrong alone.
    """
    found = [(error["type"] == "missing", _mistake(error, document, root)) for error in errors]
    misspelt = {_meant(error, root) for error in errors if error["type"] == "extra_forbidden"}
    told = sorted(
        ((missing, e) for missing, e in found if not (missing and e.key in misspelt)),
        key=lambda pair: (pair[0], pair[1].line or 0),
    )
    first, others = told[0][1], [str(error) for _, error in told[1:]]
    if len(others) >= MOST_TOLD:
        left = len(others) - (MOST_TOLD - 1)
        others = [*others[: MOST_TOLD - 1], f"and {left} more; mend these first"]
    return RecipeError(
        first.message, file=first.file, line=first.line, key=first.key, others=tuple(others)
    )


def _meant(error: ErrorDetails, root: type) -> str:
    """The path of the key that an unknown one probably stands for; its own where none is near."""
    place, hints = _walked(error["loc"], root)
    near = get_close_matches(str(place[-1]), keys(options(hints[-2])[0]), n=1, cutoff=_NEAR)
    return key_path((*place[:-1], *near)) if near else key_path(place)


_NEAR = 0.6  # of difflib's ratio: from here on a word counts as misspelt


def nearest(word: str, known: Iterable[str], count: int = 8) -> str:
    """The remedy for a word that is not known: the nearest one, or all where they are few.

    >>> nearest("epsilom", ["epsilon", "delta"])
    'did you mean `epsilon`?'
    >>> nearest("x", ["epsilon", "delta"])
    'use one of `epsilon`, `delta`'
    """
    names = list(known)
    near = get_close_matches(word, names, n=1, cutoff=_NEAR)
    if near:
        return f"did you mean `{near[0]}`?"
    listed = ", ".join(f"`{name}`" for name in names[:count])
    return f"use one of {listed}" + (", …" if len(names) > count else "")


def type_words(hint: Hint) -> str:
    """A type as a person would say it.

    >>> type_words(tuple[int, ...]), type_words(float | None)
    ('a list, each entry a whole number', 'a number')
    """
    hint, _ = without_none(hint)
    plain = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    if hint in plain:
        return plain[hint]
    if written := forms(hint):
        (inner,) = options(written["keys"])
        named = ", ".join(f"`{{{key}: …}}`" for key in keys(inner))
        return f"{type_words(written['list'])}, or {named}"
    classes = options(hint)
    if len(classes) > 1:
        return "keys and values with `kind`: " + _listed(kinds(classes))
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ("one of " if len(arguments) > 1 else "") + _listed(arguments)
    if origin is tuple:
        return f"a list, each entry {type_words(arguments[0])}"
    if origin is dict and arguments[1] is not Any:
        return f"names, each with {type_words(arguments[1])}"
    return "any value" if hint is Any else "keys and values"


def _listed(words: Iterable[Any]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _mistake(error: ErrorDetails, document: Document, root: type) -> RecipeError:
    place, hints = _walked(error["loc"], root)
    owner, hint = hints[-2] if len(hints) > 1 else root, hints[-1]
    given: Any = error["input"]
    match error["type"]:
        case "extra_forbidden":
            known = keys(options(owner)[0])
            return document.error(place, f"is no key here; {nearest(str(place[-1]), known)}")
        case "missing":
            return document.error(place, f"is missing; it takes {type_words(hint)}")
        case "union_tag_not_found":
            listed = _listed(kinds(options(hint)))
            return document.error(place, f"needs `kind`, one of {listed}")
        case "union_tag_invalid":
            word, known = str(given["kind"]), kinds(options(hint))
            return document.error(
                (*place, "kind"), f"{_short(word)} is unknown; {nearest(word, known)}"
            )
        case "literal_error" if isinstance(given, str):
            known = [str(word) for word in get_args(without_none(hint)[0])]
            return document.error(place, f"{_short(given)} is unknown; {nearest(given, known, 12)}")
        case "value_error":
            return _from_option(str(error.get("ctx", {})["error"]), place, document)
        case "greater_than_equal" | "less_than_equal":
            return document.error(place, f"{given} is beyond any number here; write a smaller one")
        case _:
            return document.error(place, f"must be {type_words(hint)}, not {_given(given, hint)}")


def _walked(loc: tuple[str | int, ...], root: type) -> tuple[LinePlace, list[Hint]]:
    """(the place, the hints on the way to it). pydantic's locations name kinds as well as keys."""
    place: list[str | int] = []
    hints: list[Hint] = [root]
    for number, part in enumerate(loc, 1):
        classes, written = options(hints[-1]), forms(hints[-1])
        if written:  # of a value that is neither, both are named
            hints[-1] = written[str(part)] if number < len(loc) else hints[-1]
        elif len(classes) > 1:
            hints[-1] = kinds(classes)[str(part)]
        else:
            place.append(part)
            hints.append(inside(hints[-1], part))
    return tuple(place), hints


def _from_option(message: str, place: LinePlace, document: Document) -> RecipeError:
    """What an option says of its own values; it begins with the key to blame, if there is one, as
    `norm=0 must …`, or as `queries.1.name: …` where it is an entry's."""
    word = re.split(r"[^\w.]", message, maxsplit=1)[0]
    blamed = (*place, *(int(part) if part.isdigit() else part for part in word.split(".")))
    if not document.has(blamed):
        return document.error(place, message)
    return document.error(blamed, message.removeprefix(f"{word}: "))


def _given(value: Any, hint: Hint) -> str:
    """What stands there instead, with the remedy where it is known."""
    wanted, _ = without_none(hint)
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower() + ("; write it in quotes" if wanted is str else "")
        case int() | float():
            return f"{value}" + (f'; write "{value}" in quotes' if wanted is str else "")
        case str():
            return f"the text {_short(value)}{_text_remedy(value, wanted)}"
        case list():
            return "a list"
        case _:
            return "keys and values"


def _text_remedy(value: str, wanted: Hint) -> str:
    if wanted is bool:
        return "; write true or false, without quotes"
    if value in kinds(options(wanted)):
        return f"; write `{{kind: {value}}}`"
    if wanted in (int, float) and re.fullmatch(r"\d{4}-\d\d-\d\d", value):  # as `low` of dates
        with suppress(ValueError):
            days = (date.fromisoformat(value) - date(1970, 1, 1)).days
            return f"; as days since 1970-01-01 it is {days}"
    return ""


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")

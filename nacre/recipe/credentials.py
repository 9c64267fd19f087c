"""Texts as they may be handed on: without the credentials that stand in their addresses.

An address is read more widely than a database reads it, since a password is written wherever people
suppose it to belong: all up to the last @ is taken for user and password, also where a /, ? or #
of the password ends what a parser of URLs takes for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import unquote_plus

from nacre.core.errors import RecipeError
from nacre.recipe.document import dump, parse

_ADDRESS = re.compile(r"(?<=://)\S+")
_PAIR = re.compile(r"[?&;#]([^=&;?#\s]*)=")  # the key of a query, and where its value begins
_ENDS = re.compile(r"""['"\]}),]*$""")  # what closes an address in YAML
_SECRET = ("pass", "pwd", "secret", "token", "credential", "signature", "apikey", "api_key")
_WORDS = re.compile(r"(\bpass(?:word|wd)\s*=\s*)('(?:\\.|[^'\\])*'|[^\s&'\"]+)", re.IGNORECASE)
"""What libpq takes instead of a URL: `host=db user=me password=secret`."""


def without_credentials(text: str) -> str:
    """The text with "…" for users, passwords and tokens of its addresses.

    >>> without_credentials("postgresql://me:secret@host/db")
    'postgresql://…@host/db'
    >>> without_credentials("postgresql://host/db?user=me&password=secret")
    'postgresql://host/db?user=me&password=…'
    """
    return _WORDS.sub(r"\1…", _ADDRESS.sub(lambda found: _cut(found[0], "…", 0), text))


def without_password(url: str) -> str:
    """An address that can still be asked: of its user and password the user stays.

    >>> without_password("postgresql://me:secret@host/db?password=secret")
    'postgresql://me@host/db?password='
    """

    def kept(found: re.Match[str]) -> str:
        user = re.match(r"[^:@/?#&]*", found[0])
        return _cut(found[0], "", user.end() if user else 0)

    return _WORDS.sub(r"\1", _ADDRESS.sub(kept, url))


def recipe_without_credentials(text: str) -> str:
    """A recipe with its credentials masked; written anew where they were spread over lines or
    written in escapes, so that no masking of the text finds them."""
    masked = without_credentials(text)
    try:
        clean = _leaves(parse(text.encode(), "recipe.yaml").values)
    except RecipeError:
        return masked
    try:
        return masked if parse(masked.encode(), "recipe.yaml").values == clean else dump(clean)
    except RecipeError:
        return dump(clean)


def _cut(address: str, mark: str, start: int) -> str:
    """The address, which begins after `://`, with `mark` for each secret part of it; the user and
    password count from `start`."""
    parts = list(_values(address))
    at = address.rfind("@")
    if at > start or (at == 0 and mark):
        parts.append((start, at))
    held, done = "", 0
    for begin, end in sorted(parts):
        if end <= done:
            continue
        held += address[done:begin] + mark if begin >= done else ""
        done = end
    return held + address[done:]


def _values(address: str) -> Iterator[tuple[int, int]]:
    """Where the value of each key stands that names a secret, however the key is written."""
    for key in _PAIR.finditer(address):
        name = unquote_plus(key[1]).casefold()
        if any(word in name for word in _SECRET):
            end = address.find("&", key.end())
            if end < 0:
                end = len(address) - len(_ENDS.findall(address)[0])
            yield key.end(), max(key.end(), end)


def _leaves(value: Any) -> Any:
    """The same value, each text in it masked."""
    if isinstance(value, dict):
        return {key: _leaves(inner) for key, inner in cast(dict[str, Any], value).items()}
    if isinstance(value, list):
        return [_leaves(inner) for inner in cast(list[Any], value)]
    return without_credentials(value) if isinstance(value, str) else value

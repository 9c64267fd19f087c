"""Names and lists as YAML that every reader takes for text, whatever they hold."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nacre.recipe.document import FILL

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?: [A-Za-z_][A-Za-z0-9_]*)*")
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n", FILL.lower()})
"""What some version of YAML takes for something else than text."""


def as_name(text: str) -> str:
    """A key or an entry: plain where it can be, or else in quotes, on one line.

    >>> as_name("mean radius"), as_name("yes"), as_name("a: b"), as_name("line\\nbreak")
    ('mean radius', '"yes"', '"a: b"', '"line\\\\nbreak"')
    """
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS and len(text) < 100:
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(sign: str) -> str:
    if sign in '"\\':
        return f"\\{sign}"
    if sign.isprintable():
        return sign
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(sign, f"\\U{ord(sign):08x}")


def as_flow(texts: Iterable[str]) -> str:
    """A list on one line.

    >>> as_flow(["f", "no", "1"])
    '[f, "no", "1"]'
    """
    return f"[{', '.join(map(as_name, texts))}]"

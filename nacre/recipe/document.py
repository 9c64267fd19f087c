"""YAML text as plain values, with the line of every key and of every entry of a list.

PyYAML scans and composes; what a scalar means is decided here by YAML 1.2's core schema, where
`yes` is text and `1e-5` a number. Everything else that YAML can do and a recipe does not need
(tags, cycles, keys that are no text, numbers that are not finite) is refused with its line.
"""

# PyYAML carries no types.
# pyright: reportMissingTypeStubs=false, reportMissingModuleSource=false
# pyright: reportUnknownMemberType=false, reportUntypedBaseClass=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

from yaml import MappingNode, MarkedYAMLError, Node, ScalarNode, SequenceNode
from yaml.composer import Composer
from yaml.emitter import Emitter
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.representer import SafeRepresenter
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner
from yaml.serializer import Serializer

from nacre.core.errors import RecipeError

LARGEST = 1_000_000
"""Bytes that a file may have."""
DEEPEST = 40
"""Levels of lists and keys inside each other."""
MOST = 20_000
"""Values in a file, every alias counted as what it stands for."""
LONGEST = 255
"""Bytes of a text between two slashes: what a file system takes as a name."""

FILL = "FILL"
"""What stands, without quotes, where `nacre init` leaves a value to be filled in."""

_TAG = "tag:yaml.org,2002:"

LinePlace = tuple[str | int, ...]
"""The way to a value: keys, and numbers of entries of lists."""


@dataclass(frozen=True)
class Document:
    """One file's values and where they stand."""

    file: str
    values: dict[str, Any]
    lines: dict[str, int]  # key path -> line, counted from 1
    unfilled: tuple[LinePlace, ...] = ()  # where `FILL` stands without quotes

    def has(self, place: LinePlace) -> bool:
        """Whether something is written at `place`."""
        return key_path(place) in self.lines

    def error(self, place: LinePlace, message: str) -> RecipeError:
        """The error for what stands at `place`, or for its nearest parent that has a line."""
        key = key_path(place)
        while place and not self.has(place):
            place = place[:-1]
        line = self.lines.get(key_path(place), 1)
        return RecipeError(message, file=self.file, line=line, key=key)


def key_path(place: Sequence[str | int]) -> str:
    """How a place is written in messages.

    >>> key_path(("audit", 0, "ball", "radius"))
    'audit[0].ball.radius'
    """
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_bytes(path: Path) -> bytes:
    """What the file holds. Raises `RecipeError` with the system's reason."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RecipeError(
            f"cannot be read ({reason}); name a file that can be read", file=path
        ) from error
    except ValueError as error:  # a NUL in the name
        raise RecipeError(
            f"is no name of a file ({error}); name a file that can be read"
        ) from error
    if len(data) > LARGEST:
        raise RecipeError(f"is larger than {LARGEST} bytes, so it is no recipe", file=path)
    return data


def parse(data: bytes, file: str) -> Document:
    """The values of a YAML mapping. Raises `RecipeError` for anything else."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecipeError("is not UTF-8 text; save it as UTF-8", file=file, line=line) from error
    root = _composed(text, file)
    if root is None:
        raise RecipeError("is empty; `nacre init` writes a recipe to start from", file=file, line=1)
    if not isinstance(root, MappingNode):
        line = root.start_mark.line + 1
        raise RecipeError("must consist of keys and values, as `seed: 0`", file=file, line=line)
    walk = _Walk(file)
    values = walk.mapping(root, ())
    return Document(file, values, walk.lines, tuple(walk.unfilled))


class _CoreSchema(BaseResolver):
    """Which plain scalars are no text: YAML 1.2, section 10.3."""


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
):
    _CoreSchema.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _first)

_PLAIN = _CoreSchema()


class _Composer(Reader, Scanner, Parser, Composer, _CoreSchema):
    """Text -> node graph, no deeper than `DEEPEST`."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _CoreSchema.__init__(self)
        self._depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self._depth += 1
        if self._depth > DEEPEST:
            mark = self.peek_event().start_mark
            raise MarkedYAMLError(problem=f"more than {DEEPEST} levels", problem_mark=mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _composed(text: str, file: str) -> Node | None:
    try:
        return _Composer(text).get_single_node()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        raise RecipeError(_problem(error), file=file, line=line) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise RecipeError("holds a character that is no text", file=file, line=line) from error
    except (ValueError, OverflowError) as error:  # an escape beyond the last character
        raise RecipeError(f"is not YAML ({error})", file=file) from error


def _problem(error: MarkedYAMLError) -> str:
    problem = str(error.problem or error.context)
    if r"'\t'" in problem:
        return "a tab stands where YAML wants spaces; indent with spaces"
    if "mapping values are not allowed" in problem:
        return "a second colon stands on this line, or the line before it is cut short; quote text"
    return f"is not YAML ({problem}); check indentation, brackets and quotes"


class _Walk:
    """Node graph -> values, noting lines on the way."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[str, int] = {}
        self.unfilled: list[LinePlace] = []
        self._count = 0

    def mapping(self, node: MappingNode, place: LinePlace) -> dict[str, Any]:
        """key -> value; the line of a key is where it stands, not where its value begins."""
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, place)
            here = (*place, key)
            line = key_node.start_mark.line + 1
            if key in values:
                first = self.lines[key_path(here)]
                self._refuse(key_node, here, f"stands here and on line {first}; remove one")
            self.lines[key_path(here)] = line
            values[key] = self._value(value_node, here)
        return values

    def _key(self, node: Node, place: LinePlace) -> str:
        if not isinstance(node, ScalarNode):
            self._refuse(node, place, "a key must be text, not a list or further keys")
        if node.tag != _TAG + "str":
            self._refuse(node, place, f'a key must be text; write it in quotes: "{node.value}"')
        return self._text(node, place)

    def _value(self, node: Node, place: LinePlace) -> Any:
        self._count += 1
        if self._count > MOST or len(place) > DEEPEST:
            self._refuse(node, place, "aliases make this file grow too large; write values out")
        if isinstance(node, MappingNode) and node.tag == _TAG + "map":
            return self.mapping(node, place)
        if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
            return [self._entry(entry, (*place, i)) for i, entry in enumerate(node.value)]
        if isinstance(node, ScalarNode):
            return self._scalar(node, place)
        self._refuse(node, place, f"the tag {node.tag} is not allowed; remove it")

    def _entry(self, node: Node, place: LinePlace) -> Any:
        self.lines[key_path(place)] = node.start_mark.line + 1
        return self._value(node, place)

    def _scalar(self, node: ScalarNode, place: LinePlace) -> Any:
        if node.tag == _TAG + "str":
            if node.value == FILL and node.style is None:
                self.unfilled.append(place)
            return self._text(node, place)
        if node.tag != _PLAIN.resolve(ScalarNode, node.value, (True, False)):
            self._refuse(node, place, f"the tag {node.tag} is not allowed; remove it")
        match node.tag.removeprefix(_TAG):
            case "null":
                return None
            case "bool":
                return node.value.lower() == "true"
            case "int":
                return self._whole(node, place)
            case _:
                return self._float(node, place)

    def _whole(self, node: ScalarNode, place: LinePlace) -> int:
        # Counted first: Python takes quadratic time for digits, and refuses beyond 4300 of them.
        if len(node.value) > 20 or abs(number := int(node.value)) >= 2**63:
            self._refuse(node, place, f"{node.value[:20]}… is larger than any number here may be")
        return number

    def _float(self, node: ScalarNode, place: LinePlace) -> float:
        number = math.inf if "n" in node.value.lower() else float(node.value)
        if not math.isfinite(number):
            self._refuse(node, place, f"{node.value} is not finite; write a number")
        return number

    def _text(self, node: ScalarNode, place: LinePlace) -> str:
        text: str = node.value
        if "\0" in text or any("\ud800" <= sign <= "\udfff" for sign in text):
            self._refuse(node, place, "the text holds a character that no file name could hold")
        if any(len(name.encode()) > LONGEST for name in text.split("/")) or len(text) > 4000:
            self._refuse(node, place, f"the text is longer than {LONGEST} bytes; shorten it")
        return text

    def _refuse(self, node: Node, place: LinePlace, message: str) -> NoReturn:
        line = node.start_mark.line + 1
        raise RecipeError(message, file=self.file, line=line, key=key_path(place))


def dump(values: dict[str, Any]) -> str:
    """YAML that `parse` reads back as the same values."""
    stream = StringIO()
    dumper = _Dumper(stream)
    dumper.open()
    dumper.represent(values)
    dumper.close()
    return stream.getvalue()


class _Dumper(Emitter, Serializer, SafeRepresenter, _CoreSchema):
    """Values -> text whose plain scalars mean what `_CoreSchema` says."""

    def __init__(self, stream: Any) -> None:
        Emitter.__init__(self, stream, width=100, allow_unicode=True)
        Serializer.__init__(self)
        # None writes the innermost lists and keys in one line; the stubs know only True and False.
        style: Any = None
        SafeRepresenter.__init__(self, sort_keys=False, default_flow_style=style)
        _CoreSchema.__init__(self)

    def ignore_aliases(self, data: Any) -> bool:
        return True  # a value that stands in two places is written out twice

    def represent_str(self, data: str) -> ScalarNode:
        # Left to itself PyYAML folds line breaks, and loses those that only Unicode knows.
        style = None if data.isprintable() and data != FILL else '"'
        return self.represent_scalar(_TAG + "str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)

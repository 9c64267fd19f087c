"""What every key of a recipe means, read from the options' own source: one text, one place."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, get_origin

from nacre.adversarial_training.evaluation.known import KNOWN
from nacre.adversarial_training.objectives.refused import REFUSED, plainly_spelt
from nacre.core.errors import RecipeError
from nacre.recipe.mistakes import nearest, type_words
from nacre.recipe.options import Hint, forms, inside, keys, kinds, options, required, without_none
from nacre.recipe.schema import Recipe
from nacre.statistics.query_file import Queries, Records

NAME = "NAME"
"""Stands in a key for any name the author chooses, as in `data.columns.NAME.low`."""


@dataclass(frozen=True)
class KeyExplanation:
    """One key of one option. A key that several kinds share has an entry for each of them."""

    key: str
    kind: str  # of the innermost option with a kind around it; "" where there is no choice
    type: str  # in plain words
    default: str | None  # as YAML has it; None where the key must be written
    doc: str


def explain(key: str = "") -> tuple[KeyExplanation, ...]:
    """The entries of a key and of everything under it; all of them without a key.

    The end of a key, as `length`, stands for every key that ends with it, where no key is called
    so in full; a kind, as `banded` or `histogram`, for the keys of that kind, also in a file of
    queries. Raises `RecipeError` for a name that is none of them: with what `known_elsewhere`
    says of it, or with the nearest that is.
    """
    wanted = key.strip().strip(".")
    found = tuple(entry for entry in _entries() if _under(entry.key, wanted))
    found = found or tuple(e for e in _entries() if e.key.endswith(f".{wanted}"))
    kinds = [e for root in (Recipe, Queries, Records) for e in _entries(root) if e.kind]
    found = found or tuple(entry for entry in kinds if entry.kind == wanted)
    if not found:
        if said := known_elsewhere(wanted):
            raise RecipeError(
                f"no recipe has a key or a kind {wanted!r}: {' '.join(said.values())}"
            )
        keys = [*(e.key for e in _entries()), *(e.kind for e in kinds)]
        known = dict.fromkeys([*keys, *REFUSED, *KNOWN])
        raise RecipeError(f"no recipe has a key or a kind {wanted!r}; {nearest(wanted, known)}")
    return found


def known_elsewhere(name: str) -> dict[str, str]:
    """{name: text} of a method that recipes refuse by name, with the reason, or of an attack that
    is known by another name than here, with the place; {} of any other name."""
    spelt = plainly_spelt(name.strip())
    text = REFUSED.get(spelt) or KNOWN.get(spelt)
    return {spelt: text} if text else {}


def explained() -> list[str]:
    """Every name that `explain` or `known_elsewhere` knows, in order of the alphabet."""
    entries = [e for root in (Recipe, Queries, Records) for e in _entries(root)]
    kinds = {e.kind for e in entries if e.kind}
    return sorted({e.key for e in _entries()} | kinds | REFUSED.keys() | KNOWN.keys())


def reference() -> str:
    """The page of all keys, in Markdown: a table for every option, at the first place it stands."""
    return (
        "\n\n".join(
            ["# Recipe reference", _OPENING, *_tables(Recipe), *_tables(Queries), *_tables(Records)]
        )
        + "\n"
    )


_OPENING = """\
Every key that a recipe may have, written by `scripts/docs` from the options' own source; the last
part is the file of queries that `nacre release` reads. A **needed** key has no default; `absent`
(None in Python) means that nothing stands there, which turns a section off. `nacre explain KEY`
prints a recipe's key alone."""


def _tables(root: type) -> Iterator[str]:
    """The blocks of every option in a file that `root` describes."""
    places: dict[type, dict[str, None]] = {}
    for place, option in _options("", root):
        places.setdefault(option, {})[place] = None
    for option, (first, *others) in places.items():
        yield _heading(first, option)
        yield class_doc(option)
        if others:
            yield "Also at " + ", ".join(f"`{place}`" for place in others) + "."
        yield _table(option)


@cache
def _entries(root: type = Recipe) -> tuple[KeyExplanation, ...]:
    # A section that several kinds share, as `data.holdout`, is met once for each of them.
    return tuple(dict.fromkeys(e for place, o in _options("", root) for e in _own(place, o)))


def _under(key: str, wanted: str) -> bool:
    return not wanted or key == wanted or key.startswith((f"{wanted}.", f"{wanted}["))


def _options(place: str, option: type) -> Iterator[tuple[str, type]]:
    """(key path, option) of an option and of those inside it, outermost first."""
    yield place, option
    for key, hint in keys(option).items():
        here = f"{place}.{key}" if place else key
        inner, here = _item(hint, here)
        for child in options(inner):
            yield from _options(here, child)


def _item(hint: Hint, place: str) -> tuple[Hint, str]:
    """What a list or a set of names holds, and where; any other hint as it is."""
    bare, _ = without_none(hint)
    if written := forms(bare):
        return written["keys"], place
    if get_origin(bare) is dict:
        return inside(bare, NAME), f"{place}.{NAME}"
    return (inside(bare, 0), f"{place}[]") if get_origin(bare) is tuple else (bare, place)


def _own(place: str, option: type) -> Iterator[KeyExplanation]:
    """The entries of one option's own keys."""
    docs = field_docs(option)
    for key, hint in keys(option).items():
        here = f"{place}.{key}" if place else key
        default = None if required(option, key) else _yaml(_default(option, key))
        doc = docs.get(key, "") or _kind_doc(option)
        yield KeyExplanation(here, kind_of(option), type_words(hint), default, doc)


def kind_of(option: type) -> str:
    """The one `kind` that names this option, or "" where its kind is free or it has none."""
    named = [*kinds((option,))]
    return named[0] if len(named) == 1 else ""


def _kind_doc(option: type) -> str:
    """`kind` has no text of its own: it names the option, whose first line says what it is."""
    return class_doc(option).split("\n\n")[0].replace("\n", " ")


def _default(option: type, key: str) -> Any:
    field = {field.name: field for field in dataclasses.fields(option)}[key]
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _yaml(value: Any) -> str:
    """A default as one would write it in YAML.

    >>> _yaml(True), _yaml(None), _yaml((1, 2))
    ('true', 'absent', '[1, 2]')
    """
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_yaml(inner) for inner in value) + "]"  # pyright: ignore[reportUnknownVariableType]
    if dataclasses.is_dataclass(value):
        written = [
            f"{f.name}: {_yaml(getattr(value, f.name))}" for f in _changed(type(value), value)
        ]
        return "{" + ", ".join(written) + "}"
    return '""' if value == "" else str(value)


def _changed(kind: type, option: Any) -> Iterator[dataclasses.Field[Any]]:
    """`kind`, and the fields of a default that differ from the option's own defaults."""
    for field in dataclasses.fields(kind):
        own = getattr(option, field.name)
        plain = not required(kind, field.name) and own == _default(kind, field.name)
        if field.name == "kind" or not plain:
            yield field


def class_doc(option: type) -> str:
    """The docstring of an option without its examples."""
    return "\n\n".join(
        part for part in inspect.cleandoc(option.__doc__ or "").split("\n\n") if ">>>" not in part
    )


@cache
def field_docs(option: type) -> dict[str, str]:
    """Key -> the text under it in the source, in one line."""
    docs: dict[str, str] = {}
    for owner in reversed(option.__mro__):
        if dataclasses.is_dataclass(owner):
            tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
            docs |= _documented(tree.body[0])
    return docs


def _documented(definition: ast.stmt) -> dict[str, str]:
    """Names that are assigned in a class and followed by a string."""
    assert isinstance(definition, ast.ClassDef)
    docs: dict[str, str] = {}
    for line, after in zip(definition.body, definition.body[1:], strict=False):
        match line, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                value=ast.Constant(value=str(text))
            ):
                docs[name] = " ".join(text.split())
            case _:
                pass
    return docs


def _heading(place: str, option: type) -> str:
    if not place:
        return f"## The whole {'recipe' if option is Recipe else 'file of queries'}"
    kind = kind_of(option)
    level = "##" if "." not in place and "[" not in place else "###"
    return f"{level} `{place}`" + (f", kind `{kind}`" if kind else "")


def _table(option: type) -> str:
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for entry in _own("", option):
        if entry.key != "kind" or not entry.kind:
            default = "**needed**" if entry.default is None else f"`{entry.default}`"
            cells = [f"`{entry.key}`", entry.type, default, entry.doc]
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) if len(rows) > 2 else "It has no further keys."

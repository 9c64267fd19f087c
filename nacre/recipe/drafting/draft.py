"""The text of a drafted recipe: what is known stands there, and `FILL` where something is not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from nacre.core.errors import RecipeError, Refusal
from nacre.data.readers import as_number, is_missing, text
from nacre.data.reading.header import TableHeader, table_header
from nacre.recipe.document import FILL, key_path, parse
from nacre.recipe.drafting.guesses import ColumnGuess, name_guess, names_people
from nacre.recipe.drafting.known import documented, of_values, public_table
from nacre.recipe.drafting.template import RecipeParts, recipe_text
from nacre.recipe.drafting.yaml_text import as_flow, as_name

FEW_NUMBERS = 20
"""Different numbers of a public target up to which they are classes."""


@dataclass(frozen=True, kw_only=True)
class TableRoles:
    """What is said of a table on the command line."""

    target: str | None = None
    unit: str | None = None
    party: str | None = None
    drop: tuple[str, ...] = ()
    size: int | None = None
    public: Path | None = None
    documented: Path | None = None


@dataclass(frozen=True)
class Draft:
    """A recipe that is nearly one."""

    text: str
    columns: int
    """How many the model sees."""
    guessed: list[str] = field(default_factory=list[str])
    """Columns of which the name alone says what they are."""
    to_fill: list[int] = field(default_factory=list[int])
    """Lines on which `FILL` stands."""
    unmatched: dict[str, str | None] = field(default_factory=dict[str, str | None])
    """What the data dictionary names and the table lacks -> the column of the nearest name."""


def drafted(file: Path, path: str, roles: TableRoles) -> Draft:
    """The recipe for a table, of which the header alone is read; `path` is where it lies from the
    recipe. Raises `Refusal`."""
    header = table_header(file)
    _require_roles(header, roles)
    written = documented(roles.documented) if roles.documented is not None else {}
    guesses, classes = _guessed(header, roles, written)
    seen = {name: guess for name, guess in guesses.items() if guess.kind != "drop"}
    if not seen:
        raise Refusal(
            f"{file} has no column left for the model to see; drop fewer, or name another table"
        )
    dropped = [name for name, guess in guesses.items() if guess.kind == "drop"]
    parts = RecipeParts(
        path=path, file=file, dialect=header.dialect, columns=_column_lines(seen),
        dropped=[*roles.drop, *dropped],
        dropped_by_guess=dropped, classes=classes, target=roles.target, unit=roles.unit,
        party=roles.party, size=roles.size, public=roles.public,
        people=next((n for n in dropped if names_people(n)), None),
        number=next((n for n, guess in seen.items() if guess.kind == "number"), None),
        category=next((n for n, guess in seen.items() if guess.kind == "categories"), None),
    )  # fmt: skip
    recipe = recipe_text(parts)
    try:
        document = parse(recipe.encode(), "the recipe")
    except RecipeError as error:
        raise Refusal(
            f"{file} has columns that no recipe can name ({error.message}); rename them, or drop "
            "some in the table"
        ) from error
    lines = {document.lines[key_path(place)] for place in document.unfilled}
    by_name = [name for name, guess in guesses.items() if guess.why == "guess from the name"]
    unmatched = {name: _nearest(name, header) for name in written if name not in header.forms}
    return Draft(recipe, len(seen), by_name, sorted(lines), unmatched)


def _nearest(name: str, header: TableHeader) -> str | None:
    """The column whose name is most like this one, in any case; None where none is like it."""
    small = {known.casefold(): known for known in header.names}
    near = get_close_matches(name.casefold(), small, n=1)
    return small[near[0]] if near else None


def _require_roles(header: TableHeader, roles: TableRoles) -> None:
    """Refuses a name that the header lacks, and a column of two roles."""
    given = [(f"--{key}", getattr(roles, key)) for key in ("target", "unit", "party")]
    given = [(option, name) for option, name in given if name is not None]
    given += [("--drop", name) for name in dict.fromkeys(roles.drop)]
    before: dict[str, str] = {}
    for option, name in given:
        if name not in header.forms:
            near = get_close_matches(name, header.names, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else "name a column of its header"
            raise Refusal(f"{header.file} has no column {name!r} for `{option}`; {remedy}")
        if name in before:
            raise Refusal(f"column {name!r} is named by {before[name]} and by {option}; keep one")
        before[name] = option


def _guessed(
    header: TableHeader, roles: TableRoles, written: Mapping[str, ColumnGuess]
) -> tuple[dict[str, ColumnGuess], tuple[str, ...] | None]:
    """(column -> what it may be, the classes of the target where a public file shows them; none
    for a target that is a number, None where nothing is known)"""
    table = public_table(roles.public, header) if roles.public is not None else None
    known: dict[str, ColumnGuess] = {}
    classes: tuple[str, ...] | None = None
    for name, form in header.forms.items():
        guess = name_guess(name, form)
        if table is not None and roles.public is not None and name in table.columns:
            shown = of_values(table.columns[name], roles.public)
            if name == roles.target:
                classes = _classes(shown, table.columns[name], roles.public)
            if guess.kind != "drop":
                guess = shown
        known[name] = written.get(name, guess)
        if name == roles.target and name in written:
            classes = written[name].categories
    taken = {roles.target, roles.unit, roles.party, *roles.drop}
    return {name: guess for name, guess in known.items() if name not in taken}, classes


def _classes(guess: ColumnGuess, values: Sequence[object], file: Path) -> tuple[str, ...] | None:
    """The classes of a target; none where it is a number with more than a few values."""
    if guess.kind == "categories":
        return guess.categories or None
    found = {text(value): as_number(value) or 0.0 for value in values if not is_missing(value)}
    if len(found) > FEW_NUMBERS:
        return ()
    return tuple(sorted(found, key=lambda value: found[value])) if len(found) > 1 else None


def _column_lines(columns: Mapping[str, ColumnGuess]) -> list[str]:
    """A line a column. Columns whose names differ in a number alone, and of which the same is
    supposed, take what the first of them says, so that it is filled in once."""
    stems: dict[tuple[str, str], list[str]] = {}
    for name, guess in columns.items():
        stems.setdefault((_stem(name), _spec(guess)), []).append(name)
    alike = {
        names[0]: names for (stem, _), names in stems.items() if "#" in stem and len(names) > 2
    }
    anchor_of: dict[str, str] = {}
    for first, names in alike.items():
        if not _is_known(columns[first]):
            plain = re.sub(r"[^a-z]", "", _stem(first).lower()) or "column"
            taken = set(anchor_of.values())
            word = next(w for w in _numbered(plain) if w not in taken)
            anchor_of |= dict.fromkeys(names, word)
    lines: list[str] = []
    defined: set[str] = set()
    for name, guess in columns.items():
        anchor = anchor_of.get(name)
        if anchor is None:
            lines.append(f"{as_name(name)}: {_spec(guess)}{_comment(guess)}")
        elif anchor in defined:
            lines.append(f"{as_name(name)}: *{anchor}")
        else:
            defined.add(anchor)
            count = sum(word == anchor for word in anchor_of.values())
            also = f"{_comment(guess)}; this line counts for {count} columns alike (*{anchor})"
            lines.append(f"{as_name(name)}: &{anchor} {_spec(guess)}{also}")
    return lines


def _numbered(word: str) -> Iterable[str]:
    yield word
    yield from (f"{word}{number}" for number in range(2, 100_000))


def _stem(name: str) -> str:
    return re.sub(r"[0-9]+", "#", name)


def _is_known(guess: ColumnGuess) -> bool:
    return guess.why.startswith("from ")


def _spec(guess: ColumnGuess) -> str:
    if guess.kind == "categories":
        return f"{{categories: {as_flow(guess.categories) if guess.categories else f'[{FILL}]'}}}"
    low, high = (FILL if end is None else _number(end) for end in (guess.low, guess.high))
    return f"{{low: {low}, high: {high}}}"


def _number(value: float) -> str:
    """A number that YAML reads back as the same one.

    >>> _number(120.0), _number(0.1), _number(1e300)
    ('120', '0.1', '1e+300')
    """
    whole = float(value).is_integer() and abs(value) < 2**53
    return str(int(value)) if whole else repr(float(value))


def _comment(guess: ColumnGuess) -> str:
    unfilled = FILL in _spec(guess)
    if not guess.why:
        return "  # or {categories: [" + FILL + "]}, or under `drop`"
    if guess.why == "guess from the name":
        true = "declare what is true of all people, not of these rows"
        return f"  # {guess.why}; {true}" if not unfilled else f"  # kind: {guess.why}"
    return f"  # {as_name(guess.why) if not guess.why.isprintable() else guess.why}"

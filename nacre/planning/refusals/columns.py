"""Columns that the recipe names and the file does not have, told before anything is priced.

Of a file its header alone is read, up to its end and no further. Names are what a row looks like
and not what it holds: files of neighbouring rows have the same header, so a plan still depends on
no row. Where there is no file yet, or none that may be read here, nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

from nacre.core.errors import DataError, RecipeError
from nacre.data import Dialect, Table, Text
from nacre.data.reading.header import named_columns, row_in_place_of_names
from nacre.planning.facts import RecipeFacts
from nacre.recipe.mistakes import nearest
from nacre.recipe.places import placed, refuse
from nacre.recipe.schema import Recipe


def columns_are_in_the_files(facts: RecipeFacts) -> None:
    """A mistyped column is found when the file is read, which is after the noise is calibrated and
    often on another machine. Raises `RecipeError` with every one of them."""
    recipe, data = facts.recipe, facts.recipe.data
    if not isinstance(data, Table | Text):
        return
    found: dict[str, str] = {}  # key -> what is wrong with what it names
    test = data.test if isinstance(data, Text) else None
    others = [option.path for option in (data.public, test) if option is not None]
    for path in (data.path, *others):
        for key, fault in _faults(recipe, data, recipe.folder / path, keyed=path == data.path):
            found.setdefault(key, fault)
    if found:
        key, *others = sorted(found, key=lambda key: recipe.where(key)[1] or 0)
        file, line = recipe.where(key)
        told = tuple(placed(recipe, other, found[other]) for other in others)
        raise RecipeError(found[key], file=file, line=line, key=key, others=told)


def _faults(
    recipe: Recipe, data: Table | Text, file: Path, *, keyed: bool
) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) of each name that the file does not have and, of a table, of each
    column that the recipe says nothing of; unit and party are looked for where `keyed`."""
    if file.is_dir():
        yield (
            "data.path",
            f"{file} is a folder where a file of rows is needed; name the file itself",
        )
        return
    dialect = data.dialect if isinstance(data, Table) else Dialect()
    try:
        names = named_columns(file, dialect)
    except DataError as error:
        refuse(recipe, "data.dialect", str(error), DataError)
    if names is None:
        return
    needed = _needed(data, keyed=keyed)
    lacks_some = any(name not in names for name in needed.values())
    if lacks_some and (fault := row_in_place_of_names(names)):
        yield "data.path", f"{file} {fault}"
        return
    everywhere = {*_needed(data, keyed=True).values(), *_dropped(data).values()}
    left = [name for name in names if name not in everywhere]  # of which nothing is said
    for key, name in {**needed, **_dropped(data)}.items():
        if name in names:
            continue
        near = get_close_matches(name, left, n=1)
        if near:
            left.remove(near[0])  # told once
        elif key not in needed:
            continue  # nothing of this name was to be used
        known = near or [each if len(each) <= 40 else f"{each[:39]}…" for each in names]
        yield key, f"{file} has no column {name!r}; {nearest(name, known)}"
    if isinstance(data, Table):
        for name in left:
            told = f"{file} has a column {name!r} that is neither declared nor dropped"
            yield f"data.columns.{name}", f"{told}; add it to `columns` or to `drop`"


def _needed(data: Table | Text, *, keyed: bool) -> Mapping[str, str]:
    """The key that names it -> a column that has to be there."""
    named: dict[str, str | None]
    if isinstance(data, Table):
        named = {"data.target": data.target}
        named |= {f"data.columns.{name}": name for name in data.columns}
    else:
        named = {"data.text": data.text, "data.prompt": data.prompt}
        named |= {"data.completion": data.completion, "data.label": data.label}
    if keyed:
        named |= {"data.unit": data.unit, "data.party": data.party}
    return {key: name for key, name in named.items() if name is not None}


def _dropped(data: Table | Text) -> Mapping[str, str]:
    """The key that names it -> a column that is not used."""
    drop = data.drop if isinstance(data, Table) else ()
    return {f"data.drop[{place}]": name for place, name in enumerate(drop)}

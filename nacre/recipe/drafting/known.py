"""Ranges and categories that are known without the private rows: of a public file, or of a data
dictionary."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from nacre.core.errors import DataError, RecipeError, Refusal
from nacre.core.strict import parsed
from nacre.data.columns.dialect import PLAIN
from nacre.data.readers import RawTable, as_number, is_missing, read_table, suffix, text
from nacre.data.reading.header import TableHeader, table_header
from nacre.recipe.document import LONGEST, parse, read_bytes
from nacre.recipe.drafting.guesses import ColumnGuess

MANY = 50
"""Different texts of a column above which they are not taken as its categories."""


def public_table(file: Path, header: TableHeader) -> RawTable:
    """The rows of a file that is declared public. Raises `DataError`, also where it is the private
    file itself or shares no column with it."""
    known = suffix(str(file)) in (".jsonl", ".ndjson") or not file.is_file()
    dialect = PLAIN if known else table_header(file).dialect
    found = read_table(Path(), str(file), dialect)
    if file.samefile(header.file):
        raise DataError(
            f"{file} is the table itself: what is learnt from its rows would tell of them; name "
            "another file, whose rows are public"
        )
    if not set(found.columns) & set(header.names):
        raise DataError(f"{file} has no column of {header.file}, so it says nothing of it")
    return found


def of_values(values: Sequence[object], file: Path) -> ColumnGuess:
    """The range, or the categories, of public values."""
    present = [value for value in values if not is_missing(value)]
    numbers = [as_number(value) for value in present if not isinstance(value, bool)]
    finite = [number for number in numbers if number is not None and math.isfinite(number)]
    if present and len(finite) == len(present):
        low, high = min(finite), max(finite)
        if low < high:
            return ColumnGuess("number", low, high, why=f"from {file}")
        return ColumnGuess("number", why=f"{file} has one value only")
    found = sorted({text(value) for value in present})
    if not found or len(found) > MANY or max(len(value.encode()) for value in found) > LONGEST:
        return ColumnGuess("categories", why=f"{len(found)} different values in {file}; or drop it")
    return ColumnGuess("categories", categories=tuple(found), why=f"from {file}")


def documented(file: Path) -> dict[str, ColumnGuess]:
    """Column -> what a data dictionary says: `{low, high}` or `{categories}`, as JSON or YAML.
    Raises `Refusal` with the column."""
    data = read_bytes(file)
    values: Any
    if file.suffix.lower() == ".json":
        try:
            values = parsed(data)
        except ValueError as error:  # of text that is not UTF-8 too
            raise RecipeError(f"is not JSON ({error}); correct it", file=file) from error
    else:
        document = parse(data, str(file))
        if document.unfilled:
            raise document.error(document.unfilled[0], "is still to be filled in")
        values = document.values
    if not isinstance(values, dict):
        raise Refusal(f"{file} does not name columns; {_FORM}")
    named = cast(dict[str, Any], values)
    return {name: _declared(file, name, facts) for name, facts in named.items()}


_FORM = "write a data dictionary as `age: {low: 0, high: 120}` and `sex: {categories: [f, m]}`"


def _declared(file: Path, name: str, facts: object) -> ColumnGuess:
    why = f"from {file}"
    given = cast(Mapping[str, Any], facts) if isinstance(facts, Mapping) else {}
    if set(given) == {"low", "high"}:
        low, high = given["low"], given["high"]
        if _is_number(low) and _is_number(high) and low < high:
            return ColumnGuess("number", low, high, why=why)
        raise Refusal(f"{file} column {name!r}: low and high must be numbers, low below high")
    if set(given) == {"categories"} and isinstance(given["categories"], list):
        entries = cast(list[object], given["categories"])
        found = tuple(text(entry) for entry in entries)
        plain = all(isinstance(entry, str | int | float) for entry in entries)
        if found and plain and len(set(found)) == len(found) and all(found):
            return ColumnGuess("categories", categories=found, why=why)
        raise Refusal(f"{file} column {name!r}: categories must be different texts, one at least")
    raise Refusal(f"{file} column {name!r} has no range and no categories alone; {_FORM}")


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300

"""A sketch is of the file: no recipe makes other rows of it, and other people's rows stay others.

Every lie below is one that a recipe can tell about a file that nobody touched.
"""

from __future__ import annotations

import base64
import datetime
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from nacre.core.errors import LedgerError
from nacre.data.arrays import Arrays
from nacre.data.columns.dates import Dates
from nacre.data.columns.dialect import Dialect
from nacre.data.columns.spec import Bins, ColumnSpec, FillMissing
from nacre.data.sketches.cells import Hashing, of_table
from nacre.data.sketches.sketch import Sketch, sketched
from nacre.data.table import Table
from nacre.data.text.text import Text
from nacre.data.text.tokens import Bytes
from nacre.ledger.storage.seal import sealed, unsealed

KEY = bytes(range(32))
TOWNS = ("Köln", "Zürich", "Łódź", "Århus")


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """Two hundred visits: weights, ages, a town and a date, of which no column tells everything."""
    folder, draw = tmp_path_factory.mktemp("visits"), random.Random(3)
    lines = ["weight;age;town;day;ill"]
    for _ in range(200):
        day = f"{draw.randrange(1, 28):02}{draw.randrange(1, 12):02}{draw.randrange(20, 25)}"
        weight, age = f"{draw.uniform(40, 110):.3f}", draw.randrange(20, 80)
        lines.append(f"{weight};{age};{draw.choice(TOWNS)};{day};{draw.choice('ny')}")
    (folder / "visits.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    columns = {
        "weight": ColumnSpec(low=0, high=1e6),
        "age": ColumnSpec(low=0, high=1e6),
        "town": ColumnSpec(categories=TOWNS),
        "day": ColumnSpec(low=0, high=1e6),
    }
    return Table(
        path=str(folder / "visits.csv"), target="ill", columns=columns, size=200,
        classes=("n", "y"), dialect=Dialect(separator=";"),
    )  # fmt: skip


def _misread(table: Table, encoding: Any) -> Table:
    towns = tuple(town.encode().decode(encoding) for town in TOWNS)
    return replace(
        table,
        columns={**table.columns, "town": ColumnSpec(categories=towns)},
        dialect=Dialect(separator=";", encoding=encoding),
    )


def _columns(table: Table, **specs: ColumnSpec) -> Table:
    return replace(table, columns={**table.columns, **specs})


def _dropped(table: Table, *names: str) -> Table:
    left = {name: spec for name, spec in table.columns.items() if name not in names}
    return replace(table, columns=left, drop=names)


def _without_values(table: Table) -> Table:
    """Every age and most days stand for no value."""
    words = [str(age) for age in range(20, 80)]
    words += [f"{day:02}{month:02}{year}" for day in range(1, 28) for month in range(1, 12)
              for year in (20, 21, 22, 23)]  # fmt: skip
    filled = ColumnSpec(low=0, high=1e6, missing=FillMissing(value=1.0, flag=True))
    return replace(
        _columns(table, age=filled, day=filled),
        dialect=Dialect(separator=";", missing=tuple(words)),
    )


LIES = {
    "a mark of thousands that multiplies": lambda t: replace(
        t, dialect=Dialect(separator=";", thousands=".", decimal=",")
    ),
    "UTF-8 as latin-1": lambda t: _misread(t, "latin-1"),
    "words for no value": _without_values,
    "numbers in two bins": lambda t: _columns(
        t, age=ColumnSpec(low=0, high=1e6, coding=Bins(count=2))
    ),
    "dates in a format of their own": lambda t: _columns(
        t, day=ColumnSpec(date=Dates(format="%d%m%y"), low=-1e6, high=1e6)
    ),
    "numbers as words": lambda t: _columns(t, age=ColumnSpec(hash=8), weight=ColumnSpec(hash=8)),
    "one column alone": lambda t: _dropped(t, "weight", "town", "day"),
    "words alone": lambda t: _dropped(t, "weight", "age", "day"),
    "rows out of range dropped": lambda t: replace(
        _columns(t, age=ColumnSpec(low=0, high=40)), on_out_of_range="drop"
    ),
    "another order of columns": lambda t: replace(
        t, columns=dict(reversed(list(t.columns.items())))
    ),
    "another order of classes": lambda t: replace(t, classes=("y", "n")),
    "another target": lambda t: replace(
        t, target="town", classes=TOWNS, drop=("ill",),
        columns={n: c for n, c in t.columns.items() if n != "town"},
    ),
    "several at once": lambda t: replace(
        _misread(_dropped(t, "day"), "latin-1"),
        dialect=Dialect(separator=";", encoding="latin-1", thousands=".", decimal=","),
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_no_recipe_makes_other_rows_of_one_file(visits: Table, lie: str) -> None:
    """One file has one sketch, bit for bit."""
    honest, told = (
        sketched(option.read(Path(), 0, b"k").cells, KEY) for option in (visits, LIES[lie](visits))
    )
    assert not honest.is_empty
    assert honest == told


def _semicolons(file: Path) -> list[Table]:
    """A table whose every line holds four commas and two semicolons, read by either."""
    draw = random.Random(1)
    lines = ["weight, kg;size, m;ill, code"]
    for _ in range(200):
        numbers = f"{draw.uniform(40, 99):.1f};{draw.uniform(1, 2):.2f}".replace(".", ",")
        lines.append(f"{numbers};{draw.choice('01')},{draw.choice('05')}")
    file.write_text("\n".join(lines) + "\n")
    number = ColumnSpec(low=0, high=1e6)
    german = Table(
        path=str(file), target="ill, code", classes=("0,0", "0,5", "1,0", "1,5"), size=200,
        columns={"weight, kg": number, "size, m": number},
        dialect=Dialect(separator=";", decimal=","),
    )  # fmt: skip
    names = ("weight", "kg;size", "m;ill")
    columns = {name: ColumnSpec(hash=4) for name in names}
    return [german, Table(
        path=str(file), target="code", classes=("0", "5"), size=200, columns=columns,
        dialect=Dialect(quote="none"),
    )]  # fmt: skip


def _poems(file: Path) -> list[Text]:
    """Short lines, each a document, or each paragraph of them."""
    draw = random.Random(2)
    lines = [" ".join(f"w{draw.randrange(900)}" for _ in range(5)) for _ in range(300)]
    file.write_text("\n".join(line + "\n" * (n % 3 == 0) for n, line in enumerate(lines)))
    shared: dict[str, Any] = {"task": "causal_lm", "size": 100, "tokenizer": Bytes()}
    return [Text(path=str(file), documents=kind, **shared) for kind in ("line", "paragraph")]


def _arrays(file: Path) -> list[Arrays]:
    """Two arrays of features and two of labels."""
    draw = np.random.default_rng(3)
    held = {name: draw.normal(size=(200, 5)) for name in ("x", "again")}
    labels = {name: draw.integers(0, 3, 200) for name in ("y", "z")}
    apart: dict[str, Any] = {"apart": np.arange(3), "objects": np.array([None])}
    np.savez(file, **held, **labels, **apart)
    shared: dict[str, Any] = {"shape": (5,), "classes": 3, "low": -9, "high": 9, "size": 200}
    pairs = [("x", "y"), ("again", "z")]
    return [Arrays(path=str(file), features=x, label=y, **shared) for x, y in pairs]


@pytest.mark.parametrize(
    ("name", "readings"),
    [("a.csv", _semicolons), ("a.txt", _poems), ("a.npz", _arrays)],
)
def test_a_file_that_can_be_read_in_two_ways_is_one(
    tmp_path: Path, name: str, readings: Any
) -> None:
    """Each reading shares no cell with the other."""
    one, other = (
        sketched(option.read(Path(), 0, b"k" * 32).cells, KEY)
        for option in readings(tmp_path / name)
    )
    assert one.same_data(other) and other.same_data(one)


WRITTEN = {
    "fraction": (["1.5", "-2.25"], ["1,5", "-2,25"]),
    "thousands": (["1234.5", "12000000"], ["1.234,5", "12'000'000"]),
    "power": (["1500", "0.05"], ["1.5e3", "5E-2"]),
    "another unit of ten": (["1.5", "20", "7.25"], ["150", "2000", "725"]),
    "time of day": (["2024-04-27 07:30:00"] * 2, ["27.4.24 7:30", "07:30 27/04/2024"]),
    "no value": (["", "NA"], ["?", "--"]),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_cells_are_the_same_however_they_are_written(form: str) -> None:
    one, other = (Hashing(KEY).values(column).tolist() for column in WRITTEN[form])
    assert one == other


def test_words_with_a_digit_are_no_numbers() -> None:
    words = ["e5", "1.2.3", "A1", "12a", ".", "1,2,3", "+", "E11.9"]
    found = Hashing(KEY)
    for word in words:
        assert found.values([word, "ward"])[0] not in found.numbers(np.arange(100.0))


def _table(cells: np.ndarray[Any, Any], columns: slice = slice(None)) -> Sketch:
    named = {f"c{i}": list(c) for i, c in enumerate(cells.T)}
    return sketched(of_table(dict(list(named.items())[columns])), KEY)


@pytest.mark.parametrize(
    ("rows", "columns", "values"),
    [(200, 4, 10), (200, 6, 4), (200, 24, 2), (400, 24, 3), (5000, 16, 2), (500, 300, 2)],
)
def test_few_values_are_known_again_without_a_column(rows: int, columns: int, values: int) -> None:
    """Where no column alone tells a table, all that are left do; and other people's table, drawn
    from the same population, is another one."""
    draw = np.random.default_rng(rows + columns)
    shares = draw.dirichlet(np.full(values, 4.0), columns)
    one, fresh = (
        np.stack([draw.choice(values, rows, p=share) for share in shares], 1) for _ in range(2)
    )
    whole, less, other = _table(one), _table(one, slice(1, None)), _table(fresh)
    assert whole.same_data(less)
    assert less.same_data(whole)
    assert not whole.same_data(other)
    assert not less.same_data(other)


def test_columns_that_are_equal_by_design_say_nothing() -> None:
    """Thirty wards with ten visits each, half of them a control: every such table has them."""
    ward, arm = np.repeat(np.arange(30), 10) * 7 + 3, np.tile([0, 1], 150)

    def table(seed: int) -> Sketch:
        found = np.random.default_rng(seed).normal(size=300)
        return sketched(of_table({"ward": list(ward), "arm": list(arm), "found": list(found)}), KEY)

    assert not table(0).same_data(table(1))
    assert table(0).same_data(table(0))


_FROM = datetime.datetime(2024, 1, 1)
_HOURS = [_FROM + datetime.timedelta(hours=n) for n in range(1000)]
_MINUTES = [_FROM + datetime.timedelta(minutes=5 * n) for n in range(1500)]
SCHEDULES: dict[str, dict[str, list[Any]]] = {
    "hours": {"time": list(map(str, _HOURS))},
    "hours, day first": {"time": [f"{t:%d.%m.%Y %H:%M}" for t in _HOURS]},
    "hours, month first": {"time": [f"{t:%m/%d/%Y %H:%M:%S}" for t in _HOURS]},
    "hours as times": {"time": list(_HOURS)},
    "five minutes": {"time": [f"{t:%Y-%m-%dT%H:%M:%SZ}" for t in _MINUTES]},
    "a day and an hour": {"day": [f"{t:%F}" for t in _HOURS], "hour": [f"{t:%H}" for t in _HOURS]},
    "a day and a clock": {
        "day": [f"{t:%F}" for t in _HOURS], "hour": [f"{t:%H:%M}" for t in _HOURS],
    },
    "times of one day": {"time": [f"{t:%H:%M}" for t in _MINUTES[:288]]},
    "months": {"month": [f"{2000 + n // 12}-{n % 12 + 1:02}" for n in range(300)]},
    "months in words": {"month": [f"{_FROM.replace(month=n % 12 + 1):%b} {1990 + n // 12}"
                                  for n in range(300)]},
    "weeks": {"week": [f"{2015 + n // 52}-W{n % 52 + 1:02}" for n in range(500)]},
    "quarters": {"quarter": [f"{1950 + n // 4}Q{n % 4 + 1}" for n in range(300)]},
}  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_same_schedule_is_no_same_data(schedule: str) -> None:
    """Two sites that count something at the same times: the times are everybody's, and what small
    counts they share they share by chance."""
    given = SCHEDULES[schedule]

    def table(seed: int) -> Sketch:
        draw, count = np.random.default_rng(seed), len(next(iter(given.values())))
        cases, rate = draw.poisson(4, count), draw.normal(75, 8, count).round()
        return sketched(of_table({**given, "cases": list(cases), "rate": list(rate)}), KEY)

    for seed in range(0, 8, 2):
        assert not table(seed).same_data(table(seed + 1))
    assert table(0).same_data(table(0))


def test_times_of_admission_are_data() -> None:
    """Minutes at random tell one table from others."""
    draw = np.random.default_rng(0)
    one, other = (
        sketched(of_table({"time": [str(_FROM + datetime.timedelta(minutes=int(minute)))
                                    for minute in draw.integers(0, 500_000, 300)],
                           "flag": list(draw.integers(0, 2, 300))}), KEY)
        for _ in range(2)
    )  # fmt: skip
    assert len(one.rows) == 300
    assert not one.same_data(other)


def test_one_column_in_many_codes_counts_once() -> None:
    """Seven names for the ward of a row are as little proof as one."""
    draw = np.random.default_rng(0)
    wards = draw.permutation(np.repeat(np.arange(4), (70, 60, 50, 20)))

    def table(seed: int) -> Sketch:
        codes = {f"ward{n}": [f"{n}-{ward}" for ward in wards] for n in range(7)}
        found = np.random.default_rng(seed).normal(size=len(wards))
        return sketched(of_table({**codes, "found": list(found)}), KEY)

    assert not table(0).same_data(table(1))


def test_a_sketch_of_the_earlier_form_is_compared_with_none() -> None:
    """Nobody can tell whether its rows are these: the account goes on, other names are refused."""
    sketch = sketched(of_table({"a": [1.5, 2.5]}), KEY)
    nonce = os.urandom(12)
    earlier = AESGCM(KEY).encrypt(nonce, sketch.to_bytes(), b"nacre sketch, format 1")
    with pytest.raises(LedgerError, match=r"by an earlier version of Nacre.*under the name 'ward'"):
        unsealed(KEY, base64.b64encode(nonce + earlier).decode(), "ward")
    assert unsealed(KEY, sealed(KEY, sketch), "ward") == sketch
    with pytest.raises(LedgerError, match="under another key"):
        unsealed(bytes(32), sealed(KEY, sketch), "ward")

"""Columns as people have them: each declared form against a plain computation of its own."""

from __future__ import annotations

import datetime
import hashlib
import random
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from nacre.core.errors import BadArgument, DataError
from nacre.data import ColumnSpec, DeclaredScaling, Table, fit_scaling
from nacre.data.columns.dates import Dates
from nacre.data.columns.dialect import PLAIN, Dialect
from nacre.data.columns.spec import Bins, DropMissing, FillMissing, PiecewiseLinear, Truths
from nacre.data.sketches.cells import of_table
from nacre.data.sketches.sketch import sketched

GERMAN = Dialect(
    separator=";", decimal=",", thousands=".", encoding="latin-1", missing=("?", "k.A.", "-9")
)
HASHED = ColumnSpec(hash=8)


def table(columns: dict[str, ColumnSpec], **fields: Any) -> Table:
    return Table(**{
        "path": "rows.csv", "target": "y", "classes": ("no", "yes"), "size": 4,
        "columns": columns, **fields,
    })  # fmt: skip


def features(folder: Path, spec: ColumnSpec, cells: list[str], **fields: Any) -> list[list[float]]:
    """The features of a CSV with one column `x`; half of the rows are of each class."""
    lines = ["x\ty", *(f"{cell}\t{('no', 'yes')[i % 2]}" for i, cell in enumerate(cells))]
    (folder / "rows.tsv").write_text("\n".join(lines), encoding="utf-8")
    option = table({"x": spec}, path="rows.tsv", **fields)
    return option.read(folder, 0, b"k").private.features.tolist()


# -- what a column becomes ---------------------------------------------------------------------


def test_bins_are_half_open_ranges_between_declared_edges(tmp_path: Path) -> None:
    values = [0.0, 17.999, 18.0, 64.5, 65.0, 90.0]
    spec = ColumnSpec(low=0, high=90, coding=Bins(edges=(18, 65)))
    known = pd.cut(pd.Series(values), [0, 18, 65, 90.001], right=False, labels=False)
    assert features(tmp_path, spec, [str(v) for v in values]) == np.eye(3)[known].tolist()
    assert spec.column("x").entries() == ("x=0..18", "x=18..65", "x=65..90")
    even = ColumnSpec(low=0, high=8, coding=Bins(count=4))
    assert even.column("x").edges == (0, 2, 4, 6, 8)


def test_piecewise_codes_follow_their_formula(tmp_path: Path) -> None:
    """Equation 1 of Gorishniy et al. 2022, entry by entry."""
    edges = (-2.0, 0.0, 1.0, 5.0)

    def code(x: float, t: int) -> float:
        if x < edges[t] and t > 0:
            return 0.0
        if x >= edges[t + 1] and t < 2:
            return 1.0
        return (x - edges[t]) / (edges[t + 1] - edges[t])

    values = [-2.0, -0.5, 0.0, 0.25, 1.0, 4.0, 5.0]
    spec = ColumnSpec(low=-2, high=5, coding=PiecewiseLinear(edges=(0, 1)))
    expected = np.array([[code(x, t) for t in range(3)] for x in values], np.float32)
    assert features(tmp_path, spec, [str(v) for v in values]) == expected.tolist()


def test_dates_are_numbers_since_an_origin_or_parts(tmp_path: Path) -> None:
    cells = ["31.12.1999", "01.01.2000", "29.02.2024", "5.7.2010"]
    moments = pd.to_datetime(pd.Series(cells), format="%d.%m.%Y")
    since = (moments - pd.Timestamp("2000-01-01")).dt
    date = Dates(format="%d.%m.%Y", origin="2000-01-01")
    days = features(tmp_path, ColumnSpec(low=-9999, high=9999, date=date), cells)
    assert days == [[day] for day in since.days]
    years = ColumnSpec(low=-99, high=99, date=replace(date, unit="years"))
    expected = np.float32(since.total_seconds() / (365.2425 * 86400))[:, None]
    assert features(tmp_path, years, cells) == expected.tolist()
    parts = replace(date, parts=("year", "month", "weekday"))
    found = features(tmp_path, ColumnSpec(low=1990, high=2030, date=parts), cells)
    for row, moment in zip(found, moments, strict=True):
        assert row[0] == moment.year and row[1:13] == np.eye(12)[moment.month - 1].tolist()
        assert row[13:] == np.eye(7)[moment.isoweekday() - 1].tolist()


def test_dates_of_parquet_and_of_text_are_the_same(tmp_path: Path) -> None:
    days = [datetime.date(2020, 2, 29), datetime.date(1969, 12, 31)] * 2
    columns = {"x": days, "y": ["no", "yes"] * 2}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "rows.parquet")
    spec = ColumnSpec(low=-10, high=99999, date=Dates())
    read = table({"x": spec}, path="rows.parquet").read(tmp_path, 0, b"k").private.features
    assert read.tolist() == features(tmp_path, spec, [str(day) for day in days])
    assert read[1].tolist() == [-1]


def test_yes_and_no_are_one_input(tmp_path: Path) -> None:
    spec = ColumnSpec(boolean=Truths(yes=("ja", "J"), no=("nein",)))
    assert features(tmp_path, spec, ["ja", "NEIN", "j"]) == [[1], [0], [1]]
    assert features(tmp_path, ColumnSpec(boolean=Truths()), ["True", "0"]) == [[1], [0]]
    with pytest.raises(DataError, match="'maybe': it is none of ja, j, nein in row 2"):
        features(tmp_path, spec, ["ja", "maybe"])


def test_unlisted_categories_share_one_more_where_declared(tmp_path: Path) -> None:
    spec = ColumnSpec(categories=("a", "b"), other=True)
    assert features(tmp_path, spec, ["b", "z", "a", "?"]) == np.eye(3)[[1, 2, 0, 2]].tolist()
    with pytest.raises(DataError, match="there is no value in row 2"):
        features(tmp_path, spec, ["b", "NA"])


def test_codes_fall_into_inputs_by_a_hash_without_a_key(tmp_path: Path) -> None:
    codes = ["E11.9", "I10", "é", unicodedata.normalize("NFD", "é"), "I10"]
    places = [
        int.from_bytes(
            hashlib.blake2b(unicodedata.normalize("NFC", code).encode(), digest_size=8).digest(),
            "big",
        )
        % 8
        for code in codes
    ]
    assert features(tmp_path, HASHED, codes) == np.eye(8)[places].tolist()
    assert places[2] == places[3] and places[1] == places[4]


def test_codes_are_not_scaled_and_never_move_under_attack() -> None:
    columns = {
        "age": ColumnSpec(low=0, high=10, coding=PiecewiseLinear(count=2)),
        "dose": ColumnSpec(low=0, high=4, missing=FillMissing(value=1, flag=True)),
        "day": ColumnSpec(low=2000, high=2010, date=Dates(parts=("year", "hour"))),
    }
    schema = table(columns).schema()
    scaler = fit_scaling(DeclaredScaling(), schema, None)
    coded = set(scaler.space(schema).categorical)
    assert [name for name in schema.feature_names() if name not in coded] == ["dose", "day=year"]
    for name, offset, scale in zip(
        schema.feature_names(), scaler.offset.tolist(), scaler.scale.tolist(), strict=True
    ):
        known = {"dose": (2, 2), "day=year": (2005, 5)}.get(name, (0, 1))
        assert (offset, scale) == known, name


# -- values that are not there -----------------------------------------------------------------


def test_a_declared_value_stands_in_for_none_with_a_flag(tmp_path: Path) -> None:
    spec = ColumnSpec(low=0, high=9, missing=FillMissing(value=2.5, flag=True))
    assert features(tmp_path, spec, ["1", "", "NA", "9"]) == [[1, 0], [2.5, 1], [2.5, 1], [9, 0]]
    words = ColumnSpec(categories=("a", "b"), missing=FillMissing(value="b"))
    assert features(tmp_path, words, ["a", ""]) == [[1, 0], [0, 1]]
    day = ColumnSpec(low=0, high=99, date=Dates(), missing=FillMissing(value="1970-01-03"))
    assert features(tmp_path, day, ["1970-01-02", ""]) == [[1], [2]]


def test_missing_is_decided_by_column(tmp_path: Path) -> None:
    columns = {
        "a": ColumnSpec(low=0, high=9, missing=DropMissing()),
        "b": ColumnSpec(low=0, high=9, missing=FillMissing(value=3)),
    }
    (tmp_path / "rows.csv").write_text("a,b,y\n1,1,no\n,1,no\n2,,yes\n,,yes\n")
    read = table(columns).read(tmp_path, 0, b"k")
    assert read.private.features.tolist() == [[1, 1], [2, 3]]
    assert read.notes == (f"{tmp_path}/rows.csv: dropped 2 rows (first: row 2), there is no value "
                          "in 'a'",)  # fmt: skip


def test_words_for_no_value_are_declared(tmp_path: Path) -> None:
    spec = ColumnSpec(low=0, high=99, missing=FillMissing(value=50))
    dialect = Dialect(missing=("?", "unknown", "-9"))
    cells = ["1", "?", "Unknown", "-9", "-9.0", "", "9"]
    expected = [[1], [50], [50], [50], [50], [50], [9]]
    assert features(tmp_path, spec, cells, dialect=dialect) == expected
    with pytest.raises(DataError, match="'NA': it is not a number"):  # declared words replace it
        features(tmp_path, spec, ["1", "NA"], dialect=dialect)


# -- dialects ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "word", "number"),
    [
        (GERMAN, "1.234,5", 1234.5), (GERMAN, "12.345.678", 12345678.0), (GERMAN, "1,5", 1.5),
        (GERMAN, "1.5", None), (GERMAN, "1.23,4", None), (GERMAN, "12345,0", 12345.0),
        (GERMAN, "1,5e3", 1500.0), (GERMAN, "-1.000", -1000.0), (GERMAN, "1,2,3", None),
        (Dialect(thousands=","), "1,234.5", 1234.5), (Dialect(thousands=","), "1,23", None),
        (Dialect(decimal=",", thousands=" "), "1\u202f234,5", 1234.5),
        (Dialect(decimal=",", thousands=" "), "1 234", 1234.0),
        (Dialect(thousands="'"), "1’234.5", 1234.5), (Dialect(decimal=","), "1.234,5", None),
        (PLAIN, "1,5", None),
    ],
)  # fmt: skip
def test_a_number_means_one_thing_or_is_refused(
    tmp_path: Path, dialect: Dialect, word: str, number: float | None
) -> None:
    spec = ColumnSpec(low=-1e9, high=1e9)
    dialect = replace(dialect, separator=None, encoding="utf-8")
    if number is None:
        with pytest.raises(DataError, match="it is not a number in row 2"):
            features(tmp_path, spec, ["1", word], dialect=dialect)
    else:
        assert features(tmp_path, spec, ["1", word], dialect=dialect) == [[1], [number]]


WRITTEN = {
    "utf-8.csv": (PLAIN, "utf-8", ",", "."),
    "latin.csv": (GERMAN, "latin-1", ";", ","),
    "bars.txt": (Dialect(separator="|", quote="'"), "utf-8-sig", "|", "."),
    "tabs.csv": (Dialect(separator="tab", encoding="cp1252", decimal=","), "cp1252", "\t", ","),
}


def written(folder: Path, name: str) -> tuple[Table, Path]:
    """The same forty people, as each dialect writes them."""
    dialect, encoding, separator, decimal = WRITTEN[name]
    draw = random.Random(5)
    none = "NA" if dialect.missing is None else "k.A."
    lines = [["größe", "stadt", "lohn", "y"]]
    for place in range(40):
        size, pay = round(draw.uniform(1, 2), 3), draw.randrange(500, 90_000) + 0.25
        shown = f"{pay:,.2f}" if dialect.thousands else f"{pay:.2f}"
        if dialect.thousands:
            shown = shown.replace(",", "\0").replace(".", decimal).replace("\0", ".")
        missing = place % 9 == 4
        lines.append([
            none if missing else str(size).replace(".", decimal),
            draw.choice(["Köln", "Mainz"]), shown.replace(".", decimal)
            if not dialect.thousands else shown, ("no", "yes")[place % 2],
        ])  # fmt: skip
    quote = "'" if dialect.quote == "'" else '"'
    body = "\n".join(
        separator.join(f"{quote}{v}{quote}" if separator in v else v for v in line)
        for line in lines
    )
    (folder / name).write_bytes(body.encode(encoding))
    columns = {
        "größe": ColumnSpec(low=0, high=3, missing=FillMissing(value=1.7, flag=True)),
        "stadt": ColumnSpec(categories=("Köln", "Mainz")),
        "lohn": ColumnSpec(low=0, high=1e5),
    }
    return table(columns, path=name, dialect=dialect, size=40), folder / name


def test_one_table_in_every_dialect_is_the_same_rows_and_the_same_account(tmp_path: Path) -> None:
    """Cells are sketched as numbers and words, so another export gets no second budget."""
    read = [written(tmp_path, name)[0].read(tmp_path, 0, b"k") for name in WRITTEN]
    first = read[0]
    assert len({tuple(map(tuple, r.private.features.tolist())) for r in read}) == 1
    sketches = {sketched(r.cells, b"key").to_bytes() for r in read}
    assert len(sketches) == 1
    other = of_table({"a": [float(i) ** 2 for i in range(40)], "b": ["x"] * 40})
    assert not sketched(other, b"key").same_data(sketched(first.cells, b"key"))


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("decimal", [".", ","])
def test_quotes_make_no_second_account(tmp_path: Path, quote: str, decimal: Any) -> None:
    """A file whose values are all quoted, read with its quotes and without them."""
    draw, words = random.Random(2), [f"w{n}" for n in range(12)]
    codes = [f"{n / 2}".replace(".", decimal) for n in range(12)]
    rows = [
        [draw.choice(words), draw.choice(codes), draw.choice(["no", "yes"])] for _ in range(200)
    ]
    lines = [";".join(f"{quote}{cell}{quote}" for cell in row) for row in [["a", "b", "y"], *rows]]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    found: list[Any] = []
    for form, mark in ((quote, ""), ("none", quote)):
        shown = [
            [f"{mark}{cell}{mark}" for cell in cells]
            for cells in (words, codes, ["no", "yes"], ["a", "b", "y"])
        ]
        columns = {
            name: ColumnSpec(categories=tuple(cells))
            for name, cells in zip(shown[3], shown[:2], strict=False)
        }
        dialect = Dialect(separator=";", quote=form, decimal=decimal)  # type: ignore[arg-type]
        option = table(
            columns, size=200, dialect=dialect, target=shown[3][2], classes=tuple(shown[2])
        )
        found.append(sketched(option.read(tmp_path, 0, b"k").cells, b"key"))
    assert found[0] == found[1]


def test_dates_are_sketched_whatever_their_format(tmp_path: Path) -> None:
    """Days in words are no data of one's own; times of the day are the same in every format."""
    draw = random.Random(1)
    first = datetime.datetime(2024, 1, 1)
    for step, formats in (
        (1440, ("%d %b %Y", "%Y-%m-%d")),
        (7, ("%d.%m.%y %H:%M", "%Y/%m/%d %H:%M")),
    ):
        moments = [first + datetime.timedelta(minutes=step * n) for n in range(300)]
        found: list[Any] = []
        values = [(f"{draw.random():.6f}", draw.choice(["no", "yes"])) for _ in moments]
        for form in formats:
            lines = [
                f"{m.strftime(form)},{v},{y}" for m, (v, y) in zip(moments, values, strict=True)
            ]
            (tmp_path / "rows.csv").write_text("\n".join(["a,b,y", *lines]) + "\n")
            columns = {
                "a": ColumnSpec(date=Dates(format=form), low=0, high=1e5),
                "b": ColumnSpec(low=0, high=1),
            }
            found.append(sketched(table(columns, size=300).read(tmp_path, 0, b"k").cells, b"key"))
        assert found[0] == found[1]


def test_a_wrong_dialect_gives_the_same_data_no_second_account(tmp_path: Path) -> None:
    """Who declares other words for no value takes these cells out of the sketch, and no others."""
    option, file = written(tmp_path, "utf-8.csv")
    honest = sketched(option.read(tmp_path, 0, b"k").cells, b"key")
    sizes = {line.split(",")[0] for line in file.read_text().splitlines()[1:]}
    liar = replace(option, dialect=Dialect(missing=("NA", *sizes)), on_missing="drop")
    assert sketched(liar.read(tmp_path, 0, b"k").cells, b"key").same_data(honest)


@pytest.mark.parametrize(
    ("spec", "words", "where"),
    [
        (ColumnSpec(categories=("a", "B")), ("?", "b"), "'B' as .* and columns.x as a value"),
        (ColumnSpec(categories=("-9.0", "1")), ("-9",), "'-9.0' as .* and columns.x as a value"),
        (ColumnSpec(boolean=Truths()), ("TRUE",), "'true' as .* and columns.x as a value"),
        (ColumnSpec(low=0, high=1), ("No",), "'no' as .* and classes as a value"),
    ],
)
def test_a_declared_value_is_no_word_for_no_value(
    spec: ColumnSpec, words: tuple[str, ...], where: str
) -> None:
    """Training would read it, and the ledger's sketch would not: a second budget."""
    with pytest.raises(BadArgument, match=f"dialect.missing declares {where}; take it out"):
        table({"x": spec}, dialect=Dialect(missing=words))
    table({"x": spec}, dialect=Dialect(missing=("?", "k.A.")))


def test_a_column_of_words_is_sketched_as_words_in_every_dialect(tmp_path: Path) -> None:
    """Training reads "1,5" as the category that it is, also where a comma is decimal."""
    codes = [f"{a},{b}" for a in range(1, 8) for b in range(1, 8)]
    draw = random.Random(3)
    lines = [
        "a;b;y",
        *(
            f"{draw.choice(codes)};{draw.choice(codes)};{draw.choice(['no', 'yes'])}"
            for _ in range(200)
        ),
    ]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    spec = ColumnSpec(categories=tuple(codes))
    found = [
        table({"a": spec, "b": spec}, size=200, dialect=dialect).read(tmp_path, 0, b"k").cells
        for dialect in (Dialect(separator=";"), Dialect(separator=";", decimal=","))
    ]
    one, other = (sketched(cells, b"key") for cells in found)
    assert one == other


@pytest.mark.parametrize(
    ("dialect", "message"),
    [
        (PLAIN, 'by semicolons; declare `dialect: {separator: ";"}`, or save it with commas'),
        (replace(GERMAN, encoding="utf-8"), "is not UTF-8 text; .* `dialect: {encoding: cp1252}`"),
        (replace(GERMAN, separator="|"), "by semicolons; declare"),
        (replace(GERMAN, decimal=".", thousands=None), "'1,.*': it is not a number"),
    ],
)
def test_a_dialect_that_does_not_fit_is_told(
    tmp_path: Path, dialect: Dialect, message: str
) -> None:
    option, file = written(tmp_path, "latin.csv")
    if dialect is PLAIN:
        file.write_bytes(file.read_bytes().decode("latin-1").encode().replace(b",", b""))
    with pytest.raises(DataError, match=message):
        replace(option, dialect=dialect).read(tmp_path, 0, b"k")


# -- all faults in one sentence ----------------------------------------------------------------


def test_all_faults_of_a_table_are_told_at_once(tmp_path: Path) -> None:
    columns = {
        "age": ColumnSpec(low=0, high=99), "sex": ColumnSpec(categories=("f", "m")),
        "day": ColumnSpec(low=0, high=1e6, date=Dates()),
    }  # fmt: skip
    rows = ["50,f,2020-01-01,no"] * 9
    rows[2], rows[4] = "120,f,2020-01-01,no", "old,x,2020-02-30,maybe"
    rows[5], rows[7] = ",z,2020-01-01,yes", "-1,x,,no"
    (tmp_path / "rows.csv").write_text("\n".join(["age,sex,day,y", *rows]))
    with pytest.raises(DataError) as told:
        table(columns).read(tmp_path, 0, b"k")
    said = str(told.value)
    for part in (
        "has 7 faults, in 4 of 9 rows: ", "column 'age': 'old': it is not a number in row 5",
        "column 'age': '120': the value lies outside [0, 99] in rows 3 and 8",
        "column 'age': there is no value in row 6",
        "column 'sex': 'x' (and 1 other value): it is none of f, m in rows 5, 6 and 8",
        "column 'day': '2020-02-30': it is no date of the form %Y-%m-%d in row 5",
        "column 'day': there is no value in row 8", "'y': 'maybe': it is none of no, yes in row 5",
    ):  # fmt: skip
        assert part in said
    assert told.value.column == "age" and len(said) < 1000


def test_a_flood_of_faults_is_cut_short(tmp_path: Path) -> None:
    names = [f"column number {i}" for i in range(60)]
    body = f"{','.join(names)},y\n{','.join(['x' * 100] * 60)},no\n{','.join(['1'] * 60)},yes\n"
    (tmp_path / "rows.csv").write_text(body)
    with pytest.raises(
        DataError, match=r"has 60 faults, in 1 of 2 rows: .*; and 5\d more; "
    ) as told:
        table({name: ColumnSpec(low=0, high=1) for name in names}).read(tmp_path, 0, b"k")
    assert len(str(told.value)) < 1000


# -- declarations that cannot be ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ColumnSpec(categories=("a",), hash=8), "categories and hash exclude each other"),
        (lambda: ColumnSpec(low=0, boolean=Truths()), "low=0 and boolean exclude each other"),
        (lambda: ColumnSpec(hash=8, coding=Bins(count=2)), "coding and hash exclude each other"),
        (lambda: ColumnSpec(high=3, date=Dates(parts=("month",))), "high=3 and date exclude"),
        (lambda: ColumnSpec(hash=1), "hash=1 must be from 2 to 4096"),
        (lambda: ColumnSpec(other=True), "other=True needs `categories`"),
        (lambda: ColumnSpec(low=0, coding=Bins(count=2)), "coding needs `low` and `high`"),
        (lambda: ColumnSpec(low=0, high=2, coding=Bins(edges=(2,))), "must lie between low=0 and"),
        (lambda: ColumnSpec(text=True), "under `drop`, train on it alone with `data: {kind: text}"),
        (lambda: Bins(), "count or edges must be declared"),
        (lambda: Bins(count=2, edges=(1,)), "count or edges must be declared, and not both"),
        (lambda: Bins(edges=(2, 1)), "must be finite and rise"),
        (lambda: PiecewiseLinear(count=1), "count=1 must be from 2"),
        (lambda: Truths(yes=("a",), no=("A",)), "must be different words"),
        (lambda: Dates(format="%d."), "does not hold month and year"),
        (lambda: Dates(format="%Q"), "none that dates can be read by"),
        (lambda: Dates(origin="2000"), "origin='2000' must be a date"),
        (lambda: Dates(parts=("year", "year")), "must differ"),
        (lambda: Dialect(decimal=",", thousands=","), "is the decimal mark as well"),
        (lambda: FillMissing(value=None), "value=None must be a number or a text"),
        (lambda: table({"x": ColumnSpec(low=0, high=1, missing=FillMissing(value=2))}),
         "value=2 fills column 'x', where the value lies outside"),
        (lambda: table({"x": ColumnSpec(categories=("a",), missing=FillMissing(value="b"))}),
         "value='b' fills column 'x', where it is none of a"),
        (lambda: table({"x": ColumnSpec(low=0, high=1)}, path="r.parquet", dialect=GERMAN),
         "dialect.separator: ';' is of text in columns"),
        (lambda: table({"x": ColumnSpec(date=Dates(parts=("year",)))}), "column 'x' has none"),
        (lambda: table({"x": ColumnSpec(categories=("y",)), "x=y": ColumnSpec(low=0, high=1)}),
         "two inputs called 'x=y'"),
    ],
)  # fmt: skip
def test_impossible_columns_are_refused_before_a_row_is_read(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

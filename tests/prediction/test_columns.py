"""Features made a column at a time are those that training makes cell by cell, bit for bit."""

from __future__ import annotations

import csv
import gzip
import json
import math
import random
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from nacre.core.errors import DataError, FileDamaged
from nacre.data import ColumnSpec, NoScaling, Table
from nacre.data.columns.dates import Dates
from nacre.data.columns.dialect import PLAIN, Dialect
from nacre.data.columns.spec import Bins, DropMissing, FillMissing, PiecewiseLinear, Truths
from nacre.prediction import csv_file
from nacre.prediction.columns import read_features
from nacre.prediction.faults import FaultTally
from nacre.prediction.row_files import open_rows
from nacre.prediction.signature import read_signature, signature_of

NUMBERS = [
    "1", " 2 ", "+3", "-4.5", ".5", "5.", "1e2", "1E-3", "1_0", "٣", "0x10", "inf", "-inf", "nan",
    "NaN", "-nan", "", "NA", "n/a", "null", "None", "1e999", "4.9e-324", "0.1", "1/2", "true",
    "-0", "\u00a07\u00a0", "1e39", "123456789.123456789", "9007199254740993", "1,5", "nan(1)",
]  # fmt: skip
E_ACUTE = "é"
WORDS = [
    "a", " a", "A", "3", "3.0", "true", "True", "", "NA", "none", "na ", E_ACUTE,
    unicodedata.normalize("NFD", E_ACUTE), "\u2003a\u2003", "other",
]  # fmt: skip
CHOICES = ("a", "3", "true", "NA", E_ACUTE, "2.5")


@pytest.fixture(autouse=True)
def any_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets training read rows of which none stays, or none of a class."""
    monkeypatch.setattr("nacre.data.table.checked", lambda cohorts, schema, where: cohorts)


def table(path: str, **policies: Any) -> Table:
    return Table(
        path=path, target="y", classes=("no", "yes"), size=1, scaling=NoScaling(),
        columns={
            "x": ColumnSpec(low=-100, high=1e4), "free": ColumnSpec(),
            "c": ColumnSpec(categories=CHOICES),
        },
        **policies,
    )  # fmt: skip


def seen(option: Table, folder: Path) -> tuple[Any, list[bool]]:
    """(features, whether each row is kept) by the way of predictions."""
    file = open_rows(folder / option.path, signature_of(option))
    tally, parts, kept, count = FaultTally(option.path), [], [], 0
    for chunk in file.chunks():
        features, faults = read_features(chunk.columns, signature_of(option), chunk.count)
        without = set(tally.add(faults, count, chunk.count).tolist())
        kept += [place not in without for place in range(chunk.count)]
        parts.append(features)
        count += chunk.count
    tally.check()
    return np.concatenate(parts), kept


def same_as_training(option: Table, folder: Path) -> int:
    """Compares the two ways, or their refusals; how many rows stay."""
    try:
        trained = option.read(folder, 0, bytes(32)).private.features.numpy()
    except DataError as refusal:
        with pytest.raises(DataError) as other:
            seen(option, folder)
        assert other.value.column == refusal.column
        return 0
    features, kept = seen(option, folder)
    assert features[kept].dtype == trained.dtype == np.float32
    assert features[kept].tobytes() == trained.tobytes()
    return len(trained)


def write(path: Path, columns: dict[str, list[Any]]) -> None:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        rows = zip(*columns.values(), strict=True)
        path.write_text("\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in rows))
    else:
        with path.open("w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))


POLICIES = [
    {"on_missing": "drop", "on_out_of_range": "drop"},
    {"on_missing": "drop", "on_out_of_range": "clamp"},
    {},
]


@pytest.mark.diagonal
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("policies", POLICIES, ids=["drop", "clamp", "refuse"])
def test_each_odd_cell_is_read_as_training_reads_it(
    tmp_path: Path, form: str, policies: dict[str, Any]
) -> None:
    """One odd cell among plain ones, so that no refusal hides another."""
    option = table(f"rows.{form}", **policies)
    plain = {"x": ["1.5", "2"], "free": ["0", "7"], "c": ["a", "3"], "y": ["no", "yes"]}
    stayed = 0
    for name, values in (("x", NUMBERS), ("free", NUMBERS), ("c", WORDS)):
        for value in values:
            columns = {key: [*cells] for key, cells in plain.items()}
            for key in columns:
                columns[key].append(value if key == name else columns[key][0])
            write(tmp_path / option.path, columns)
            stayed += same_as_training(option, tmp_path)
    assert stayed > 60


TYPED = {
    "whole": [1, None, 200000, -7, 2**53 + 1],
    "real": [1.0, float("nan"), 3.0, 2.5, float("inf")],
    "sure": [True, False, None, True, True],
    "nothing": [None] * 5,
}


@pytest.mark.parametrize("name", TYPED)
@pytest.mark.parametrize("role", ["x", "free", "c"])
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_typed_values_are_read_as_training_reads_them(
    tmp_path: Path, form: str, name: str, role: str
) -> None:
    values = TYPED[name]
    columns = {"x": [1] * 5, "free": [1] * 5, "c": ["a"] * 5, "y": ["no", "yes"] * 2 + ["no"]}
    for policies in POLICIES:
        option = table(f"rows.{form}", **policies)
        write(tmp_path / option.path, columns | {role: values})
        same_as_training(option, tmp_path)


def test_other_types_of_arrow_are_read_as_training_reads_them(tmp_path: Path) -> None:
    option = table("rows.parquet", **POLICIES[0])
    from decimal import Decimal

    odd = [
        pa.array([Decimal("1.50"), Decimal("2.25"), None]),
        pa.array([1.1, 2.2, None], pa.float32()),
        pa.array([1, 2, None], pa.uint64()),
        pa.array(["1", "a", None]).dictionary_encode(),
        pa.array([3.0, 2.5, 7.0], pa.float32()),
        pa.array(["3", "2.50", "2.5"], pa.large_string()),
    ]
    for values in odd:
        for role in ("x", "c"):
            columns = {"x": [1] * 3, "free": [1] * 3, "c": ["a"] * 3, "y": ["no", "yes", "no"]}
            write(tmp_path / option.path, columns | {role: values})
            same_as_training(option, tmp_path)


def test_many_random_rows_over_several_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nacre.prediction.csv_file.CHUNK", 64)
    draw = random.Random(3)
    legal = [
        text for text in NUMBERS if text not in ("0x10", "1/2", "true", "1,5", "nan(1)", "-nan")
    ]
    cells = {
        "x": [draw.choice([*legal, repr(draw.gauss(0, 50))]) for _ in range(300)],
        "free": [repr(draw.gauss(0, 1) * math.exp(draw.uniform(-300, 80))) for _ in range(300)],
        "c": [draw.choice(WORDS) for _ in range(300)],
        "y": [draw.choice(["no", "yes"]) for _ in range(300)],
    }
    option = table("rows.csv", **POLICIES[0])
    write(tmp_path / option.path, cells)
    assert same_as_training(option, tmp_path) > 50


GERMAN = Dialect(separator=";", decimal=",", thousands=".", encoding="latin-1", missing=("?", "-9"))
DECLARED = {
    "x": ColumnSpec(low=-100, high=1e4, missing=FillMissing(value=7, flag=True)),
    "p": ColumnSpec(low=-100, high=1e4, coding=PiecewiseLinear(edges=(0, 2.5, 10))),
    "b": ColumnSpec(low=-100, high=1e4, coding=Bins(count=5), missing=DropMissing()),
    "c": ColumnSpec(categories=CHOICES, other=True, missing=FillMissing(value="a")),
    "h": ColumnSpec(hash=6),
    "d": ColumnSpec(
        low=-99, high=99, date=Dates(format="%d.%m.%Y", unit="years"),
        missing=FillMissing(value="01.01.2000", flag=True),
    ),
    "q": ColumnSpec(low=1900, high=2100, date=Dates(parts=("year", "month", "weekday", "day"))),
    "t": ColumnSpec(boolean=Truths(yes=("ja", "1"), no=("nein", "0"))),
}  # fmt: skip
CELLS = {
    "x": [*NUMBERS, "1.234,5", "1,25", "-9", "-9,0", "9.999", "1.2.3"],
    "p": [*NUMBERS, "1.234,5", "1,25", "2,5", "10", "-9"], "b": [*NUMBERS, "2.500,0", "?"],
    "c": [*WORDS, "?", "-9"], "h": [*WORDS, "E11.9", "?", "-9", "-9.0"],
    "d": ["31.12.1999", "1.1.2020", "?", "29.02.2023", "2020-01-01", ""],
    "q": ["2020-02-29", "?", " 1999-12-31 ", "20200101", "1899-01-01", ""],
    "t": ["ja", "NEIN", " 1 ", "0", "?", "x"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("form", "dialect"), [("csv", GERMAN), ("jsonl", PLAIN), ("parquet", GERMAN)]
)
def test_every_declared_column_is_read_as_training_reads_it(
    tmp_path: Path, form: str, dialect: Dialect
) -> None:
    """Through a signature that went to JSON and back, one odd cell among plain ones."""
    if form != "csv":
        dialect = replace(dialect, separator=None, encoding="utf-8")
    plain = dict(zip(DECLARED, ["1", "2", "3", "a", "k", "31.12.1999", "2020-02-29", "ja"],
                     strict=True))  # fmt: skip
    option = Table(
        path=f"rows.{form}", target="y", classes=("no", "yes"), size=1, scaling=NoScaling(),
        columns=DECLARED, dialect=dialect, on_out_of_range="clamp",
    )  # fmt: skip
    stayed = 0
    for name, values in CELLS.items():
        for value in values:
            columns = {key: [cell, value if key == name else cell] for key, cell in plain.items()}
            columns["y"] = ["no", "yes"]
            file = tmp_path / option.path
            write(file, columns)
            if form == "csv" and dialect is GERMAN:
                with file.open(newline="") as opened:
                    lines = [*csv.reader(opened)]
                with file.open("w", newline="", encoding="latin-1", errors="replace") as opened:
                    csv.writer(opened, delimiter=";").writerows(lines)
            stayed += same_as_training(option, tmp_path)
    assert stayed > 100


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_looks_like_utf_8_is_doubted(
    tmp_path: Path, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blocks of three bytes, so that letters of two lie over their edges."""
    monkeypatch.setattr(csv_file, "WIDE", 3)
    file = tmp_path / ("rows.csv.gz" if packed else "rows.csv")
    for text, encoding, looks in (
        ("größe\nö\n", "utf-8", True), ("größe\n", "latin-1", False), ("a\n1\n", "utf-8", False),
        ("größe\nÃ", "latin-1", False), ("aö\nÃ", "cp1252", False),
    ):  # fmt: skip
        data = text.encode(encoding)
        file.write_bytes(gzip.compress(data) if packed else data)
        doubt = csv_file.encoding_doubt(file, GERMAN)
        assert (doubt is not None) == looks, text
        if doubt is not None:
            assert "looks like UTF-8, and the model reads latin-1" in doubt
        assert csv_file.encoding_doubt(file, PLAIN) is None
    assert csv_file.encoding_doubt(tmp_path / "absent.csv", GERMAN) is None


def test_a_signature_that_was_tampered_with_is_refused() -> None:
    option = Table(path="r.csv", target="y", classes=("n", "y"), size=1, columns=DECLARED,
                   dialect=GERMAN)  # fmt: skip
    known = json.loads(json.dumps(signature_of(option).to_json()))
    assert read_signature(known, "model.json") == signature_of(option)
    by_name = {column["name"]: place for place, column in enumerate(known["columns"])}
    for name, changes in (
        ("x", {"fill": 1e9}), ("p", {"edges": [3, 1]}), ("b", {"coding": "plain"}),
        ("h", {"buckets": 0}), ("d", {"dates": None}), ("q", {"dates": {"format": "%d"}}),
        ("t", {"yes": []}), ("c", {"kind": "hash"}), ("x", {"missing": "mean"}),
        ("x", {"flag": "yes"}),
    ):  # fmt: skip
        bad = json.loads(json.dumps(known))
        bad["columns"][by_name[name]] |= changes
        with pytest.raises(FileDamaged, match="is not what nacre writes"):
            read_signature(bad, "model.json")
    for changes in ({"separator": "#"}, {"decimal": "."}, {"quotes": "x"}, {"missing": 3}):
        bad = json.loads(json.dumps(known))
        bad["dialect"] |= changes
        with pytest.raises(FileDamaged, match="is not what nacre writes"):
            read_signature(bad, "model.json")


def test_a_signature_from_before_dialects_reads_as_it_did() -> None:
    option = table("rows.csv", on_missing="drop")
    older = json.loads(json.dumps(signature_of(option).to_json()))
    del older["dialect"]
    keys = ("name", "kind", "low", "high", "categories")
    older["columns"] = [{key: column[key] for key in keys} for column in older["columns"]]
    assert read_signature(older, "model.json") == signature_of(option)


def test_a_refusal_names_column_value_rows_and_remedy(tmp_path: Path) -> None:
    option = table("rows.csv")
    for name, value, words in (
        (
            "x",
            "2e4",
            r"column 'x': '2e4': the value lies outside \[-100, 10000\] in rows 2 and 4",
        ),
        ("x", "", r"column 'x': there is no value in rows 2 and 4; fill them, or train"),
        ("x", "tall", r"column 'x': 'tall': it is not a number in rows 2 and 4; correct it"),
        ("c", "b", r"column 'c': 'b': it is none of a, 3, true, NA, é, 2.5 in rows 2 and 4"),
    ):
        columns = {"x": ["1"] * 4, "free": ["1"] * 4, "c": ["a"] * 4, "y": ["no"] * 4}
        columns[name][1] = columns[name][3] = value
        write(tmp_path / "rows.csv", columns)
        with pytest.raises(DataError, match=words):
            seen(option, tmp_path)

"""`nacre predict`: the same rows out, in their order, with predictions; and what is refused."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from click.testing import Result

from nacre.core.errors import DataError, NacreError
from nacre.data.columns.dialect import Dialect
from nacre.data.readers import read_table
from nacre.models import build, save
from nacre.prediction.predict_file import predict_file
from nacre.prediction.predictor import load_model
from nacre.prediction.row_writers import CsvWriter, JsonWriter, ParquetWriter
from tests.models.test_load import OPTION

HEADER = "id,age,ward,pulse,note\n"
ROWS = '7,50,east,70,"a, ""b"""\n8,20,3,300,=1+1\n9,,west,60,-4\n10,1_0, east ,+50,-x\n'


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    (tmp_path / "rows.csv").write_text(HEADER + ROWS)
    return tmp_path / "rows.csv"


def refused(result: Result, words: str, code: int = 2) -> None:
    assert result.exit_code == code, result.output
    last = result.stderr.splitlines()[-1]
    assert last.startswith("nacre: ") and words in last, result.stderr
    assert "Traceback" not in result.output


def refused_alone(result: Result, words: str) -> None:
    """Nothing else was printed, not even that something began."""
    refused(result, words)
    assert result.stderr.count("\n") == 1 and not result.stdout, result.output


def test_rows_come_out_as_they_went_in(place: Path, rows: Path, nacre: Any) -> None:
    out = rows.with_name("out.csv")
    before = sorted(path for path in (place / "table").rglob("*"))
    result = nacre("predict", place / "table", rows, "-o", out)
    assert result.exit_code == 0, result.output
    assert (
        "3 of 4 rows have a prediction; 1 have none (`nacre_note` says why); of 1" in result.stdout
    )
    assert before == sorted(path for path in (place / "table").rglob("*"))
    given, found = (list(csv.DictReader(io.StringIO(path.read_text()))) for path in (rows, out))
    names = ["prediction", "probability_no", "probability_yes", "nacre_note"]
    assert list(found[0]) == [*given[0], *names]
    inert = {"=1+1": "'=1+1", "-x": "'-x"}
    for before_row, row in zip(given, found, strict=True):
        kept = {key: inert.get(value, value) for key, value in before_row.items()}
        assert {key: row[key] for key in before_row} == kept
    assert [row["nacre_note"] for row in found] == [
        "",
        "pulse: the value lies outside [30, 220] and was moved to it",
        "age: there is no value",
        "",
    ]
    assert found[2]["prediction"] == found[2]["probability_no"] == ""
    model = load_model(place / "table")
    frame = pd.DataFrame(given)
    assert [row["prediction"] or None for row in found] == list(model.predict(frame))
    shares = np.array([[row[name] or "nan" for name in names[1:3]] for row in found], np.float32)
    assert shares.tobytes() == model.predict_proba(frame).tobytes()


def test_a_file_in_another_encoding_is_told_of(place: Path, tmp_path: Path, nacre: Any) -> None:
    """In one line, before the rows are read: so also where they are refused."""
    model = tmp_path / "model"
    assert nacre("export", place / "table", model).exit_code == 0
    facts = json.loads((model / "model.json").read_text())
    facts["signature"]["dialect"] = {"encoding": "latin-1"}
    (model / "model.json").write_text(json.dumps(facts))
    file = tmp_path / "rows.csv"
    said = f"{file} looks like UTF-8, and the model reads latin-1: "
    for text, code, told in (
        ("age,ward,pulse,größe\n50,east,70,1\n", 0, True),
        ("age,ward,pulse\n50,süd,70\n", 2, True),
        ("age,ward,pulse\n50,east,70\n", 0, False),
    ):
        file.write_text(text, encoding="utf-8")
        result = nacre("predict", model, file)
        assert result.exit_code == code, result.output
        assert result.stderr.count(said) == told


def test_predictions_come_in_the_dialect_of_the_rows(
    place: Path, tmp_path: Path, nacre: Any
) -> None:
    model, file, out = tmp_path / "model", tmp_path / "rows.csv", tmp_path / "out.csv"
    assert nacre("export", place / "table", model).exit_code == 0
    facts = json.loads((model / "model.json").read_text())
    facts["signature"]["dialect"] = {"encoding": "latin-1", "separator": ";", "decimal": ","}
    (model / "model.json").write_text(json.dumps(facts))
    file.write_text("age;ward;pulse;größe\n50,5;east;70;-1,5\n", encoding="latin-1")
    assert nacre("predict", model, file, "-o", out).exit_code == 0
    head, row = (line.split(";") for line in out.read_text(encoding="latin-1").splitlines())
    assert head[:5] == ["age", "ward", "pulse", "größe", "prediction"]
    assert row[:4] == ["50,5", "east", "70", "-1,5"] and row[5].startswith("0,")


def test_every_form_holds_the_same(place: Path, rows: Path, nacre: Any) -> None:
    """CSV, packed CSV, TSV, JSONL and Parquet in; CSV, JSONL and Parquet out; and a pipe."""
    frame = pd.read_csv(rows, dtype=str, keep_default_na=False)
    folder = rows.parent
    with gzip.open(folder / "rows.csv.gz", "wt") as file:
        file.write(HEADER + ROWS)
    frame.assign(note="").to_csv(folder / "rows.tsv", sep="\t", index=False)
    frame.to_parquet(folder / "rows.parquet")
    frame.to_json(folder / "rows.jsonl", orient="records", lines=True)
    found = []
    for name in ("rows.csv", "rows.csv.gz", "rows.tsv", "rows.parquet", "rows.jsonl"):
        for ending in ("csv", "jsonl", "parquet"):
            out = folder / f"out.{ending}"
            document = json.loads(
                nacre("predict", place / "table", folder / name, "-o", out, "--json").stdout
            )
            assert "rows" in document, (name, ending, document)
            assert (document["rows"], document["without_prediction"]) == (4, 1)
            assert (document["clamped"], document["output"]) == (1, str(out))
            if ending == "jsonl":
                table = pd.DataFrame(map(json.loads, out.read_text().splitlines()))
            elif ending == "parquet":
                table = pyarrow.parquet.read_table(out).to_pandas()
            else:
                table = pd.read_csv(out)
            shares = table["probability_no"].to_numpy(np.float64).astype(np.float32)
            found.append((list(table["id"].astype(int)), shares.tobytes(), list(table.columns)))
    assert all(one == found[0] for one in found)
    piped = nacre("predict", place / "table", rows)
    assert piped.stdout == (nacre("predict", place / "table", rows, "-o", folder / "o.csv") and
                            (folder / "o.csv").read_text())  # fmt: skip
    assert "3 of 4 rows have a prediction" in piped.stderr


def test_images_text_and_a_language_model(place: Path, tmp_path: Path, nacre: Any) -> None:
    out = tmp_path / "out.csv"
    assert nacre("predict", place / "images", place / "images.npz", "-o", out).exit_code == 0
    found = pd.read_csv(out)
    assert list(found) == ["y", "name", "prediction", "probability_0", "probability_1"]
    assert list(found["name"]) == [f"i{i}" for i in range(60)]
    pixels = np.arange(64, dtype=np.uint8).reshape(1, 8, 8) % 17
    idx = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in pixels.shape)
    (tmp_path / "pixels-idx3-ubyte").write_bytes(idx + pixels.tobytes())
    result = nacre("predict", place / "images", tmp_path / "pixels-idx3-ubyte")
    assert result.stdout.startswith("prediction,probability_0,probability_1\n"), result.output
    assert nacre("predict", place / "text", place / "reviews.jsonl", "-o", out).exit_code == 0
    assert list(pd.read_csv(out))[:4] == ["id", "text", "label", "prediction"]
    (tmp_path / "lines.txt").write_text("note 1 of mine\n\nx\n")
    (tmp_path / "one.jsonl").write_text('{"text": ""}\n{"text": "abc"}\n')
    assert nacre("predict", place / "language", tmp_path / "lines.txt", "-o", out).exit_code == 0
    found = pd.read_csv(out)
    assert list(found) == ["text", "log_likelihood", "perplexity", "nacre_note"]
    np.testing.assert_allclose(np.exp(-found["log_likelihood"]), found["perplexity"])
    refused(
        nacre("predict", place / "language", tmp_path / "one.jsonl"), "there is no text in row 1"
    )


def test_columns_of_the_same_name_need_a_prefix(place: Path, rows: Path, nacre: Any) -> None:
    rows.write_text(rows.read_text().replace("note", "prediction", 1))
    refused(nacre("predict", place / "table", rows), "`--prefix`")
    refused(nacre("predict", place / "table", rows, "--prefix", "a\nb"), "signs that no line shows")
    result = nacre("predict", place / "table", rows, "--prefix", "new_")
    assert result.stdout.splitlines()[0].endswith(
        "pulse,prediction,new_prediction,new_probability_no,new_probability_yes,new_nacre_note"
    )
    again = nacre("predict", place / "table", rows, "--json")
    refused(again, "name a file for them with `-o predictions.csv`")


def test_a_refused_row_leaves_no_file(place: Path, rows: Path, nacre: Any) -> None:
    out = rows.with_name("out.csv")
    out.write_text("mine")
    rows.write_text(HEADER + ROWS.replace("west", "north").replace("_0", "k"))
    words = (
        "has 2 faults, in 2 of 4 rows: column 'age': '1k': it is not a number in row 4; column "
        "'ward': 'north': it is none of east, west, 3 in row 3; "
    )
    refused(nacre("predict", place / "table", rows, "-o", out), words)
    printed = nacre("predict", place / "table", rows)
    refused(printed, words)
    assert not printed.stdout, "a header is no answer"
    assert out.read_text() == "mine"
    assert sorted(path.name for path in rows.parent.iterdir()) == ["out.csv", "rows.csv"]


WRONG: dict[str, tuple[str, bytes | None, str]] = {
    "missing": ("rows.csv", None, "cannot be read (no such file or directory)"),
    "empty": ("rows.csv", b"", "is empty, so it has no header"),
    "no rows": ("rows.csv", b"age,ward,pulse\n", "holds no rows, so there is nothing to predict"),
    "column": ("rows.csv", b"age,ward\n1,3\n", "has no column 'pulse' (it has age, ward)"),
    "twice": ("rows.csv", b"age,age,ward,pulse\n1,1,3,4\n", "has column 'age' twice"),
    "separator": ("rows.csv", b"age;ward;pulse\n1;3;4\n", "and the model reads commas: save"),
    "ragged": ("rows.csv", b"age,ward,pulse\n1,3,50\n1,3\n", "row 2 has 2 values and the header"),
    "quote": ("rows.csv", b'age,ward,pulse\n1,3,"50\n2,3,50\n', "cannot be read"),
    "latin": ("rows.csv", b"age,ward,pulse\n1,\xff,50\n", "is not UTF-8 text"),
    "gzip": ("rows.csv.gz", b"age,ward", "cannot be read"),
    "json": ("rows.json", b"[]", "ends in .json, which is not read"),
    "line": ("rows.jsonl", b'{"age": 1, "ward": 3, "pulse": 50}\n{"age"\n', "line 2 is not JSON"),
    "list": ("rows.jsonl", b"[1]\n", "line 1 is no JSON object"),
    "no lines": ("rows.jsonl", b"\n", "holds no rows"),
    "parquet": ("rows.parquet", b"PAR1 and no more", "cannot be read as Parquet"),
    "arrays": ("rows.npz", b"PK", "holds arrays, and the model reads the columns age, pulse, ward"),
    "plain": ("rows.txt", b"a\n", "is plain text, and the model reads the columns"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_in_a_sentence(
    name: str, place: Path, tmp_path: Path, nacre: Any
) -> None:
    file, content, words = WRONG[name]
    if content is not None:
        (tmp_path / file).write_bytes(content)
    out = tmp_path / "out.csv"
    refused_alone(nacre("predict", place / "table", tmp_path / file, "-o", out), words)
    assert not out.exists() and not list(tmp_path.glob(".*"))


def test_damage_in_the_middle_is_told(place: Path, tmp_path: Path, nacre: Any) -> None:
    frame = pd.DataFrame({"age": range(90), "ward": "3", "pulse": np.arange(90.0) + 40})
    frame.to_parquet(tmp_path / "rows.parquet")
    data = bytearray((tmp_path / "rows.parquet").read_bytes())
    data[4:60] = os.urandom(56)
    (tmp_path / "rows.parquet").write_bytes(bytes(data))
    refused(
        nacre("predict", place / "table", tmp_path / "rows.parquet"), "cannot be read as Parquet"
    )
    refused(
        nacre("predict", place / "table", tmp_path), "is a folder where a file of rows is needed"
    )


def test_a_wrong_place_or_file_of_arrays_is_refused(
    place: Path, rows: Path, tmp_path: Path, nacre: Any
) -> None:
    run = place / "table"
    for out, words in (
        (tmp_path / "out.txt", "predictions are written as .csv, .parquet or .jsonl"),
        (tmp_path / "no/out.csv", "there is no folder"),
        (run / "out.csv", "which holds the model and is left as it is"),
        (rows, "is the file of rows itself"),
    ):
        refused_alone(nacre("predict", run, rows, "-o", out), words)
    (tmp_path / "dir.csv").mkdir()
    refused(nacre("predict", run, rows, "-o", tmp_path / "dir.csv"), "is a folder")
    images = place / "images"
    refused(nacre("predict", images, rows), "give it an .npz with the array 'x'")
    np.savez(tmp_path / "run.npz", x=np.array([pickle.dumps], dtype=object))
    refused(
        nacre("predict", images, tmp_path / "run.npz"), "cannot be read as .npz without running"
    )
    np.savez(tmp_path / "z.npz", z=np.zeros((2, 8, 8)))
    refused(nacre("predict", images, tmp_path / "z.npz"), "has no array 'x' (it has z)")
    np.savez(tmp_path / "none.npz", x=np.zeros((0, 8, 8)))
    refused(nacre("predict", images, tmp_path / "none.npz"), "holds no rows")
    refused_alone(nacre("predict", tmp_path, rows), "holds no finished model")
    refused_alone(nacre("predict", tmp_path / "nowhere", rows), "holds no finished model")


def test_an_interrupt_leaves_no_half_file(
    place: Path, rows: Path, nacre: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CsvWriter, "write", stop)
    out = rows.with_name("out.csv")
    refused(nacre("predict", place / "table", rows, "-o", out), "interrupted; ", code=130)
    assert [path.name for path in rows.parent.iterdir()] == ["rows.csv"]


def test_a_model_that_says_nothing_of_rows_is_refused(tmp_path: Path, rows: Path) -> None:
    save(build(OPTION, (4,), 3, 0, tmp_path), OPTION, tmp_path, shape=(4,), outputs=3,
         task="classification", scaler=None, folder=tmp_path)  # fmt: skip
    with pytest.raises(NacreError, match="does not say what the columns"):
        predict_file(tmp_path, rows, None, stream=io.BytesIO())


# -- many chunks, and writers by themselves ----------------------------------------------------


def test_chunks_do_not_show(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nacre.prediction.csv_file.CHUNK", 16)
    monkeypatch.setattr("nacre.prediction.row_files.CHUNK", 16)
    ages = [str(i) if i % 7 else "" for i in range(90)]
    frame = pd.DataFrame({"age": ages, "ward": "3", "pulse": "50", "id": range(90)})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    shares = []
    for name in ("rows.csv", "rows.jsonl"):
        out, seen = tmp_path / "out.parquet", list[int]()
        found = predict_file(
            place / "table",
            tmp_path / name,
            out,
            progress=lambda _, count, seen=seen: seen.append(count),
        )
        assert (found.rows, found.without) == (90, 13)
        assert seen == [0, 16, 32, 48, 64, 80, 90]
        table = pyarrow.parquet.read_table(out).to_pandas()
        assert list(table["id"].astype(int)) == list(range(90))
        shares.append(table["probability_no"].to_numpy().tobytes())
    assert shares[0] == shares[1]
    rows = [{"age": 1, "ward": "3", "pulse": 50}] * 20 + [
        {"age": 1, "ward": "3", "pulse": 50, "b": 1}
    ]
    (tmp_path / "late.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="has a key 'b' after row 16 that no row before has"):
        predict_file(place / "table", tmp_path / "late.jsonl", tmp_path / "late.csv")
    rows = [row | {"b": 1 if i < 18 else "x"} for i, row in enumerate(rows)]
    (tmp_path / "mixed.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="column 'b' holds string after row 16 and int64 before"):
        predict_file(place / "table", tmp_path / "mixed.jsonl", tmp_path / "mixed.parquet")


CELLS = ["plain", "", "a,b", 'say "x"', "line\nline", "c\rd", "=1+1", "-2", "+3.5e-1", "-x", "@a",
         "\tt", "-inf", " sp ", "é", None, "-", "+"]  # fmt: skip


def test_a_file_of_csv_reads_back(tmp_path: Path) -> None:
    values: list[Any] = [[1, "a"], {"b": None}, True, 1.5, None, "text", float("nan")]
    sink = io.BytesIO()
    writer = CsvWriter(sink, ["=name", "mixed", "number"])
    numbers = [0.1, float("nan"), 1e-9, *[2.0] * 15]
    writer.write({"a": CELLS, "b": [values] + values + [None] * 10, "c": numbers})
    writer.close()
    head, *found = csv.reader(io.StringIO(sink.getvalue().decode(), newline=""))
    assert head == ["'=name", "mixed", "number"]
    dangerous = {"=1+1", "-x", "@a", "\tt", "-", "+"}
    expected = [f"'{cell}" if cell in dangerous else cell or "" for cell in CELLS]
    assert [row[0] for row in found] == expected
    assert json.loads(found[1][1]) == [1, "a"] and found[6][1] == "text"
    assert [row[2] for row in found[:3]] == ["0.1", "nan", "1e-9"]


@pytest.mark.parametrize(
    ("dialect", "cells", "line"),
    [
        (Dialect(separator=";", decimal=",", thousands="."), ["a;b", "-1.234,5", "-1;5"],
         '"a;b";0,5;7\n-1.234,5;1e-9;7\n"\'-1;5";-0,25;7\n'),
        (Dialect(decimal=","), ["x", "-1,5", "é"], 'x,"0,5",7\n"-1,5",1e-9,7\né,"-0,25",7\n'),
        (Dialect(separator="tab", quote="'", encoding="cp1252"), ["it's", '"', "€"],
         "'it''s'\t0.5\t7\n\"\t1e-9\t7\n€\t-0.25\t7\n"),
        (Dialect(separator="|", quote="none", encoding="utf-8-sig"), ['"', ",", "=1"],
         "\ufeff\"|0.5|7\n,|1e-9|7\n'=1|-0.25|7\n"),
    ],
)  # fmt: skip
def test_csv_is_written_as_the_dialect_says_that_rows_are(
    tmp_path: Path, dialect: Dialect, cells: list[str], line: str
) -> None:
    """And reads back in it, to the same cells but for the apostrophes."""
    sink, numbers = io.BytesIO(), [0.5, 1e-9, -0.25]
    writer = CsvWriter(sink, ["a", "b", "c"], dialect)
    writer.write({"a": cells, "b": numbers, "c": [7] * 3})
    body = sink.getvalue().decode(dialect.encoding.removesuffix("-sig"))
    mark = {None: ",", "tab": "\t"}.get(dialect.separator, dialect.separator)
    assert body.replace(f"a{mark}b{mark}c\n", "", 1) == line
    (tmp_path / "back.csv").write_bytes(sink.getvalue())
    back = read_table(tmp_path, "back.csv", dialect)
    assert [str(cell).removeprefix("'") for cell in back.columns["a"]] == cells
    assert [float(dialect.plain_number(str(x)) or "nan") for x in back.columns["b"]] == numbers


@pytest.mark.parametrize(
    ("dialect", "cell", "says"),
    [
        (Dialect(encoding="latin-1"), "€", "cannot write"),
        (Dialect(quote="none"), "a,b", "commas"),
    ],
)
def test_what_a_dialect_cannot_write_is_refused(dialect: Dialect, cell: str, says: str) -> None:
    writer = CsvWriter(io.BytesIO(), ["a"], dialect)
    with pytest.raises(DataError, match=says):
        writer.write({"a": [cell]})


def test_json_has_no_infinite_number_and_parquet_no_half_character() -> None:
    sink = io.BytesIO()
    JsonWriter(sink, ["a"]).write({"a": [1.0, float("inf"), [float("nan")], "\ud800", {"b": 1.5}]})
    found = [json.loads(line)["a"] for line in sink.getvalue().splitlines()]
    assert found == [1.0, None, [None], "\ud800", {"b": 1.5}]
    sink = io.BytesIO()
    writer = ParquetWriter(sink, ["a", "b"])
    writer.write({"a": ["x", "\ud800"], "b": [None, None]})
    writer.write({"a": ["y"], "b": ["z"]})
    writer.close()
    table = pyarrow.parquet.read_table(io.BytesIO(sink.getvalue()))
    assert table.to_pydict() == {"a": ["x", "?", "y"], "b": [None, None, "z"]}

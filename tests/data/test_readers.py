import gzip
import math
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.core.errors import DataError
from nacre.data.columns.dialect import PLAIN
from nacre.data.readers import as_number, is_missing, read_table, text, unit_name
from nacre.data.reading import csv_blocks


def read(folder, content, name="rows.csv"):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(folder, name)


def cells(raw):
    return {name: list(column) for name, column in raw.columns.items()}


def test_csv_keeps_text_as_it_stands(tmp_path):
    raw = read(tmp_path, '\ufeffa, b\n1 ,"x, y"\n\n007,z\n')
    assert cells(raw) == {"a": ["1", "007"], "b": ["x, y", "z"]}
    assert len(raw) == 2


def test_csv_may_be_packed(tmp_path):
    raw = read(tmp_path, gzip.compress(b"a\n1\n", mtime=0), "rows.csv.gz")
    assert cells(raw) == {"a": ["1"]}


def test_parquet_keeps_values(tmp_path):
    pq.write_table(pa.table({"a": [1, None], "b": ["x", "y"]}), tmp_path / "rows.parquet")
    assert cells(read_table(tmp_path, "rows.parquet")) == {"a": [1, None], "b": ["x", "y"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty, so it has no header"),
        ("\n\n", "is empty, so it has no header"),
        ("a,b\n", "holds no rows"),
        ("a;b\nx, y;z\n", 'by semicolons; declare `dialect: {separator: ";"}`, or save it with c'),
        ("a\tb\nx\tz\n", "by tabs; declare `dialect: {separator: tab}`, or save it with commas"),
        ("a,b,a\n1,2,3\n", "has column 'a' twice"),
        (b"a\n\xff\xfe\n", "is not UTF-8 text"),
        ("a,b\n1,2\n1\n", "row 2 has 1 values and the header names 2 columns"),
        ("a,b\n1,2,3\n", "row 1 has 3 values"),
        ('a\n"1\n', "cannot be read"),
    ],
)
def test_a_bad_csv_is_one_sentence(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"a\n1\n" * 999, mtime=0)[:-20]])
def test_a_damaged_gzip_is_refused(tmp_path, content):
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path, content, "rows.csv.gz")


def test_a_disk_that_fails_is_refused(tmp_path, monkeypatch):
    def fail(file, encoding):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("nacre.data.readers.open_text", fail)
    with pytest.raises(DataError, match="input/output error"):
        read(tmp_path, "a\n1\n")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"a,b\n1,2\n", b"PAR1" + bytes(50) + b"PAR1"])
def test_a_bad_parquet_is_refused(tmp_path, content):
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read(tmp_path, content, "rows.parquet")


def test_an_empty_parquet_is_refused(tmp_path):
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="holds no rows"):
        read_table(tmp_path, "rows.parquet")


def test_a_missing_column_names_those_that_are_there(tmp_path):
    with pytest.raises(DataError, match=r"no column 'c' \(it has a, b\)"):
        read(tmp_path, "a,b\n1,2\n").column("c")


@pytest.mark.slow
@given(st.binary(max_size=200))
def test_no_bytes_at_all_escape_as_another_error(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("rows.csv", "rows.csv.gz", "rows.parquet"):
        try:
            raw = read(folder, content, name)
        except DataError:
            continue
        assert len(raw) and all(len(column) == len(raw) for column in raw.columns.values())


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, "true"), (1.0, "1"), (1.5, "1.5"), (None, ""), (" x ", "x"), (7, "7")],
)
def test_values_as_a_recipe_would_write_them(value, expected):
    assert text(value) == expected


@pytest.mark.parametrize("value", ["", "NA", "nan", "NULL", None, math.nan, " "])
def test_what_stands_for_no_value(value):
    assert is_missing(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1e3", 1000.0), (True, 1.0), (Decimal("0.5"), 0.5), ("inf", math.inf), ("-nan", None),
     ("x", None), ([1], None), (10**400, None), (math.nan, None)],
)  # fmt: skip
def test_numbers(value, expected):
    assert as_number(value) == expected


@pytest.mark.parametrize("inside", ["{}", "[{}]", '{{"b": {}}}'])
def test_values_that_stand_too_deep_in_each_other(tmp_path, inside):
    deep = "[" * 900 + "]" * 900
    row = '{"a": ' + inside.format(deep) + "}\n"
    with pytest.raises(DataError, match="line 1 holds lists in lists"):
        read(tmp_path, row, "rows.jsonl")


def test_a_key_that_stands_twice_in_a_row(tmp_path):
    with pytest.raises(DataError, match="line 2 names a key twice"):
        read(tmp_path, '{"a": "x"}\n{"a": "y", "a": "z"}\n', "rows.jsonl")


def test_a_table_of_many_columns_names_the_first_of_them(tmp_path):
    names = [f"c{number}{'x' * 50}" for number in range(30)]
    raw = read(tmp_path, ",".join(names) + "\n" + ",".join("1" * 30) + "\n")
    with pytest.raises(DataError, match=r"c7x+… and 22 more\)") as told:
        raw.column("absent")
    assert told.value.column == "absent"
    assert len(str(told.value)) < 600


def test_a_name_in_two_unicode_forms_is_one_unit():
    assert unit_name("caf\u00e9") == unit_name(" cafe\u0301 ") == "caf\u00e9"


@pytest.mark.parametrize(
    "columns",
    [
        {"a": ["x", None, "y", "x"], "b": ["x", "", None, " x "], "n": [1.5, 2.0, None, -0.0]},
        {"a": pa.array(["p", "q", None, "p"]).dictionary_encode(), "b": [True, None, False, True]},
        {"a": pa.array([f"w{i}" for i in range(300)] * 2)},
        {"a.b": ["x", "y", "x"], "c": [1, 2, 3]},
        {"a": [{"b": "x"}, {"b": "y"}, None], "a.b": ["x", "y", "x"]},
    ],
    ids=["nulls", "categories", "words", "dots", "nested"],
)
def test_parquet_columns_are_those_of_arrow(tmp_path, columns):
    """Read column by column, texts as the dictionaries that the file has."""
    made = pa.table(columns)
    pq.write_table(made, tmp_path / "rows.parquet", row_group_size=2)
    read = read_table(tmp_path, "rows.parquet")
    assert cells(read) == {name: made[name].to_pylist() for name in made.column_names}


def test_a_name_twice_in_parquet_is_refused(tmp_path):
    twice = pa.Table.from_arrays([pa.array([1]), pa.array(["x"])], names=["a", "a"])
    pq.write_table(twice, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="column 'a' twice"):
        read_table(tmp_path, "rows.parquet")


@pytest.mark.parametrize(
    "odd", ["", "inf", "nan", "NA", "+5", "1_0", "0x10", "1e400", " 2 ", '"3"']
)
def test_an_odd_number_in_a_later_block_is_read_as_ever(tmp_path, monkeypatch, odd):
    """Blocks of numbers are read at once, and again as texts where one is none."""
    blocks = csv_blocks.plain_blocks
    monkeypatch.setattr(csv_blocks, "plain_blocks", lambda *given: blocks(*given, 64))
    rows = [f"{i}.5,w{i % 3}" for i in range(60)]
    rows[40] = f"{odd},w1"
    (tmp_path / "rows.csv").write_text("\n".join(["x,w", *rows]) + "\n", encoding="utf-8")
    fast = read_table(tmp_path, "rows.csv", PLAIN, ["x"]).columns
    slow = read_table(tmp_path, "rows.csv", PLAIN).columns
    assert list(fast["w"]) == list(slow["w"])
    for read in (as_number, lambda cell: None if is_missing(cell) else as_number(cell)):
        assert fast["x"].parsed(read).tobytes() == slow["x"].parsed(read).tobytes()

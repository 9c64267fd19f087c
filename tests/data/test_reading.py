"""What is read at once is what is read cell by cell: the fast way against the plain one."""

import csv
import hashlib
import io
import json
import random
from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nacre.core.errors import DataError
from nacre.data.columns.dialect import PLAIN, Dialect
from nacre.data.columns.values import as_column, numbers_in
from nacre.data.readers import as_number, is_missing, read_table, text
from nacre.data.reading import csv_blocks
from nacre.data.reading.values import Listed
from nacre.data.sketches.cells import Cells, Hashing, of_table, running
from nacre.data.sketches.sketch import sketched
from nacre.prediction.csv_file import CsvRows

KEY = bytes(range(32))
CELLS = [
    *("1", "007", "1.0", "-0.0", "0", "1e5", "1E-3", "+5", " 7 ", "1_000", ".5", "5.", "nan", "NA"),
    *("none", "", "inf", "-Infinity", "1e400", "1e-400", "abc", "Ärger", "ａｂｃ", "１２", "true"),
    *("9.9999995", "2020-01-02", "\u00a03\u2003", "9007199254740993", "1e", "--1", "1-2", "1e5e5"),
    *("0x10", "a,b", 'q"q', "l\nm", "l\rm", "ﬁ", "x y z a b c d e f g h i", "1" * 400, "\0", "-"),
]


def table(draw):
    """A CSV file as text: often regular, sometimes not."""
    pools = [["1", "2.5", "-3e2"], ["1.25", "", "NA"], ["a", "b"], ["2020-01-02"], CELLS]
    chosen = [draw.choice(pools) for _ in range(draw.randint(1, 4))]
    rows = [[draw.choice(pool) for pool in chosen] for _ in range(draw.randint(0, 9))]
    written = io.StringIO(newline="")
    quoting = draw.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
    writer = csv.writer(written, quoting=quoting, lineterminator=draw.choice(["\n", "\r\n"]))
    writer.writerows([[f"c{place}" for place in range(len(chosen))], *rows])
    found = written.getvalue()
    odd = ["\n", '"x"y,1\n', "1,2,3,4,5,6\n", 'a"b\n', '"open', " \n", "\r", "last"]
    if draw.random() < 0.4:
        cut = draw.randint(0, len(found))
        found = found[:cut] + draw.choice(odd) + found[cut:]
    return draw.choice(["", "", "\ufeff"]) + found


def plainly(content, mark):
    """Rows as Python's `csv` has them, and the refusal that comes first."""
    quoting = csv.QUOTE_NONE if mark == "\t" else csv.QUOTE_MINIMAL
    lines = csv.reader(
        io.StringIO(content.removeprefix("\ufeff"), newline=""),
        delimiter=mark, quoting=quoting, strict=True,
    )  # fmt: skip
    rows = []
    try:
        for line in lines:
            if line:
                rows.append([value.strip() for value in line])
                if len(line) != len(rows[0]):
                    return rows, f"row {len(rows) - 1} has {len(line)} values"
    except csv.Error as error:
        return rows, str(error)
    return rows, None


def unfit(rows, mark):
    """What is wrong with a table whose rows could be read."""
    names = rows[0] if rows else []
    if len(names) == 1 and set(names[0]) & set("\t;|,") - {mark}:
        return "is separated by"
    return "twice" if len(set(names)) < len(names) else "holds no rows"


def test_csv_is_what_the_standard_library_reads(tmp_path, monkeypatch):
    """Over odd files, in blocks of a few bytes: the same cells, or the same refusal."""
    draw = random.Random(7)
    refused = fast = 0
    plain_blocks = csv_blocks.plain_blocks
    for trial in range(400):
        tabs, size = trial % 5 == 4, draw.choice([7, 40, 1 << 20])
        dialect = Dialect(separator=";") if trial % 5 == 3 else PLAIN
        mark = "\t" if tabs else dialect.separator or ","
        ended = []

        def blocks(opened, columns, separator, quote, size=size, ended=ended):
            for end, texts in plain_blocks(opened, columns, separator, quote, size):
                ended.append(end)
                yield end, texts

        monkeypatch.setattr(csv_blocks, "plain_blocks", blocks)
        content = table(draw).replace(",", mark)
        name = "rows.tsv" if tabs else "rows.csv"
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
        rows, fault = plainly(content, mark)
        numbers = ["c0"] if trial % 2 else []
        try:
            columns = read_table(tmp_path, name, dialect, numbers).columns
        except DataError as error:
            refused += 1
            assert (fault or unfit(rows, mark)) in str(error), content
            continue
        assert fault is None, content
        assert list(columns) == rows[0]
        fast += bool(ended)
        for place, (name, column) in enumerate(columns.items()):
            cells = [row[place] for row in rows[1:]]
            if name not in numbers:
                assert list(column) == cells
            same(column.parsed(as_number), [as_number(cell) for cell in cells])
            assert [is_missing(cell) for cell in column] == [is_missing(cell) for cell in cells]
            assert column.each(is_missing, bool).tolist() == [is_missing(cell) for cell in cells]
    assert refused > 20 and fast > 150


@pytest.mark.parametrize("size", [9, 1 << 20])
def test_a_mark_within_a_file_is_part_of_its_cell(tmp_path, monkeypatch, size):
    """U+FEFF at the start of a block: Arrow would take it for the mark of a file."""
    plain_blocks = csv_blocks.plain_blocks
    monkeypatch.setattr(csv_blocks, "plain_blocks", lambda *given: plain_blocks(*given, size))
    for start in ("", "\ufeff"):
        (tmp_path / "rows.csv").write_text(f"{start}a,b\n1,22\n\ufeffx,y\n3,4\n", encoding="utf-8")
        columns = read_table(tmp_path, "rows.csv", PLAIN).columns
        assert list(columns) == ["a", "b"] and list(columns["a"]) == ["1", "\ufeffx", "3"]
    (tmp_path / "rows.csv").write_text("\ufeff\ufeffa,b\n1,22\n", encoding="utf-8")
    assert list(read_table(tmp_path, "rows.csv", PLAIN).columns) == ["\ufeffa", "b"]


def test_words_for_no_value_are_read_alike_from_every_form_of_file(tmp_path):
    """`float` reads some of them as numbers, and a fast reader would."""
    for word, others in (
        ("1_000", "x"),
        ("inf", "-Infinity"),
        ("٣", "-9"),
        ("1e400", "x"),
        ("7", "x"),
    ):
        dialect = Dialect(missing=(word, others))
        for spelt in {word, word.upper(), f"\x1f{word}"}:
            cells = ["5", spelt, "\x1f6"]
            (tmp_path / "t.csv").write_text("x,z\n" + "".join(f"{c},k\n" for c in cells), "utf-8")
            lines = [json.dumps({"x": cell}) for cell in cells]
            (tmp_path / "t.jsonl").write_text("\n".join(lines), "utf-8")
            pq.write_table(pa.table({"x": cells}), tmp_path / "t.parquet")
            forms = [
                read_table(tmp_path, "t.csv", dialect, {"x"}).column("x"),
                read_table(tmp_path, "t.csv", dialect).column("x"),
                read_table(tmp_path, "t.jsonl", dialect).column("x"),
                read_table(tmp_path, "t.parquet", dialect).column("x"),
                next(CsvRows(tmp_path / "t.csv", dialect=dialect).tables()).column(0),
                cells,
            ]
            for values in forms:
                has, numbers, wrong = numbers_in(as_column(values), dialect)
                assert has.tolist() == [True, False, True], (spelt, values)
                assert numbers.tolist() == [5, 0, 6] and not len(wrong)


def same(found, expected):
    """Bit by bit, a NaN for None."""
    wanted = np.array([np.nan if number is None else number for number in expected], float)
    assert found.tobytes() == wanted.tobytes()


def parquet(folder, rows=300):
    """Columns of every kind that Parquet knows, with gaps, over several row groups."""
    draw, noise = random.Random(3), np.random.default_rng(3)
    columns = {
        "whole": pa.array(noise.integers(-9, 9, rows)),
        "big": pa.array(noise.integers(2**62, 2**63 - 1, rows)),
        "unsigned": pa.array(noise.integers(0, 2**64 - 1, rows, dtype=np.uint64)),
        "gaps": pa.array(noise.integers(0, 5, rows), mask=noise.random(rows) < 0.1),
        "float": pa.array(noise.normal(size=rows), mask=noise.random(rows) < 0.1),
        "single": pa.array(noise.normal(size=rows).astype(np.float32)),
        "odd": pa.array(noise.choice([0.0, -0.0, np.nan, np.inf, 1e300, 5e-324, 9.9999996], rows)),
        "bool": pa.array([draw.choice([True, False, None]) for _ in range(rows)]),
        "word": pa.array(
            [draw.choice(["u", "v ", "None", "3", "Ärger", None]) for _ in range(rows)]
        ),
        "long": pa.array([draw.choice(["a b c d e f g h i j", "k"]) for _ in range(rows)]),
        "coded": pa.array([draw.choice(["u", None, "4"]) for _ in range(rows)]).dictionary_encode(),
        "day": pa.array([date(2020, 1, draw.randint(1, 28)) for _ in range(rows)]),
        "money": pa.array([Decimal(draw.randint(0, 999)) / 100 for _ in range(rows)]),
        "list": pa.array([[1, draw.randint(0, 3)] for _ in range(rows)]),
        "nothing": pa.nulls(rows),
    }
    pq.write_table(pa.table(columns), folder / "rows.parquet", row_group_size=100)
    return columns


def cell_hashes(column):
    """A column hashed one cell at a time."""
    hashing = Hashing(KEY)
    read = [None if isinstance(v, bool) or is_missing(v) else as_number(v) for v in column]
    numbers = np.array([np.nan if number is None else number for number in read])
    days = all(isinstance(v, date) for v in column)
    if running(numbers) or days:
        return [0] * len(column)
    found = []
    for value, number in zip(column, read, strict=True):
        if number is not None:
            found.append(int(hashing.numbers(np.array([number]))[0]))
        else:
            found.append(0 if is_missing(value) else int(hashing.words([text(value)])[0]))
    return found


def test_parquet_is_what_arrow_hands_to_python(tmp_path):
    given = parquet(tmp_path)
    columns = read_table(tmp_path, "rows.parquet").columns
    for name, column in columns.items():
        expected = given[name].to_pylist()
        assert repr(list(column)) == repr(expected), name
        assert repr(column[-3:]) == repr(expected[-3:])
        same(column.parsed(as_number), [as_number(cell) for cell in expected])
        places = np.array([5, 0, 299, 5])
        codes, cells = column.coded(places)
        assert repr([cells[code] for code in codes]) == repr([expected[i] for i in places])
        assert Hashing(KEY).values(column).tolist() == cell_hashes(expected), name
    with pytest.raises(IndexError):
        columns["whole"][300]


def test_a_sketch_does_not_depend_on_how_its_table_is_held(tmp_path):
    parquet(tmp_path)
    columns = read_table(tmp_path, "rows.parquet").columns
    listed = {name: list(column) for name, column in columns.items()}
    assert sketched(of_table(columns), KEY) == sketched(of_table(listed), KEY)


def test_sketches_are_those_of_earlier_ledgers(tmp_path):
    """A ledger that was written by another version knows the same rows again. What changes a sketch
    takes another label in `ledger/storage/seal.py` and another format of the ledger."""
    parquet(tmp_path)
    noise = np.random.default_rng(1)
    documents = [f"the quick fox {n % 7} jumps over a lazy dog of house {n}" for n in range(50)]
    sources = {
        "table": of_table(read_table(tmp_path, "rows.parquet").columns),
        "mixed": of_table({"a": Listed([1, 2.5, "x", None, True, 10**400]), "b": list("abcdef")}),
        "texts": (Cells("sequence", [*documents, "", [1.5, 2.5], list(range(20))]),),
        "arrays": (Cells("cells", np.round(noise.normal(size=(2000, 20)), 1)),),
    }
    found = {
        name: hashlib.sha256(sketched(cells, KEY).to_bytes()).hexdigest()[:16]
        for name, cells in sources.items()
    }
    assert found == EARLIER


EARLIER = {
    "table": "2703e85f70848904",
    "mixed": "273bce7112fe7d73",
    "texts": "b3594715a33584af",
    "arrays": "5ed4bf19b2f396c5",
}

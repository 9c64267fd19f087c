"""`nacre init table FILE`: a recipe from a header alone, which no row can change."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import re
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nacre.core.errors import RecipeError
from nacre.recipe.document import parse
from nacre.recipe.drafting.draft import TableRoles, drafted
from nacre.recipe.load import dumps, load_recipe, loads
from tests.cli.conftest import TINY, Nacre, document

HEADER = "patient,name,age,sex,income,lab1,lab2,lab3,ward,ill"
NAMES = HEADER.split(",")


def draft(file: Path, **roles: Any) -> str:
    return drafted(file, file.name, TableRoles(**roles)).text


def columns(text: str) -> dict[str, Any]:
    return parse(text.encode(), "recipe.yaml").values["data"]["columns"]


def table(seed: int, rows: int) -> bytes:
    rng = random.Random(seed)
    lines = [HEADER]
    for number in range(rows):
        labs = [f"{rng.gauss(5, 1):.3f}" for _ in range(3)]
        start = [number // 2, f"n{number}", rng.randint(18, 95), rng.choice("fm")]
        end = [rng.randint(0, 90_000), *labs, rng.choice(["east", "west"]), rng.choice("yn")]
        lines.append(",".join(map(str, start + end)))
    return ("\n".join(lines) + "\n").encode()


# -- no row is read ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rest",
    [
        b"", b"\n", b"\r\n", b"\n1,2\n", b"\n\xff\xfe\x00\x00", b'\n"never closed', b"\n" * 5000,
        b"\n" + b"9" * 3_000_000, table(1, 3)[len(HEADER) :], table(2, 300)[len(HEADER) :],
    ],
    ids=range(10),
)  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
def test_every_table_of_one_header_gives_one_recipe(
    tmp_path: Path, rest: bytes, packed: bool
) -> None:
    """Byte for byte, whatever the rows: with one more, with others, with none that can be read."""
    file = tmp_path / ("visits.csv.gz" if packed else "visits.csv")
    plain = tmp_path / "plain" / file.name
    plain.parent.mkdir()
    for place, data in ((file, HEADER.encode() + rest), (plain, HEADER.encode())):
        place.write_bytes(gzip.compress(data) if packed else data)
    for roles in ({}, {"target": "ill", "unit": "patient", "size": 200}):
        assert draft(file, **roles) == draft(plain, **roles)


def test_nothing_behind_the_header_is_asked_for(tmp_path: Path) -> None:
    """Not even by the buffer of a file: of a pipe the rest is still there afterwards."""
    pipe = tmp_path / "visits.csv"
    os.mkfifo(pipe)
    left: list[bytes] = []

    def feed() -> None:
        ends = os.open(pipe, os.O_RDWR)
        os.write(ends, HEADER.encode() + b"\n1,secret\n")
        done.wait()
        left.append(os.read(ends, 100))
        os.close(ends)

    done = threading.Event()
    writer = threading.Thread(target=feed)
    writer.start()
    found = draft(pipe)
    done.set()
    writer.join()
    assert left == [b"1,secret\n"]
    assert next(iter(columns(found))) == "age"


def test_a_broken_pack_behind_the_header_is_not_met(tmp_path: Path) -> None:
    noise = random.Random(0).randbytes(200_000).hex().encode()
    whole = gzip.compress(HEADER.encode() + b"\n" + noise)
    (tmp_path / "visits.csv.gz").write_bytes(whole[: len(whole) // 2] + b"broken")
    (tmp_path / "other.csv.gz").write_bytes(gzip.compress(HEADER.encode()))
    assert columns(draft(tmp_path / "visits.csv.gz")) == columns(draft(tmp_path / "other.csv.gz"))


def test_of_parquet_names_and_types_are_taken_alone(tmp_path: Path) -> None:
    """Neither rows, nor their number, nor what the footer says of them, nor pandas' notes."""

    def written(name: str, rows: int, seed: int) -> Path:
        rng = random.Random(seed)
        found = pa.table(
            {
                "patient_id": pa.array(range(seed, seed + rows), pa.int64()),
                "age": pa.array([rng.randint(0, 99) for _ in range(rows)], pa.int16()),
                "smokes": pa.array([rng.random() < 0.5 for _ in range(rows)], pa.bool_()),
                "ward": pa.array([rng.choice("ab") for _ in range(rows)]).dictionary_encode(),
                "born": pa.array([rng.randint(0, 9999) for _ in range(rows)], pa.date32()),
                "dose": pa.array([rng.random() for _ in range(rows)], pa.float32()),
            }
        ).replace_schema_metadata({"pandas": json.dumps({"rows": rows, "seed": seed})})
        (tmp_path / name).mkdir()
        pq.write_table(found, tmp_path / name / "visits.parquet")
        return tmp_path / name / "visits.parquet"

    one, other = written("one", 3, 1), written("other", 50, 2)
    found = draft(one)
    assert found == draft(other)
    data = other.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    middle = range(4, len(data) - 8 - length)
    other.write_bytes(data[:4] + b"\xff" * len(middle) + data[-8 - length :])
    assert found == draft(other)
    assert columns(found) == {
        "age": {"low": 0, "high": 120},
        "smokes": {"categories": ["false", "true"]},
        "ward": {"categories": ["FILL"]},
        "dose": {"low": "FILL", "high": "FILL"},
    }
    assert "drop: [patient_id, born]" in found


# -- what is written ---------------------------------------------------------------------------


def test_a_draft_is_refused_until_it_is_filled_in(nacre: Nacre, tmp_path: Path) -> None:
    (tmp_path / "visits.csv").write_bytes(table(1, 20))
    recipe = tmp_path / "recipe.yaml"
    said = document(nacre("init", "table", tmp_path / "visits.csv", "-o", recipe, "--json"))
    assert said["columns"] == 8 and said["guessed"] == [*NAMES[:5], "ward"]
    text = recipe.read_text()
    assert "age: {low: 0, high: 120}  # guess from the name; declare what is true of all" in text
    assert 'path: "visits.csv"' in text and "# unit: patient" in text
    assert "lab1: &lab {low: FILL, high: FILL}" in text and "lab3: *lab" in text
    lines = said["to_fill"]
    while lines:
        refused = nacre("plan", recipe)
        assert refused.exit_code == 2
        assert refused.stderr.startswith(f"nacre: {recipe}:{lines[0]} `"), refused.stderr
        assert "FILL stands where a value is needed" in refused.stderr
        whole = recipe.read_text().splitlines()
        whole[lines[0] - 1] = whole[lines[0] - 1].replace("FILL", "1")
        recipe.write_text("\n".join(whole))
        lines = lines[1:]
    assert "FILL" not in nacre("plan", recipe).stderr  # what it says now is about the values


def test_fill_in_quotes_is_a_word(tmp_path: Path) -> None:
    text = TINY.replace("name: tiny", 'name: "FILL"')
    assert loads(text).name == "FILL" == loads(dumps(loads(text))).name
    with pytest.raises(RecipeError, match="recipe:2 `name`: FILL stands"):
        loads(TINY.replace("name: tiny", "name: FILL"))


@pytest.mark.slow
def test_a_draft_filled_in_from_a_public_file_plans_and_trains(
    nacre: Nacre, tmp_path: Path
) -> None:
    (tmp_path / "visits.csv").write_bytes(table(1, 400))
    (tmp_path / "public.csv").write_bytes(table(2, 300))
    recipe = tmp_path / "recipe.yaml"
    roles = ["--target", "ill", "--unit", "patient", "--size", 160, "--party", "ward"]
    made = nacre(
        "init", "table", tmp_path / "visits.csv", "-o", recipe, *roles[:6],
        "--public", tmp_path / "public.csv",
    )  # fmt: skip
    assert made.exit_code == 0, made.stderr
    text = recipe.read_text()
    assert columns(text)["sex"] == {"categories": ["f", "m"]}
    assert columns(text)["age"]["high"] > 80 and f"# from {tmp_path}/public.csv" in text
    text = text.replace("rows_per_unit: FILL", "rows_per_unit: 2").replace("steps: 100", "steps: 2")
    assert "FILL" not in re.sub("#.*", "", text)
    recipe.write_text(text)
    # The commands and the queries in its comments are carried out first.
    asked = re.search(r"(?s)#   nacre: 1\n.*?(?=\n# \()", text)
    assert asked is not None
    queries = re.sub(r"(?m)^#   ", "", asked[0]).replace("[a, b]", "[f, m]")
    (tmp_path / "ranges.yaml").write_text(queries)
    for command in re.findall(r"(?m)^#   nacre (.+)", text):
        words = command.replace("privacy.db", str(tmp_path / "privacy.db"))
        for name in ("visits.csv", "ranges.yaml"):
            words = words.replace(name, str(tmp_path / name))
        if words.split()[0] in ("ledger", "release"):
            done = nacre(*words.split())
            assert done.exit_code == 0, done.stderr
    assert nacre("plan", recipe).exit_code == 3  # the answers took their part of the grant
    raised = re.sub("epsilon: 3  # smaller", "epsilon: 1  # smaller", text)
    recipe.write_text(raised)
    trained = nacre("train", recipe, "--into", tmp_path / "run")
    assert trained.exit_code == 0, trained.stderr
    parties = draft(tmp_path / "visits.csv", target="ill", party="ward", size=160)
    assert "sizes: {FILL: FILL}" in parties and "privacy.db --account visits/PARTY" in parties
    assert "batch: 20  # units expected a step, in each party" in parties
    assert "steps: 100" not in parties and "class_prior: {CLASS: 0.9, OTHER: 0.1}" in parties


def test_a_dictionary_comes_before_public_rows_and_these_before_guesses(tmp_path: Path) -> None:
    (tmp_path / "visits.csv").write_bytes(table(1, 3))
    (tmp_path / "public.csv").write_text("age,income,ward,ill\n1,2,,0.5\n3,,x,0.25\n")
    for name, text in (
        ("words.json", '{"age": {"low": 0, "high": 9.5}, "other": {"categories": ["a"]}}'),
        ("words.yaml", "age: {low: 0, high: 9.5}\nother: {categories: [a]}\n"),
    ):
        (tmp_path / name).write_text(text)
        found = draft(
            tmp_path / "visits.csv", documented=tmp_path / name, public=tmp_path / "public.csv",
            target="ill",
        )  # fmt: skip
        assert columns(found)["age"] == {"low": 0, "high": 9.5}
        assert columns(found)["income"] == {"low": "FILL", "high": "FILL"}
        assert columns(found)["ward"] == {"categories": ["x"]}
        assert "on_out_of_range: clamp  # private" in found
        assert 'classes: ["0.25", "0.5"]' in found
    many = io.StringIO()
    csv.writer(many).writerows([["ill", "ward"], *([n / 7, f"w{n}"] for n in range(60))])
    (tmp_path / "public.csv").write_text(many.getvalue())
    found = draft(tmp_path / "visits.csv", public=tmp_path / "public.csv", target="ill")
    assert "task: regression" in found
    assert "ward: {categories: [FILL]}  # 60 different values" in found


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("d.json", "[", "is not JSON"),
        ("d.json", "[]", "does not name columns"),
        ("d.yaml", "a: 1", "column 'a' has no range and no categories alone"),
        ("d.yaml", "a: {low: 2, high: 1}", "low below high"),
        ("d.yaml", "a: {low: 2, high: .inf}", "is not finite"),
        ("d.yaml", "a: {low: FILL, high: 1}", "is still to be filled in"),
        ("d.yaml", "a: {categories: []}", "different texts, one at least"),
        ("d.yaml", "a: {categories: [[1]]}", "different texts, one at least"),
        ("d.yaml", "", "is empty"),
        ("absent.json", None, "cannot be read"),
    ],
)
def test_a_dictionary_that_says_nothing_is_refused(
    nacre: Nacre, tmp_path: Path, name: str, text: str | None, says: str
) -> None:
    (tmp_path / "t.csv").write_text("a,b\n")
    if text is not None:
        (tmp_path / name).write_text(text)
    words = ("init", "table", tmp_path / "t.csv", "-o", tmp_path / "r.yaml")
    refused = nacre(*words, "--documented", tmp_path / name)
    assert refused.exit_code == 2 and says in refused.stderr, refused.stderr
    assert not (tmp_path / "r.yaml").exists()


def test_an_entry_of_a_dictionary_that_no_column_has_is_told(nacre: Nacre, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("age,sex\n")
    (tmp_path / "d.yaml").write_text("Age_: {low: 0, high: 9}\nzzz: {low: 0, high: 9}\n")
    words = ("init", "table", tmp_path / "t.csv", "-o", tmp_path / "r.yaml", "--json")
    told = nacre(*words, "--documented", tmp_path / "d.yaml")
    assert told.exit_code == 0 and json.loads(told.stdout)["unmatched"] == ["Age_", "zzz"]
    table = tmp_path / "t.csv"
    first, second = told.stderr.splitlines()
    assert first.endswith(f"names 'Age_', which is no column of {table}; did you mean 'age'?")
    assert second.endswith(f"names 'zzz', which is no column of {table}")


ODD = [
    "yes", "null", "1", "a: b", "~", "- x", "FILL", "true", "#c", 'q"q', "back\\slash", "tab\there",
    "two\nlines", "naïve", "数", "x\u2028y", "[1]", "{a}", "*a", "&a", "x" * 200, "%", "'", "é: ü",
    "emoji 🙂", "<<", "k" * 110,
]  # fmt: skip


def test_odd_names_come_back_as_they_are(nacre: Nacre, tmp_path: Path) -> None:
    text = io.StringIO()
    csv.writer(text).writerow(ODD)
    file = tmp_path / "odd\nname: x.csv"
    file.write_text(text.getvalue())
    recipe = tmp_path / "r.yaml"
    words = ("--target", "yes", "--unit", "two\nlines", "--party", "a: b", "--drop", "null")
    made = nacre("init", "table", file, "-o", recipe, *words)
    assert made.exit_code == 0, made.stderr
    data = parse(recipe.read_bytes(), "r.yaml").values["data"]
    assert data["path"] == "odd\nname: x.csv"
    seen = [*data["columns"], data["target"], data["unit"], data["party"], *data["drop"]]
    assert sorted(seen) == sorted(ODD)
    # The guesses leave no two entries of one name, and a spreadsheet's byte order mark no trace.
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbfq,r\n")
    assert list(columns(draft(tmp_path / "bom.csv"))) == ["q", "r"]


def test_many_columns_alike_are_filled_in_once(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(",".join(["y", *(f"V{n}" for n in range(1, 29))]))
    found = drafted(tmp_path / "t.csv", "t.csv", TableRoles(target="y", size=100))
    assert found.columns == 28 and len(found.to_fill) == 2
    (tmp_path / "t.csv").write_text(",".join(map(str, range(784))) + ",label")
    assert len(drafted(tmp_path / "t.csv", "t.csv", TableRoles(target="label")).to_fill) == 5
    (tmp_path / "t.csv").write_text("a1,a2,a3,b_1,b_2,b_3,A1,A2,A3")
    assert {"&a", "&b", "&a2"} <= set(draft(tmp_path / "t.csv").split())


# -- dialects ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "header", "known"),
    [
        ("semicolons.csv", b"age;sex;ill\n1,5;f;no\n", {"separator": ";"}),
        ("quoted.csv", b'"age";"sex";"ill"\n', {"separator": ";"}),
        ("commas.csv", b"age;sex,ill;x\n", {}),
        ("bars.csv", b"age|sex|ill", {"separator": "|"}),
        ("tabs.csv", b"age\tsex\till\r\n", {"separator": "tab"}),
        ("latin.csv", "größe;sex;ill\n".encode("latin-1"),
         {"separator": ";", "encoding": "cp1252"}),
        ("plain.csv", b"age,sex,ill\n", {}),
    ],
)  # fmt: skip
def test_the_header_shows_separator_and_encoding(
    tmp_path: Path, name: str, header: bytes, known: dict[str, str]
) -> None:
    """Bytes after the header are not read, whatever they are."""
    (tmp_path / name).write_bytes(header)
    found = draft(tmp_path / name)
    data = parse(found.encode(), "r.yaml").values["data"]
    assert data.get("dialect", {}) == known
    assert all(word in found for word in ('# decimal: ","', "missing: [", "encoding: cp1252")
               if known)  # fmt: skip
    written = header.decode("cp1252").splitlines()[0]
    assert all(column.strip('"') in written for column in data["columns"])


def test_a_public_file_is_read_in_the_dialect_of_its_own_header(tmp_path: Path) -> None:
    (tmp_path / "visits.csv").write_text("age;sex;ill\n")
    (tmp_path / "public.csv").write_text("age|sex|ill\n40|f|no\n70|m|yes\n")
    found = draft(tmp_path / "visits.csv", public=tmp_path / "public.csv", target="ill")
    known = columns(found)
    assert known["age"] == {"low": 40, "high": 70}
    assert known["sex"] == {"categories": ["f", "m"]}


# -- what is refused ---------------------------------------------------------------------------

PARTS = {
    "empty.csv": b"",
    "blank.csv": b"\n\n",
    "twice.csv": b"a,b,a\n",
    "unnamed.csv": b"a,,b\n",
    "binary.csv": b"\x00\x01\x02\x03",
    "pdf.csv": b"%PDF-1.4\n1 0 obj\n",
    "utf16.csv": "a,b\n".encode("utf-16"),
    "open.csv": b'"a,b\n' + b"x\n" * 600_000,
    "quotes.csv": b'"a"b,c\n',
    "rows.csv": b"63,f,2.5,120\n64,m,3.5,110\n",
    "long.csv": b"a," + b"x" * 300 + b"\n",
    "cut.csv.gz": gzip.compress(b"a,b" * 100)[:20],
    "plain.csv.gz": b"a,b\n",
    "t.parquet": b"PAR1 and no more",
    "t.xlsx": b"PK",
    "t.jsonl": b'{"a": 1}\n',
}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent.csv", "cannot be read (no such file or directory); name the table itself"),
        ("folder", "is a folder; name the table itself"),
        ("empty.csv", "is empty, so it has no header"),
        ("blank.csv", "is empty, so it has no header"),
        ("twice.csv", "has column 'a' twice"),
        ("unnamed.csv", "has no name for column 2 of its 3"),
        ("binary.csv", "is binary and no text"),
        ("utf16.csv", "is not UTF-8 text"),
        ("open.csv", "has no header that ends within 1 MiB"),
        ("quotes.csv", "has a header that is no CSV"),
        ("rows.csv", "begins with 3 numbers in 4 columns, which look like a row"),
        ("long.csv", "has columns that no recipe can name (the text is longer than 255 bytes"),
        ("cut.csv.gz", "is no whole .gz file"),
        ("plain.csv.gz", "is no whole .gz file"),
        ("t.parquet", "cannot be read as Parquet"),
        ("pdf.csv", "is binary and no text"),
        ("t.xlsx", "ends in .xlsx, which is not read"),
        ("t.pdf", "ends in .pdf, which is not read; copy its tables or texts into a .csv"),
        ("t.jsonl", "has no header: its names stand in its rows"),
    ],
)
def test_what_is_no_table_is_one_sentence(
    nacre: Nacre, tmp_path: Path, name: str, says: str
) -> None:
    (tmp_path / "folder").mkdir()
    if name in PARTS:
        (tmp_path / name).write_bytes(PARTS[name])
    refused = nacre("init", "table", tmp_path / name, "-o", tmp_path / "recipe.yaml")
    assert refused.exit_code == 2 and says in refused.stderr, refused.stderr
    assert refused.stderr.count("\n") == 1
    assert "63" not in refused.stderr.replace(str(tmp_path), "")  # a folder may be called so
    assert not (tmp_path / "recipe.yaml").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--target", "agee"), "has no column 'agee' for `--target`; did you mean 'age'?"),
        (("--target", "age", "--unit", "age"), "column 'age' is named by --target and by --unit"),
        (("--target", "ill", "--drop", "ill"), "column 'ill' is named by --target and by --drop"),
        (("--size", "0"), "'--size'"),
        (("--public", "t.csv"), "is the table itself"),
        (("--public", "other.csv"), "has no column of"),
        (("--public", "absent.csv"), "cannot be read"),
        (("--drop", "age", "--target", "ill"), "has no column left for the model to see"),
        (("-o", "no/recipe.yaml"), "there is no folder no"),
        (("-o", "/proc/recipe.yaml"), "cannot be written, since its folder takes no file"),
        (("-o", "t.csv"), "t.csv exists; choose another file"),
    ],
)
def test_what_does_not_fit_the_table_is_refused(
    nacre: Nacre, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("age,ill\n1,2\n")
    Path("other.csv").write_text("x\n1\n")
    refused = nacre("init", "table", "t.csv", *words)
    assert refused.exit_code == 2 and says in refused.stderr, refused.stderr
    assert not Path("recipe.yaml").exists()


def test_a_table_is_for_the_kind_table(nacre: Nacre, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n")
    for words, says in (
        (("image", tmp_path / "t.csv"), "a FILE is for tables and texts, not for image"),
        (("table", "--target", "a"), "`--target` is about a table: `nacre init table FILE"),
    ):
        refused = nacre("init", *words, "-o", tmp_path / "r.yaml")
        assert refused.exit_code == 2 and says in refused.stderr


def test_the_path_is_relative_to_the_recipe(nacre: Nacre, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "recipes").mkdir()
    (tmp_path / "data" / "t.csv").write_text("q,y\n")
    recipe = tmp_path / "recipes" / "r.yaml"
    nacre("init", "table", tmp_path / "data" / "t.csv", "-o", recipe, "--target", "y", "--size", 99)
    text = recipe.read_text().replace("[FILL, FILL]", "[a, b]").replace("low: FILL", "low: 0")
    recipe.write_text(text.replace("high: FILL", "high: 1"))
    assert load_recipe(recipe).data.path == "../data/t.csv"  # pyright: ignore[reportAttributeAccessIssue]

"""Columns that a recipe names and the file does not have: found by a plan, from the header."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from nacre.core.errors import RecipeError, Refusal
from nacre.planning.plan import plan
from nacre.recipe.load import load_recipe

RECIPE = """\
nacre: 1
name: clinic
data:
  kind: table
  path: rows.csv
  target: ill
  classes: ["no", "yes"]
  columns:
    age: {low: 0, high: 120}
    sex: {categories: [f, m]}
  drop: [comment]
  unit: patient_id
  party: clinic
  size: 300
model: {kind: mlp, hidden: [4]}
training: {steps: 2, batch: 8}
"""
HEADER = "patient_id,clinic,age,sex,comment,ill\n"


def planned(folder: Path, recipe: str = RECIPE, name: str = "rows.csv", rows: str = HEADER) -> None:
    packed = gzip.compress(rows.encode()) if name.endswith(".gz") else rows.encode()
    (folder / name).write_bytes(packed)
    file = folder / "r.yaml"
    file.write_text(recipe.replace("rows.csv", name))
    plan(load_recipe(file))


def faults(folder: Path, recipe: str = RECIPE, name: str = "rows.csv", rows: str = HEADER) -> list:
    with pytest.raises(RecipeError) as caught:
        planned(folder, recipe, name, rows)
    return [str(caught.value), *caught.value.others]


@pytest.mark.parametrize(
    ("old", "new", "place", "says"),
    [
        ("unit: patient_id", "unit: patientid", "12 `data.unit`", "did you mean `patient_id`?"),
        ("target: ill", "target: il", "6 `data.target`", "did you mean `ill`?"),
        ("party: clinic", "party: clinics", "13 `data.party`", "did you mean `clinic`?"),
        ("[comment]", "[coment]", "11 `data.drop[0]`", "did you mean `comment`?"),
        ("    age:", "    aeg:", "9 `data.columns.aeg`", "did you mean `age`?"),
        ("[comment]", "[]", "8 `data.columns.comment`", "neither declared nor dropped"),
        ("target: ill", "target: outcome", "6 `data.target`", "use one of `patient_id`, `clinic`"),
    ],
)
def test_a_name_that_the_file_lacks_is_told_with_the_nearest(
    tmp_path: Path, old: str, new: str, place: str, says: str
) -> None:
    assert RECIPE.count(old) == 1
    found = faults(tmp_path, RECIPE.replace(old, new))
    assert place in found[0] and says in found[0]
    assert len(found) == 1 + (new == "target: outcome")  # and nothing is said of `ill`


def test_all_of_them_are_told_at_once(tmp_path: Path) -> None:
    wrong = RECIPE.replace("unit: patient_id", "unit: patient").replace("    sex:", "    sexe:")
    found = faults(tmp_path, wrong.replace("path: rows.csv", "path: rows.csv\n  public: {path: p}"))
    assert [fault.split("`")[1] for fault in found] == ["data.columns.sexe", "data.unit"]


def test_a_header_is_read_in_the_declared_dialect_and_no_row_is(tmp_path: Path) -> None:
    western = HEADER.replace(",", ";").replace("comment", "'größe;x'")
    recipe = RECIPE.replace("[comment]", "[größe;x]").replace(
        "  target", "  dialect: {separator: ';', quote: \"'\", encoding: latin-1}\n  target"
    )
    (tmp_path / "rows.csv").write_bytes(western.encode("latin-1") + b'1;"\xff\n;;;;;;;;;\n')
    (tmp_path / "r.yaml").write_text(recipe)
    plan(load_recipe(tmp_path / "r.yaml"))
    with pytest.raises(Refusal, match="separated by semicolons"):
        planned(tmp_path, RECIPE, rows=HEADER.replace(",", ";"))
    planned(tmp_path, name="rows.csv.gz")
    assert (
        "data.unit" in faults(tmp_path, RECIPE.replace("patient_id", "patientid"), "rows.csv.gz")[0]
    )


def test_a_row_in_place_of_the_header_is_not_shown(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, rows="17,clinic a,50,f,12.5,0\n")
    assert "data.path" in fault and "look like a row" in fault
    assert not any(value in fault for value in ("clinic a", "12.5"))


def test_nothing_is_said_where_no_header_is_there(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    plan(load_recipe(tmp_path / "r.yaml"))
    planned(tmp_path, name="rows.jsonl", rows='{"a": 1}\n')
    planned(tmp_path, name="rows.parquet", rows="no parquet")
    planned(tmp_path, RECIPE.replace("[comment]", "[comment, remark]"))  # dropped elsewhere


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").mkdir()
    (tmp_path / "r.yaml").write_text(RECIPE)
    with pytest.raises(RecipeError, match=r"r.yaml:5 `data.path`: .*rows.csv is a folder where"):
        plan(load_recipe(tmp_path / "r.yaml"))


def test_a_parquet_file_has_names_too(tmp_path: Path) -> None:
    names = HEADER.strip().split(",")
    table = pyarrow.table({name: ["1"] for name in names})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    file = tmp_path / "r.yaml"
    file.write_text(RECIPE.replace("rows.csv", "rows.parquet").replace("patient_id", "patient"))
    with pytest.raises(RecipeError, match="did you mean `patient_id`"):
        plan(load_recipe(file))


def test_columns_of_documents(tmp_path: Path) -> None:
    recipe = (
        "nacre: 1\nname: notes\ndata: {kind: text, path: notes.csv, text: txt, label: topic,\n"
        "  classes: [a, b], size: 50, length: 8, tokenizer: {kind: bytes}}\n"
        "model: {kind: gpt, width: 8, layers: 1, heads: 1}\ntraining: {steps: 2, batch: 8}\n"
    )
    (tmp_path / "notes.csv").write_text("text,topic,more\n")
    (tmp_path / "r.yaml").write_text(recipe)
    with pytest.raises(RecipeError, match=r"r\.yaml:3 `data\.text`.*did you mean `text`"):
        plan(load_recipe(tmp_path / "r.yaml"))

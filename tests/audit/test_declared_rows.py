"""Rows for a saved model that says what its rows are: raw or scaled, found out or refused."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from nacre.audit.declared import declared_by
from nacre.audit.declared_rows import DeclaredRows
from nacre.audit.model_security.batch_file import load_batch, save_batch
from nacre.cli.main import cli
from nacre.core.errors import DataError, Incompatible
from nacre.data import Column
from nacre.data.scaling import DeclaredScaling, NoScaling, fit_scaling
from nacre.prediction.signature import Signature, TextInputs

COLUMNS = (
    Column("age", "number", 0, 100),
    Column("share", "number", 0, 1),
    Column("sex", "category", categories=("f", "m")),
)
RECIPE = """\
nacre: 1
name: tiny
data:
  kind: table
  path: rows.csv
  target: ill
  classes: ["well", "ill"]
  columns:
    age: {low: 0, high: 100}
    weight: {low: 0, high: 200}
    sex: {categories: [f, m]}
  size: 80
  holdout: {share: 0.2}
model: {kind: mlp, hidden: [8]}
training: {steps: 60, batch: 32, optimizer: {kind: adam, lr: 0.02}}
audit: [{kind: evasion, effort: quick, ball: {radius: 0.5}}]
"""


def table_of(columns=COLUMNS, **more):
    width = sum(len(column.layout()) for column in columns)
    signature = Signature(
        "table", "classification", (width,), ("well", "ill"), columns, target="ill", **more
    )
    return DeclaredRows(
        "folder", signature, fit_scaling(DeclaredScaling(), signature.schema(), None)
    )


def array_of(**more):
    signature = Signature(
        "arrays", "classification", (4,), ("0", "1"), low=0.0, high=16.0, array="x", target="y"
    )
    return DeclaredRows(
        "folder", signature, fit_scaling(DeclaredScaling(), signature.schema(), None)
    )


def written(path, header, *rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


RAW = ("age", "share", "sex", "ill")
SCALED = ("age", "share", "sex=f", "sex=m", "ill")


def test_raw_and_scaled_rows_of_a_table_are_told_apart(tmp_path):
    raw = written(tmp_path / "raw.csv", RAW, (50, 0.5, "m", "ill"), (100, 0, "f", "well"))
    scaled = written(tmp_path / "s.csv", SCALED, (0, 0, 0, 1, "ill"), (1, -1, 1, 0, "well"))
    one, other = (table_of().read(file, None, None) for file in (raw, scaled))
    assert torch.equal(one.features, torch.tensor([[0.0, 0, 0, 1], [1, -1, 1, 0]]))
    assert torch.equal(one.features, other.features) and one.label.tolist() == [1, 0]
    assert torch.equal(one.label, other.label)
    assert one.space.names == ("age", "share", "sex=f", "sex=m") and one.classes == ("well", "ill")
    assert float(one.space.scale[0]) == 50 and one.task.outputs == 2


def test_columns_in_another_order_are_found_by_name(tmp_path):
    file = written(tmp_path / "s.csv", SCALED[::-1], ("ill", 1, 0, -1, 0.5))
    assert table_of().read(file, None, None).features.tolist() == [[0.5, -1, 0, 1]]


def test_arrays_are_told_apart_by_their_values(tmp_path):
    asked = array_of()
    label = np.array([0, 1])
    for name, inputs in (("raw", [[0, 16, 8, 8], [3, 3, 3, 3]]), ("scaled", [[-1, 1, 0, 0]] * 2)):
        np.savez(tmp_path / f"{name}.npz", x=np.array(inputs, np.float32), y=label)
    raw, scaled = (asked.read(tmp_path / f"{n}.npz", None, None) for n in ("raw", "scaled"))
    assert torch.equal(raw.features[0], scaled.features[0]) and raw.label.tolist() == [0, 1]
    np.savez(tmp_path / "both.npz", x=np.full((2, 4), 0.5, np.float32), y=label)
    with pytest.raises(DataError, match=r"could hold raw rows and scaled ones.*--rows raw"):
        asked.read(tmp_path / "both.npz", None, None)
    one, other = (asked.read(tmp_path / "both.npz", None, form) for form in ("raw", "scaled"))
    assert one.features[0, 0] == 0.5 / 8 - 1 and other.features[0, 0] == 0.5


def test_numbers_alone_may_be_both_and_are_then_refused(tmp_path):
    asked = table_of((Column("a", "number", 0, 2), Column("b", "number", 0, 1)))
    both = written(tmp_path / "b.csv", ("a", "b", "ill"), (0.5, 0.25, "ill"))
    with pytest.raises(DataError, match=r"b\.csv could hold raw rows and scaled ones"):
        asked.read(both, None, None)
    raw = written(tmp_path / "r.csv", ("a", "b", "ill"), (1.5, 0.25, "ill"))
    assert asked.read(raw, None, None).features.tolist() == [[0.5, -0.5]]
    scaled = written(tmp_path / "s.csv", ("a", "b", "ill"), (0.5, -0.25, "ill"))
    assert asked.read(scaled, None, None).features.tolist() == [[0.5, -0.25]]


def test_without_a_scaling_both_are_one(tmp_path):
    signature = table_of().signature
    asked = DeclaredRows("folder", signature, fit_scaling(NoScaling(), signature.schema(), None))
    file = written(tmp_path / "r.csv", RAW, (50, 0.5, "m", "ill"))
    assert asked.read(file, None, None).features.tolist() == [[50, 0.5, 0, 1]]


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        (RAW, (500, 0.5, "m", "ill"), "'age': '500': the value lies outside .* in row 1"),
        (RAW, (50, 0.5, "x", "ill"), "'sex': 'x': .* row 1"),
        (RAW, (50, 0.5, "m", "dead"), "'ill': 'dead': .* row 1"),
        (RAW, (50, 0.5, "m", ""), "'ill': there is no value in row 1"),
        (RAW, ("", 0.5, "m", "ill"), "'age': there is no value in row 1"),
        (RAW, ("old", 0.5, "m", "ill"), "'age': 'old': it is not a number in row 1"),
        (RAW[:3], (50, 0.5, "m"), "has no column 'ill' with the right answers"),
        (RAW[1:], (0.5, "m", "ill"), "has no column 'age'"),
    ],
)
def test_what_is_wrong_with_raw_rows_is_said_with_column_and_row(tmp_path, header, row, words):
    with pytest.raises(DataError, match=words):
        table_of().read(written(tmp_path / "r.csv", header, row), None, None)


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        (SCALED, (5, 0, 0, 1, "ill"), "row 1 lies outside the range of the model's scaled inputs"),
        (SCALED, (0, "x", 0, 1, "ill"), "'share': 'x': it is not a number"),
        (SCALED[1:], (0, 0, 1, "ill"), "has no column 'age', which is an input of the model"),
    ],
)
def test_what_is_wrong_with_scaled_rows(tmp_path, header, row, words):
    with pytest.raises(DataError, match=words):
        table_of().read(written(tmp_path / "s.csv", header, row), None, "scaled")


def test_rows_that_training_drops_or_clamps_keep_their_numbers(tmp_path):
    asked = table_of(on_out_of_range="clamp", on_missing="drop")
    file = written(
        tmp_path / "r.csv", RAW, (50, 0.5, "m", ""), (500, 0.5, "m", "ill"), (9, 0.1, "f", "well")
    )
    found = asked.read(file, None, None)
    assert found.place.tolist() == [1, 2] and found.features[0, 0] == 1
    assert found.notes == (
        "1 rows were left out, as the model's training leaves such rows out",
        "of 1 rows a value was moved into its declared range",
    )
    none = written(tmp_path / "n.csv", RAW, (50, 0.5, "m", ""))
    with pytest.raises(DataError, match="drops every row"):
        asked.read(none, None, None)


def test_files_of_another_kind(tmp_path):
    np.savez(tmp_path / "r.npz", x=np.zeros((2, 4)), y=np.zeros(2))
    for asked, name, words in (
        (table_of(), "r.npz", "reads the columns of a table"),
        (table_of(), "gone.csv", "does not exist"),
        (array_of(), "rows.csv", "is no .npz"),
    ):
        (tmp_path / "rows.csv").write_text("a\n1\n")
        with pytest.raises(DataError, match=words):
            asked.read(tmp_path / name, None, None)
    np.savez(tmp_path / "o.npz", z=np.zeros((2, 4)), y=np.zeros(2))
    with pytest.raises(DataError, match="name the array of inputs 'x'"):
        array_of().read(tmp_path / "o.npz", None, None)
    np.savez(tmp_path / "o.npz", x=np.zeros((2, 4)), y=np.array([0, 7]))
    with pytest.raises(DataError, match=r"'y': '7': .* row 2"):
        array_of().read(tmp_path / "o.npz", None, "raw")
    np.savez(tmp_path / "o.npz", x=np.full((2, 5), 9.0), y=np.array([0, 1.0]))
    with pytest.raises(DataError, match="inputs of shape"):
        array_of().read(tmp_path / "o.npz", None, None)


def test_a_model_that_continues_texts_is_refused(tmp_path, monkeypatch):
    text = Signature(
        "text", "causal_lm", (8,), (), text=TextInputs("note", None, None, "line", 8, "end")
    )
    known = type("Known", (), {"signature": {}, "scaler": None})
    monkeypatch.setattr("nacre.audit.declared.saved", lambda folder: known)
    monkeypatch.setattr("nacre.audit.declared.signature_in", lambda *_: (text, known))
    with pytest.raises(
        Incompatible, match="whose task is causal_lm; an evasion of texts is for models that put"
    ):
        declared_by(tmp_path)


def nacre(*words):
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with rows, the run that learnt from them, and what was exported of it."""
    folder = tmp_path_factory.mktemp("bank")
    numbers = np.random.default_rng(0)
    age, weight = numbers.integers(0, 100, 100), numbers.integers(0, 200, 100)
    sex = numbers.choice(["f", "m"], 100)
    ill = np.where(age + weight / 2 + 20 * (sex == "m") > 110, "ill", "well")
    rows = list(zip(age, weight, sex, ill, strict=True))
    written(folder / "rows.csv", ("age", "weight", "sex", "ill"), *rows)
    (folder / "recipe.yaml").write_text(RECIPE)
    assert nacre("train", folder / "recipe.yaml", "--into", folder / "run").exit_code == 0
    assert nacre("export", folder / "run", folder / "out").exit_code == 0
    return folder, rows


@pytest.fixture
def bank(trained, monkeypatch):
    """The same as the working directory; its rows."""
    monkeypatch.chdir(trained[0])
    shutil.rmtree("attack", ignore_errors=True)
    return trained[1]


def held(folder):
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_an_interrupt_leaves_a_run_as_it_was(bank, monkeypatch):
    assert nacre("audit", "run").exit_code == 0
    before = held(Path("run"))
    assert Path("run/local/attacks/the-model-1.safetensors") in before

    def interrupted(probed):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("nacre.audit.model_security.classes.signs", interrupted)
        run = nacre("audit", "run")
    assert run.exit_code == 130 and "interrupted; every file in run is whole" in run.output
    assert held(Path("run")) == before
    again = nacre("audit", "run", "--rescore", "--json")
    assert again.exit_code == 0, again.output
    (found,) = json.loads(Path("run/local/findings.json").read_text())["findings"]
    assert json.loads(again.stdout)["rescored"]["the-model-1"]["value"] == found["value"]
    assert held(Path("run")) == before


def test_rows_of_a_run_are_numbered_as_in_their_file(bank):
    """Not among those that were held out: in the batch and in the findings; a terminal is told none
    of the numbers, since the rows are private."""
    printed = nacre("audit", "run", "--json")
    assert printed.exit_code == 0, printed.output
    folder = Path("run/local/attacks")
    batch = load_batch(folder, "the-model-1")
    raw = batch.clean.double() * batch.space.scale.double() + batch.space.offset.double()
    for place, (age, weight, female, male), label in zip(
        batch.place.tolist(), raw.round().tolist(), batch.label.tolist(), strict=True
    ):
        assert bank[place] == (age, weight, "f" if female > male else "m", ["well", "ill"][label])
    assert len(batch) < int(batch.place.max())  # the held-out rows alone would be fewer
    facts = json.loads((folder / "the-model-1.json").read_text())
    assert facts["row_numbers"] == "in the file of the test rows, from 0"
    broken = [row["row"] for row in facts["broken"]]
    (found,) = json.loads(Path("run/local/findings.json").read_text())["findings"]
    assert [row["row"] for row in found["details"]["each"]] == broken
    assert broken and set(broken) <= set(batch.place.tolist())
    assert json.loads(printed.stdout)["findings"][0]["details"]["each"] == []
    turned = dataclasses.replace(
        batch,
        share=torch.full_like(batch.share, torch.inf),
        stage=torch.full_like(batch.stage, -1),
        value=1.0,
    )
    save_batch(turned, folder, "the-model-1")
    again = nacre("audit", "run", "--rescore")
    save_batch(batch, folder, "the-model-1")
    fallen = int(batch.share.isfinite().sum())
    assert again.exit_code == 1 and f"the same weights answer {fallen} rows" in again.stderr
    assert "numbered" not in again.stderr


def test_the_auditor_of_an_exported_model_hands_in_the_csv(bank):
    """Raw rows, scaled ones, the run's folder and the exported one: the same figures."""
    rows, ill = bank, np.array([row[3] for row in bank])
    scaled = [(a / 50 - 1, w / 100 - 1, int(s == "f"), int(s == "m"), y) for a, w, s, y in rows]
    written(Path("scaled.csv"), ("age", "weight", "sex=f", "sex=m", "ill"), *scaled)
    found = []
    for model, data in (("out", "rows.csv"), ("run", "rows.csv"), ("out", "scaled.csv")):
        shutil.rmtree("attack", ignore_errors=True)
        run = nacre("audit", "--model", model, "--data", data, "--radius", "0.2", "--effort",
                    "quick", "--public", "--json")  # fmt: skip
        assert run.exit_code == 0, run.output
        (finding,) = json.loads(run.stdout)["findings"]
        found.append(finding)
        assert nacre("audit", "--model", model, "--rescore").exit_code == 0
    assert found[0] == found[1] == found[2]
    assert found[0]["value"] < found[0]["details"]["clean"]["value"]
    # the clean accuracy is that of `nacre predict`
    assert nacre("predict", "out", "rows.csv", "-o", "p.csv").exit_code == 0
    with open("p.csv", newline="") as opened:
        answers = [row["prediction"] for row in csv.DictReader(opened)]
    clean = float(np.mean(np.array(answers) == ill))
    assert found[0]["details"]["clean"]["value"] == pytest.approx(clean)
    # what changed is shown in the columns' own units, and classes by their names
    shown = found[0]["details"]["rows"][0]
    assert {shown["label"], shown["after"]} <= {"well", "ill"}
    change = shown["changes"][0]
    assert abs(change["before"] - change["after"]) <= 0.2 * 100 * 1.001
    held = json.loads(Path("attack/batch.json").read_text())
    assert held["names"] == ["age", "weight", "sex=f", "sex=m"]
    run = nacre("audit", "--model", "out", "--data", "rows.csv", "--radius", "0.1", "--range", 0, 1)
    assert run.exit_code == 2 and "--range is for a model that does not say" in run.output
    run = nacre("audit", "--model", "out", "--data", "rows.csv", "--radius", 1, "--label", "sx")
    assert run.exit_code == 2 and "--label" in run.output


def test_a_threat_from_a_file_holds_in_the_columns_own_units(bank):
    Path("threat.yaml").write_text(
        "nacre: 1\nthreat:\n  kind: table\n  columns:\n"
        "    weight: {reach: 30, integer: true, only: decrease}\n    sex: {}\n"
    )
    words = ["audit", "--model", "out", "--data", "rows.csv", "--threat", "threat.yaml"]
    run = nacre(*words, "--effort", "quick", "--json")
    assert run.exit_code == 0, run.output
    (finding,) = json.loads(run.stdout)["findings"]
    assert finding["details"]["ball"]["kind"] == "table"
    assert finding["value"] < finding["details"]["clean"]["value"]
    batch = load_batch(Path("attack"), "batch")
    before = batch.clean.double() * batch.space.scale.double() + batch.space.offset.double()
    moved = (batch.attacked_raw() - before)[batch.stage >= 0]
    assert bool((moved[:, 0] == 0).all()) and float(moved[:, 1].min()) >= -30.001
    assert float(moved[:, 1].max()) <= 0.001
    assert nacre("audit", "--model", "out", "--rescore").exit_code == 0
    Path("threat.yaml").write_text(
        "nacre: 1\nthreat: {kind: table, columns: {wieght: {reach: 3}}}\n"
    )
    run = nacre(*words)
    assert run.exit_code == 2 and "'wieght': the nearest name is 'weight'" in run.output
    Path("threat.yaml").write_text("nacre: 1\nthreat: {kind: linf, radius: -3}\n")
    run = nacre(*words)
    assert run.exit_code == 2 and "threat.yaml:2 `threat.radius`" in run.output
    run = nacre(*words, "--radius", "1")
    assert run.exit_code == 2 and "--radius or --threat" in run.output

"""Someone trains, hands the model on, and the receiver predicts with it, by the command alone."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from nacre.cli.main import cli
from tests.training.tiny import CENTRAL, text

NAMES = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]


def nacre(*words: object) -> str:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_model_is_trained_handed_on_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("iris.yaml").write_text(text(CENTRAL))
    nacre("train", "iris.yaml", "--into", "run")
    flowers = [["one", 5.1, 3.5, 1.4, 0.2], ["two", 6.3, 3.3, 6.0, 2.5]]
    with Path("flowers.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["name", *NAMES], *flowers])
    own = nacre("predict", "run", "flowers.csv")
    rows = list(csv.DictReader(io.StringIO(own)))
    assert [row["name"] for row in rows] == ["one", "two"]
    kinds = ["setosa", "versicolor", "virginica"]
    for row in rows:
        shares = [float(row[f"probability_{kind}"]) for kind in kinds]
        assert row["prediction"] == kinds[shares.index(max(shares))]
        assert sum(shares) == pytest.approx(1, abs=1e-6)
    nacre("export", "run", "model")
    card = Path("model/README.md").read_text()
    for told in ("| petal width (cm) | number |", "setosa", "| one row | add-or-remove |"):
        assert told in card
    Path("elsewhere").mkdir()
    shutil.move("model", "elsewhere/model")
    shutil.rmtree("run")
    assert nacre("predict", "elsewhere/model", "flowers.csv") == own
    told = nacre("predict", "elsewhere/model", "flowers.csv", "-o", "out.jsonl", "--json")
    assert json.loads(told)["rows"] == 2
    assert [json.loads(line)["name"] for line in Path("out.jsonl").read_text().splitlines()] == [
        "one",
        "two",
    ]

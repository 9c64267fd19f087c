"""A model as an ONNX graph: the same answers from raw rows, and its signature beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import nacre
from nacre.cli.main import cli
from nacre.core.errors import Incompatible
from nacre.data import Column, Scaler
from nacre.prediction import graph
from nacre.prediction.graph import onnx_graph
from nacre.prediction.predictor import Predictor
from nacre.prediction.signature import Signature, read_signature

onnx: Any = pytest.importorskip(
    "onnx", reason="the extra `onnx` is not installed: pip install 'nacre[onnx]'"
)
from onnx.reference import ReferenceEvaluator  # noqa: E402

TABLE = pd.DataFrame(
    {"age": [50.0, 20.25, 99], "ward": ["east", "3", "west"], "pulse": [70, 300, 60.5]}
)


def answers(file: bytes, rows: np.ndarray) -> np.ndarray:
    """By onnx's own reference, and by onnxruntime as well where it is installed."""
    proto = onnx.load_from_string(file)
    found = ReferenceEvaluator(proto).run(None, {"rows": rows})[0]
    try:
        import onnxruntime
    except ImportError:
        return found
    session = onnxruntime.InferenceSession(file)
    np.testing.assert_allclose(session.run(None, {"rows": rows})[0], found, rtol=1e-5, atol=1e-5)
    return found


def test_a_graph_of_a_table_scales_and_encodes_by_itself(place: Path, tmp_path: Path) -> None:
    """Raw numbers, and categories by their place in the declared list; 300 is clamped to 220."""
    told = CliRunner().invoke(
        cli, ["export", str(place / "table"), str(tmp_path / "g"), "--to", "onnx", "--json"]
    )
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["files"] == ["README.md", "model.onnx"]
    assert "library_name: onnx" in (tmp_path / "g/README.md").read_text()
    file = (tmp_path / "g/model.onnx").read_bytes()
    model = nacre.load_model(place / "table")
    held = {p.key: p.value for p in onnx.load_from_string(file).metadata_props}
    signature = read_signature(json.loads(held["nacre.signature"]), "the graph")
    assert signature == model.signature
    rows = np.zeros((3, 3), np.float32)
    for number, column in enumerate(signature.columns):
        values = TABLE[column.name]
        listed = list(column.categories)
        rows[:, number] = [listed.index(v) if listed else v for v in values]
    np.testing.assert_allclose(answers(file, rows), model.predict_proba(TABLE), atol=1e-5)


def test_a_graph_of_images_reads_them_as_they_are(place: Path) -> None:
    model = nacre.load_model(place / "images")
    rows = np.random.default_rng(1).integers(0, 17, (5, 1, 8, 8)).astype(np.float32)
    found = answers(onnx_graph(model), rows)
    np.testing.assert_allclose(found, model.predict_proba(rows), atol=1e-5)


def _of(module: nn.Module, task: Any = "regression", low: float | None = -2.0) -> Predictor:
    columns = (Column("a", "number", low, 2.0, ()), Column("b", "number", None, None, ()))
    wide = torch.tensor([2.0, torch.inf])
    scaler = Scaler(torch.zeros(2), torch.ones(2), -wide, wide)
    classes = () if task == "regression" else ("no", "yes")
    return Predictor(module.eval(), Signature("table", task, (2,), classes, columns), scaler, None)


@pytest.mark.parametrize("low", [None, -2.0])
def test_a_graph_of_numbers(low: float | None) -> None:
    torch.manual_seed(0)
    model = _of(nn.Linear(2, 1), low=low)
    rows = np.array([[1, 2], [0, -7], [5, 1e6]], np.float32)
    own = model.predict({"a": rows[:, 0].clip(-2, 2), "b": rows[:, 1]})
    np.testing.assert_allclose(answers(onnx_graph(model), rows), own, rtol=1e-5)


CODED = (
    Column("age", "number", 0, 30, coding="piecewise", edges=(0, 10, 20, 30)),
    Column("dose", "number", 0, 9, coding="bins", edges=(0, 3, 6, 9)),
    Column("ward", "category", categories=("a", "b"), other=True),
    Column("smoker", "boolean", yes=("yes",), no=("no",)),
)


def test_a_graph_of_declared_codes() -> None:
    torch.manual_seed(0)
    shape, wide = (3 + 3 + 3 + 1,), torch.full((10,), torch.inf)
    scaler = Scaler(torch.zeros(10), torch.ones(10), -wide, wide)
    signature = Signature("table", "regression", shape, (), CODED)
    model = Predictor(nn.Linear(10, 1).eval(), signature, scaler, None)
    words = {"ward": ["a", "b", "z", "a"], "smoker": ["yes", "no", "no", "yes"]}
    frame = pd.DataFrame({"age": [0, 12.5, 30, 10], "dose": [0, 3, 9, 5.5], **words})
    rows = np.array([[0, 0, 0, 1], [12.5, 3, 1, 0], [30, 9, 2, 0], [10, 5.5, 0, 1]], np.float32)
    np.testing.assert_allclose(answers(onnx_graph(model), rows), model.predict(frame), rtol=1e-5)
    others = (Column("icd", "hash", buckets=8), Column("dose", "number", 0, 9, missing="fill",
              fill=1, flag=True), Column("born", "date", low=0, high=9))  # fmt: skip
    dated = Signature("table", "regression", (8,), (), (*CODED, *others))
    said = r": 'icd' \(hash\), 'dose' \(flag of a missing value\), 'born' \(date\); use"
    with pytest.raises(Incompatible, match=said):
        onnx_graph(Predictor(nn.Linear(8, 1).eval(), dated, None, None))


class ByValue(nn.Module):
    """Takes another way for other values, which a trace does not hold."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows[:, :1] * (1 if float(rows.sum()) > 0 or len(rows) > 1 else 2)


class Unwritable(nn.Module):
    """Computes by an operation that ONNX has no word for."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(rows[:, :1])


def test_a_graph_that_would_answer_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "_made_up", lambda signature: -torch.ones(5, 2))
    with pytest.raises(Incompatible, match="answers otherwise than the model"):
        onnx_graph(_of(ByValue()))


def test_what_no_graph_can_hold_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Incompatible, match="cannot write this model as an ONNX graph"):
        onnx_graph(_of(Unwritable()))
    told = CliRunner().invoke(
        cli, ["export", str(place / "text"), str(tmp_path / "g"), "--to", "onnx"]
    )
    assert told.exit_code == 2 and "this model reads text" in told.stderr
    assert not (tmp_path / "g").exists()
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(Incompatible, match=r"pip install 'nacre\[onnx\]'"):
        onnx_graph(_of(nn.Linear(2, 1)))

"""Neighbours through the public door: one unit taken away moves a noiseless sum by its bound at
most, and nothing else that a run writes outside `local/` but what was released.

A new unit or adjacency is tested by being listed in `UNITS` or `ADJACENCIES`.
"""

# pyright: reportPrivateUsage=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportArgumentType=false

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import TensorDataset

from nacre.core.types import BoundedSum
from nacre.planning.plan import plan
from nacre.runs.run import train
from nacre.training import step
from tests.integrations.declared import private, table
from tests.training.tiny import TABLE, patients, recipe

MANY = "p999"  # a person with twelve rows


def _rows(file: Path) -> None:
    patients(file, people=30)
    with file.open("a", newline="") as handle:
        csv.writer(handle).writerows(
            [MANY, "north", f"{20 + place}", "f", f"{place / 2:.2f}", "yes"] for place in range(12)
        )


def _without(file: Path, unit: str) -> None:
    """The table without one unit: the last row, or every row of the person with twelve."""
    lines = file.read_text().splitlines(keepends=True)
    kept = lines[:-1] if unit == "example" else [x for x in lines if not x.startswith(MANY)]
    file.write_text("".join(kept))


def _trained(folder: Path, unit: str, adjacency: str, neighbour: bool) -> Path:
    folder.mkdir()
    _rows(folder / "patients.csv")
    if neighbour:
        _without(folder / "patients.csv", unit)
    privacy: dict[str, Any] = {
        "unit": unit, "adjacency": adjacency, "epsilon": 8, "delta": 1.0e-3,
    }  # fmt: skip
    if unit == "group":
        privacy["rows_per_unit"] = 12
    changes = {
        "differential_privacy": privacy,
        "data__holdout": None,
        "training__batch": 48,
        "training__steps": 2,
        "training__checkpoint": 1,
        "training__sampling": {"kind": "full"},
    }
    train(plan(recipe(folder, TABLE, **changes)), folder / "run")
    return folder / "run"


Sums = list[BoundedSum]


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch) -> Sums:
    """The first noiseless sum of each run, as it enters the noise."""
    found: Sums = []
    real = step._sum

    def tapped(state: Any, *given: Any) -> BoundedSum:
        total = real(state, *given)
        if state.done == 0:
            copy = {name: value.clone() for name, value in total.total.items()}
            found.append(BoundedSum(copy, total.bound, total.local))
        return total

    monkeypatch.setattr(step, "_sum", tapped)
    return found


def _distance(sums: Sums) -> float:
    one, other = sums[0].total, sums[-1].total
    return math.sqrt(sum(float((one[n] - other[n]).double().square().sum()) for n in one))


def _told(run: Path) -> dict[str, Any]:
    """What a run writes outside `local/`, but for what was released and when."""
    told = json.loads((run / "plan.json").read_text())
    told.pop("created")
    told.pop("estimates")
    lines = (run / "released.jsonl").read_text()
    outcome = json.loads((run / "outcome.json").read_text())
    names = sorted(
        (str(path.relative_to(run)), path.stat().st_size if path.suffix == ".safetensors" else 0)
        for path in run.rglob("*")
        if path.is_file() and "local" not in path.relative_to(run).parts
    )
    outcome.pop("provenance")  # the HMAC of the data, keyed by a key of each holder's own
    model = (run / "model.json").read_bytes()
    return {
        "plan": told, "lines": lines, "outcome": outcome, "names": names, "model": model,
    }  # fmt: skip


UNITS = ["example", "group"]
ADJACENCIES = ["add_or_remove", "replace_one", "zero_out"]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("adjacency", ADJACENCIES)
def test_one_unit_moves_a_sum_by_its_bound_and_nothing_else(
    tmp_path: Path, sums: Sums, unit: str, adjacency: str
) -> None:
    first = _trained(tmp_path / "one", unit, adjacency, neighbour=False)
    other = _trained(tmp_path / "other", unit, adjacency, neighbour=True)
    assert len(sums) == 2
    assert 0 < _distance(sums) <= sums[0].bound * (1 + 1e-5)
    assert sums[0].bound == sums[1].bound == 1.0
    assert _told(first) == _told(other)


def _private(folder: Path, rows: TensorDataset, adjacency: str) -> None:
    from nacre.differential_privacy.options import Privacy

    folder.mkdir()
    privacy = Privacy(epsilon=8, delta=1e-4, adjacency=adjacency)  # type: ignore[arg-type]
    with private(folder, privacy=privacy, dataset=rows, batch=120, steps=1) as run:
        run.step()


@pytest.mark.parametrize("adjacency", ["add_or_remove", "zero_out"])
def test_one_row_moves_a_sum_of_an_adapter_by_its_bound(
    tmp_path: Path, sums: Sums, adjacency: str
) -> None:
    whole = table()
    features, label = whole.tensors
    _private(tmp_path / "one", whole, adjacency)
    _private(tmp_path / "other", TensorDataset(features[:-1], label[:-1]), adjacency)
    assert 0 < _distance(sums) <= sums[0].bound * (1 + 1e-5)

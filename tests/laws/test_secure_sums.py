"""Whole runs with a secure sum: the plain run on the grid, and nothing of one party beside the sum.

At client level the clipped changes are summed before the noise; at example level the noised changes
are rounded, which is post-processing; without privacy they are rounded as they are.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nacre.core.files import load_tensors
from nacre.core.random import Source
from nacre.federated_learning import OnDemand
from nacre.federated_learning.secure import SecureGather, wire
from nacre.federated_learning.signed import addressed
from nacre.planning.plan import plan
from nacre.runs import run
from nacre.runs.workers import parties
from tests.laws.conftest import KEY, Sums, moved, written
from tests.training.tiny import CENTRAL, StopAfter, Stopped, changed, patients, recipe

pytestmark = pytest.mark.slow

NAMES = ["a", "b", "c", "d"]
SECURE: dict[str, Any] = {"kind": "secure", "threshold": 3, "reach": 2.0}
FOUR: dict[str, Any] = changed(
    CENTRAL,
    {
        "federated_learning": {
            "parties": {"kind": "uniform", "names": NAMES}, "rounds": 3, "local": {"steps": 2},
        },
        "training": {"batch": 20, "checkpoint": 1, "optimizer": {"kind": "sgd", "lr": 0.2}},
        "gradient_clipping.norm": 0.5,
    },
)  # fmt: skip
LEVELS: dict[str, dict[str, Any]] = {
    "client": changed(
        FOUR,
        {"differential_privacy.unit": "client", "federated_learning.few_clients": True},
    ),
    "both": changed(
        FOUR,
        {
            "differential_privacy": {"unit": "client", "epsilon": 8, "delta": 0.1},
            "within_parties": {
                "differential_privacy": FOUR["differential_privacy"],
                "gradient_clipping": {"kind": "flat", "norm": 1.0},
            },
            "ledger.grant": {"epsilon": 8, "delta": 0.1},
            "ledger.grant_within_parties": {"epsilon": 8, "delta": 1.0e-4},
            "federated_learning.few_clients": True,
        },
    ),
    "example": FOUR,
    "none": changed(
        FOUR, {"differential_privacy": None, "ledger": None, "gradient_clipping": None}
    ),
}


@pytest.fixture
def same_randomness(known_keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw the same numbers, whatever their recipes say: a run's source is bound to its recipe
    otherwise."""
    monkeypatch.setattr(run, "Source", lambda key: SimpleNamespace(child=lambda *_: Source(KEY)))


def _run(folder: Path, base: dict[str, Any], name: str, **changes: Any) -> Path:
    for path in folder.glob("privacy.db*"):
        path.unlink()
    return run.train(plan(recipe(folder, base, **changes)), folder / name).path


def _distance(one: Path, other: Path) -> float:
    models = [load_tensors(path / "model.safetensors")[0] for path in (one, other)]
    return max(float((models[0][n] - models[1][n]).abs().max()) for n in models[0])


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("level", ["example", "none"])
def test_a_secure_run_is_the_plain_run_on_the_grid(
    tmp_path: Path, same_randomness: None, level: str, bits: Any
) -> None:
    """Where noise is made at the parties, or nowhere: after a round the models lie half a step of
    the grid apart, as the mean of four roundings does. (Later rounds have other noise, which is
    keyed by the weights that enter.)"""
    base = changed(LEVELS[level], {"federated_learning.rounds": 1})
    plain = _run(tmp_path, base, "plain")
    secure = _run(tmp_path, base, "secure", federated_learning__gather={**SECURE, "bits": bits})
    grid = SecureGather(threshold=3, reach=2.0, bits=bits).grid(len(NAMES), None)
    assert _distance(plain, secure) <= grid.step / 2 + 1e-6
    assert bits > 16 or _distance(plain, secure) > 1e-6


@pytest.mark.parametrize("level", ["client", "both"])
def test_a_secure_sum_of_clipped_changes_is_the_plain_one_on_the_grid(
    tmp_path: Path, cut: Sums, same_randomness: None, level: str
) -> None:
    """At client level the noise is keyed by the sum, so the sums are compared, of the first round
    and, as they are cut, of those after it. Below it parties may have noise of their own."""
    for name, gather in (("plain", {"kind": "plain"}), ("secure", SECURE | {"bits": 24})):
        _run(tmp_path, LEVELS[level], name, federated_learning__gather=gather)
    over_parties = [total for total in cut if total.bound < 1]
    assert len(over_parties) == 6
    assert 0 < max(moved(over_parties)) < 1e-5


class _Away(OnDemand):
    """Party `a` does not answer with a change."""

    def ask(self, requests: Mapping[str, bytes]) -> Mapping[str, bytes]:
        some = {n: d for n, d in requests.items() if n != "a" or addressed(d).kind != wire.MASK}
        return super().ask(some)


@pytest.mark.parametrize("level", LEVELS)
def test_a_dropout_counts_as_no_change(
    tmp_path: Path, cut: Sums, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """In every round; at client level the sum moves by no more than the bound of one party."""
    whole = _run(tmp_path, LEVELS[level], "whole", federated_learning__gather=SECURE)
    monkeypatch.setattr(parties, "OnDemand", _Away)
    away = _run(tmp_path, LEVELS[level], "away", federated_learning__gather=SECURE)
    if level in ("client", "both"):
        assert 0 < max(moved([total for total in cut if total.bound < 1])) <= 1 + 1e-5
        one, other = written(whole), written(away)
        for facts in (one, other):
            facts["outcome.json"].pop("seconds")  # these rows are declared public
        assert one == other
    else:
        assert _distance(whole, away) > 0
    if level == "example":
        lines = [json.loads(x) for x in (away / "released.jsonl").read_text().splitlines()]
        assert [sorted(line["parties"]) for line in lines] == [["b", "c", "d"]] * 3


TABLE: dict[str, Any] = changed(
    FOUR,
    {
        "data": {
            "kind": "table", "path": "patients.csv", "target": "ill", "classes": ["no", "yes"],
            "drop": ["patient"], "party": "hospital", "size": 48,
            "columns": {"age": {"low": 0, "high": 120}, "sex": {"categories": ["f", "m"]},
                        "dose": {"low": 0, "high": 10}},
        },
        "differential_privacy": {"epsilon": 8, "delta": 1.0e-3, "unit": "client"},
        "ledger.dataset": "patients",
        "ledger.grant": {"epsilon": 8, "delta": 1.0e-3, "rule": "pld"},
        "federated_learning.few_clients": True,
        "federated_learning.parties": {
            "kind": "column", "column": "hospital", "sizes": {"north": 24, "south": 24},
        },
        "federated_learning.gather": {**SECURE, "threshold": 2, "colluders": 0},
    },
)  # fmt: skip


@pytest.mark.parametrize("unit", ["client", "example"])
@pytest.mark.parametrize("adjacency", ["replace_one", "zero_out"])
def test_neighbours_differ_by_their_bound_and_in_nothing_else(
    tmp_path: Path, cut: Sums, unit: str, adjacency: str
) -> None:
    """All rows of one hospital, or one of its rows, are others; or the row is gone."""
    file = patients(tmp_path / "patients.csv", people=30)
    privacy = {"unit": unit, "adjacency": adjacency, "accountant": "rdp"}
    changes: dict[str, Any] = {
        f"differential_privacy__{key}": value for key, value in privacy.items()
    }
    if unit == "example" and adjacency == "replace_one":
        changes["training__sampling"] = {"kind": "full"}
    first = _run(tmp_path, TABLE, "one", **changes)
    lines = file.read_text().splitlines(keepends=True)
    ours = [i for i, line in enumerate(lines) if ",north," in line]
    for i in ours if unit == "client" else ours[-1:]:
        who = lines[i].split(",")[0]
        lines[i] = f"{who},north,119.0,m,0.00,no\n"
    if unit == "example" and adjacency == "zero_out":
        del lines[ours[-1]]
    file.write_text("".join(lines))
    other = _run(tmp_path, TABLE, "other", **changes)
    reach = 2 if adjacency == "replace_one" or unit == "client" else 1
    assert 0 < max(moved(cut)) <= reach * (1 + 1e-5)
    assert written(first) == written(other)


@pytest.mark.parametrize("level", LEVELS)
def test_a_stopped_run_continues_to_the_same_model(
    tmp_path: Path, known_keys: None, level: str
) -> None:
    made = recipe(tmp_path, LEVELS[level], federated_learning__gather=SECURE)
    whole = _run(tmp_path, LEVELS[level], "whole", federated_learning__gather=SECURE)
    for path in tmp_path.glob("privacy.db*"):
        path.unlink()
    with pytest.raises(Stopped):
        run.train(plan(made), tmp_path / "stopped", observe=StopAfter(2))
    resumed = run.train(
        plan(made, resume=tmp_path / "stopped"), tmp_path / "stopped", resume=True
    ).path
    models = [load_tensors(path / "model.safetensors")[0] for path in (whole, resumed)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    assert not (resumed / "local" / "parties").exists()

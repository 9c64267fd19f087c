"""What a finished run tells of its model: every figure, and on whose rows; refusals of figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nacre.cli.main import cli
from nacre.core.errors import Refusal
from nacre.core.random import Source
from nacre.figures.names import figures_of
from nacre.planning.plan import plan
from nacre.recipe.load import loads
from nacre.report.evidence import gather
from nacre.report.sections.words import NOT_FOR_OTHERS as PRIVATE
from nacre.runs import tune as tuning
from nacre.runs.listing.entry import run_entry
from nacre.runs.run import train
from tests.training.tiny import CENTRAL, FEDERATED, TABLE, changed, patients, recipe, text

NAMES = {name for name in figures_of("classification") if name != "loss"}
SMALL = changed(
    TABLE,
    {
        "training.steps": 1,
        "evaluate": {"groups": ["sex"]},
        "data.holdout": {"share": 0.5},  # of both classes for certain, or there is no AUROC
    },
)


def _nacre(*words: object) -> str:
    found = CliRunner().invoke(cli, [str(word) for word in words])
    assert found.exit_code == 0, found.output
    return found.stdout


@pytest.mark.parametrize("public", [False, True], ids=["private", "public"])
def test_figures_are_told_where_their_rows_may_be(tmp_path: Path, public: bool) -> None:
    patients(tmp_path / "patients.csv")
    planned = plan(recipe(tmp_path, SMALL, data__public_demonstration=public))
    run = train(planned, tmp_path / "run")
    told = _nacre("audit", run.path)
    assert (PRIVATE in told) is not public and ("on public test rows" in told) is public
    assert "AUROC" in told and "sex=f" in told and "class yes" in told
    model = json.loads(_nacre("audit", run.path, "--json"))["model"]
    assert model.pop("public") is public
    place = run.path if public else run.folder.local
    (written,) = json.loads((place / "comparison.json").read_text())["variants"]
    assert model == written
    found = written["figures"]
    assert set(found["figures"]) == NAMES
    assert found["figures"]["accuracy"]["value"] == written["accuracy"]["value"]
    assert sum(map(sum, found["confusion"])) == found["rows"]
    assert {(group["column"], group["name"]) for group in found["groups"]} == {
        ("sex", "f"), ("sex", "m"),
    }  # fmt: skip
    held = [g for g in found["groups"] if g["rows"]]  # the split may leave a small group out
    assert all(g["figures"]["accuracy"]["value"] is None for g in found["groups"] if g not in held)
    right = sum(g["rows"] * g["figures"]["accuracy"]["value"] for g in held)
    assert right / found["rows"] == pytest.approx(written["accuracy"]["value"])
    evidence = gather(run.path)
    entry = run_entry(run.path)
    assert entry is not None
    if public:
        assert evidence["comparison"]["variants"][0]["figures"] == found
        assert entry.figures.found["AUROC"].value == found["figures"]["auroc"]["value"]
    else:
        assert evidence["comparison"] is None and not entry.figures.found
        assert not (run.path / "comparison.json").exists()


def test_a_curve_a_stop_and_a_search_take_any_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = changed(
        FEDERATED,
        {
            "data.size": 90,
            "data.public": {"share": 0.2},
            "training.batch": 20,
            "federated_learning.rounds": 3,
            "federated_learning.stop": {"figure": "brier", "patience": 1, "min_delta": 10.0},
            "evaluate": {"figure": "auroc"},
        },
    )
    outcome = json.loads(
        train(plan(recipe(tmp_path, base)), tmp_path / "a").folder.outcome.read_text()
    )
    # The first figure is the best so far; the next is no better by 10, whichever way is better.
    assert outcome["stopped"] == "stopped improving" and outcome["done"] == 2
    for point in outcome["curve"]:
        assert point.keys() == {"round", "accuracy", "loss", "brier", "auroc"}
        assert 0 <= point["auroc"] <= 1
    searched = changed(
        CENTRAL,
        {
            "data.size": 90,
            "data.public": {"share": 0.2},
            "training": {"steps": 1, "batch": 30},
            "ledger.grant": {"epsilon": 8, "delta": 1.0e-4, "rule": "rdp"},
            "ledger.dataset": "searched",
            "tune": {
                "trials": 2,
                "over": {"training.optimizer.lr": [0.01, 1.0]},
                "score": {"kind": "public", "figure": "calibration_error"},
            },
        },
    )
    monkeypatch.setattr(Source, "fresh", lambda: Source(bytes(31) + b"\x01"))
    planned = plan(recipe(tmp_path, searched))
    run = tuning.tune(planned, tmp_path / "b")
    found = json.loads(run.folder.outcome.read_text())["search"]
    assert found["figure"] == "calibration error on public rows"
    assert 0 < found["value"] < 1  # not the negative that trials are compared by


@pytest.mark.parametrize(
    ("base", "changes", "says"),
    [
        (TABLE, {"evaluate": {"groups": ["age"]}}, "'age' is no column with categories that the"),
        (
            TABLE,
            {"evaluate": {"groups": ["sex"]}, "data.holdout": None},
            "rows that were not train",
        ),
        (TABLE, {"evaluate": {"groups": ["sex", "sex"]}}, "name a column twice; remove one"),
        (
            TABLE,
            {"evaluate": {"figure": "auroc"}, "data.holdout": None},
            "a figure is computed on test rows",
        ),
        (TABLE, {"evaluate": {"figure": "rmse"}}, "the task is classification, which has no rmse"),
        (
            FEDERATED,
            {
                "federated_learning.stop": {"figure": "r2"},
                "data": FEDERATED["data"] | {"public": {"share": 0.2}, "size": 90},
            },
            "which has no r2; use one of `loss`, `accuracy`, `balanced_accuracy`, `auroc`",
        ),
        (
            FEDERATED,
            {"federated_learning.stop": {"figure": "auc_roc"}},
            "'auc_roc' is unknown; did you mean `auroc`?",
        ),
        (
            FEDERATED,
            {"federated_learning.stop": {"figure": "x"}},
            "use one of `loss`, `accuracy`, `balanced_accuracy`, `auroc`, `average_precision`, "
            "`f1`, `brier`, `calibration_error`, `mae`, `rmse`, `r2`",
        ),
        (
            CENTRAL,
            {
                "tune": {
                    "over": {"training.steps": [1]},
                    "score": {"kind": "private", "figure": "f1"},
                }
            },
            "cannot choose on private units: how far one of them moves it depends on all the",
        ),
    ],
)
def test_a_figure_that_does_not_fit_is_refused(
    tmp_path: Path, base: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    written = text(changed(base, changes))
    with pytest.raises(Refusal) as refused:
        plan(loads(written, "tiny.yaml", folder=tmp_path))
    line = int(str(refused.value).split(":")[1].split()[0])
    assert says in str(refused.value)
    assert written.splitlines()[line - 1].strip().startswith(("figure:", "- ", "groups:"))

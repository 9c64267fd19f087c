"""A protected figure through the public door: priced, released once, checked, given back."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from nacre.cli.main import cli
from nacre.core.errors import NotAsPlanned, Refusal
from nacre.ledger import Ledger
from nacre.planning.plan import Plan, plan
from nacre.planning.show import plan_tables
from nacre.report.evidence import check_releases, gather, write_report
from nacre.report.repriced import repriced
from nacre.report.summary import run_figures, summary_json
from nacre.runs.listing.entry import run_entry
from nacre.runs.run import finish, train
from nacre.training.fit import Journalled
from tests.laws.conftest import known_keys as known_keys
from tests.training.tiny import TABLE, Stopped, changed, patients, recipe

PROTECTED = changed(
    TABLE,
    {
        "data.size": 192,
        "data.holdout": {"share": 0.2, "protected": True},
        "training": {"steps": 20, "batch": 96, "checkpoint": 5},
        "ledger.grant": {"epsilon": 8, "delta": 1.0e-3, "rule": "rdp"},
    },
)
"""20 steps at a rate of a half: an epoch of held-out units is two draws."""


def _planned(folder: Path, **changes: Any) -> Plan:
    patients(folder / "patients.csv", people=240)
    return plan(recipe(folder, PROTECTED, **changes))


def _journalled(folder: Path, run: Path) -> tuple[int, int]:
    """(steps that were reserved, steps that the ledger has journalled)."""
    with Ledger.open(folder / "privacy.db") as ledger:
        found = ledger.run("patients", json.loads((run / "ledger.json").read_text())["run"])
        return found.steps, found.journalled


def test_it_is_priced_with_the_training_and_released_for_others(tmp_path: Path) -> None:
    planned = _planned(tmp_path)
    (level,) = planned.priced
    bare = plan(recipe(tmp_path, PROTECTED, data__holdout={"share": 0.2})).priced[0]
    assert level.mechanism.evaluation == 2 and planned.rounds == 20
    assert level.multiplier > bare.multiplier
    assert level.price.epsilon == pytest.approx(level.mechanism.price(1e-3, "rdp").epsilon)
    more = bare.mechanism.with_multiplier(level.multiplier).event(22)
    assert repr(level.mechanism.event()) == repr(more)
    run = train(planned, tmp_path / "run")
    assert _journalled(tmp_path, run.path) == (22, 22)
    assert repriced(run.path)[0].epsilon == pytest.approx(level.price.epsilon, rel=1e-3)
    *_, last = check_releases(run.path)
    assert (last["first"], last["last"], last.get("evaluation")) == (21, 22, True)
    assert last["bound"] == [1.0, 1.0] and last["deviation"] == [level.multiplier] * 2
    page = write_report(run.path).read_text()
    figure = gather(run.path)["evaluation"]
    assert figure["accuracy"]["low"] is not None and "Epsilon covers" in figure["covered"]
    assert summary_json(run.path)["protected_accuracy"] == figure["accuracy"]
    entry = run_entry(run.path)
    assert entry is not None and entry.figures.first is not None
    assert entry.figures.first[0] == "protected accuracy"
    _shown_in_full(planned, run.path, page, figure["accuracy"])


def _shown_in_full(planned: Plan, run: Path, page: str, found: Any) -> None:
    """With its interval, what it counts and the baseline, wherever it is shown."""
    ends = f"{found['low']:.1%} to {found['high']:.1%}"
    full = f"{found['value']:.1%} ({ends})"
    listed = CliRunner().invoke(cli, ["runs", str(run.parent)])
    assert f"protected accuracy {full}" in listed.output
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(run_figures(run), plan_tables(planned))
    table = console.export_text()
    head = page[: page.index('id="utility"')]
    for text in (table, head):
        assert text.lower().count("protected accuracy") == 1 and "withheld" not in head
        assert f"95% interval {ends}, noise included; counts units and not rows" in text
        assert "the most frequent class has " in text
    assert "2 draws for the protected figure, after the steps: " in table
    assert "20 noised sums and 2 draws for the protected figure" in page


def test_a_run_killed_among_its_draws_answers_once(
    tmp_path: Path, known_keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the second draw, and after all of them: the same figure, charged once."""
    whole = train(_planned(tmp_path), tmp_path / "whole")
    wanted = (whole.path / "evaluation.json").read_text()
    lines = (whole.path / "released.jsonl").read_text()
    for stop_at in ("draw", "end"):
        for path in tmp_path.glob("privacy.db*"):
            path.unlink()
        planned, into = _planned(tmp_path), tmp_path / stop_at
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            _stop(patch, stop_at)
            train(planned, into)
        run = train(planned, into, resume=True)
        assert (run.path / "evaluation.json").read_text() == wanted
        assert (run.path / "released.jsonl").read_text() == lines
        assert _journalled(tmp_path, run.path) == (22, 22)


def _stop(patch: pytest.MonkeyPatch, stop_at: str) -> None:
    real = Journalled.add

    def add(self: Journalled, *given: Any, **named: Any) -> Any:
        if self.step == 22:
            raise Stopped
        return real(self, *given, **named)

    def ended(*_: Any) -> None:
        raise Stopped

    if stop_at == "draw":
        patch.setattr(Journalled, "add", add)
    else:
        patch.setattr("nacre.runs.close.end", ended)


def test_a_run_that_is_finished_early_releases_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, planned = Journalled.add, _planned(tmp_path)

    def add(self: Journalled, *given: Any, **named: Any) -> Any:
        if self.step == 12:
            raise Stopped
        return real(self, *given, **named)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Journalled, "add", add)
        train(planned, tmp_path / "run")
    run = finish(tmp_path / "run")
    assert not (run.path / "evaluation.json").exists()
    assert _journalled(tmp_path, run.path) == (22, 11)  # the rest comes back
    check_releases(run.path)


def test_a_figure_that_was_changed_is_refused(tmp_path: Path) -> None:
    run = train(_planned(tmp_path, training__steps=2), tmp_path / "run").path
    file, lines = run / "evaluation.json", run / "released.jsonl"
    facts, written = json.loads(file.read_text()), lines.read_text()
    check_releases(run)
    for changes, says in (
        ({"accuracy": facts["accuracy"] | {"value": 0.99}}, "does not follow from its votes"),
        ({"deviation": 0.1}, "its deviation is 0.1 where"),
        ({"majority": 0.5}, "share of the most frequent class does not follow"),
        ({"draws": 9}, "its draws is 9 where 1 is planned"),
        ({"votes": [[1.0]]}, "no square of its classes"),
    ):
        file.write_text(json.dumps(facts | changes))
        with pytest.raises(NotAsPlanned, match=says):
            check_releases(run)
    file.unlink()
    with pytest.raises(NotAsPlanned, match="it is missing"):
        check_releases(run)
    file.write_text(json.dumps(facts))
    for old, new, says in (
        (', "evaluation": true', "", "holds 3 releases and 2 steps were"),
        ('"bound": 1.0, "evaluation"', '"bound": 2.0, "evaluation"', "by up to 2 where 1 is"),
    ):
        assert old in written
        lines.write_text(written.replace(old, new))
        with pytest.raises(NotAsPlanned, match=says):
            check_releases(run)


@pytest.mark.parametrize(
    ("base", "changes", "says"),
    [
        (PROTECTED, {"differential_privacy": None}, "has no differential_privacy section"),
        (PROTECTED, {"data.task": "regression", "data.classes": None, "data.target": "dose",
                     "data.columns.dose": None, "data.drop": ["hospital", "ill"]},
         "the task is regression"),
        (PROTECTED, {"training.sampling": {"kind": "balls_in_bins"}}, "balls_in_bins sampling"),
        (PROTECTED, {"training.sampling": {"kind": "cyclic_poisson"},
                     "differential_privacy.noise": {"kind": "tree"}}, "noise of kind tree"),
        (PROTECTED, {"tune": {"over": {"training.optimizer.lr": [0.1]},
                              "score": {"kind": "private"}}}, "each trial of a search"),
        (PROTECTED, {"data.party": "hospital", "data.drop": [], "training.batch": 20,
                     "training.steps": None,
                     "federated_learning.parties": {"kind": "column", "column": "hospital",
                                                    "sizes": {"north": 96, "south": 96}}},
         "parties have no mechanism in common"),
    ],
)  # fmt: skip
def test_what_has_no_price_is_refused(
    tmp_path: Path, base: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(Refusal, match=says) as refused:
        plan(recipe(tmp_path, changed(base, changes)))
    assert "`data.holdout.protected`" in str(refused.value)

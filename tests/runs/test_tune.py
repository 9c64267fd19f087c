"""Private searches, from Python: what leaves, what is charged, what an interruption changes."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import shutil
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from nacre.audit.run import audit_run
from nacre.core.errors import BudgetExceeded, Incompatible, LedgerError, NacreError, RunError
from nacre.core.files import load_tensors, save_tensors
from nacre.core.random import Source
from nacre.core.run_folder import RunFolder
from nacre.data.dataset import Rows
from nacre.differential_privacy.accounting.price import epsilon
from nacre.differential_privacy.events_json import from_json
from nacre.differential_privacy.selection.trials import Trials
from nacre.ledger import Ledger
from nacre.ledger.rules import RuleName
from nacre.models import build
from nacre.planning.outlook import outlook
from nacre.planning.plan import plan
from nacre.planning.show import plan_tables
from nacre.recipe.load import dumps, load_recipe, loads
from nacre.report.evidence import gather, write_report
from nacre.runs import rows
from nacre.runs import tune as tuning
from nacre.runs.run import abandon, finish, open_run, train
from nacre.runs.tune import tune
from tests.training.tiny import CENTRAL, FEDERATED, TABLE, Stopped, changed, patients, recipe

pytestmark = pytest.mark.slow

OVER = {"training.optimizer.lr": [0.001, 0.1], "training.steps": [4, 6]}
GRANT = {"epsilon": 8, "delta": 1.0e-4, "rule": "rdp"}
SEARCH = changed(
    CENTRAL,
    {
        "data.size": 90,
        "data.public": {"share": 0.2},
        "training.batch": 30,
        "ledger.grant": GRANT,
        "ledger.path": "{run}/privacy.db",
        "tune": {"trials": 4, "over": OVER},
    },
)
PARTIES = changed(
    FEDERATED,
    {
        "data.size": 90,
        "data.public": {"share": 0.2},
        "training.batch": 20,
        "ledger.grant": GRANT,
        "tune": {"trials": 3, "over": {"training.optimizer.lr": [0.05, 0.2]}},
    },
)
COUNTED = changed(
    TABLE,
    {
        "ledger.grant": {"epsilon": 8, "delta": 1.0e-3, "rule": "rdp"},
        "tune": {
            "trials": 3,
            "over": {"gradient_clipping.norm": [0.5, 1.0]},
            "score": {"kind": "private", "deviation": 4.0},
        },
    },
)


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return load_tensors(path / "model.safetensors")[0]


def _interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Ends the process as the trial after so many is scored."""
    score, seen = tuning._score, iter(range(99))

    def stopping(*arguments: Any) -> float:
        if next(seen) == after:
            raise Stopped
        return score(*arguments)

    monkeypatch.setattr(tuning, "_score", stopping)


@pytest.mark.parametrize("base", [SEARCH, PARTIES, COUNTED], ids=["central", "parties", "counted"])
def test_the_winner_leaves_and_nothing_else(tmp_path: Path, base: dict[str, Any]) -> None:
    patients(tmp_path / "patients.csv")
    planned = plan(recipe(tmp_path, base))
    run = tune(planned, tmp_path / "run")
    assert run.recipe.tune is None
    assert not run.folder.trials.exists() and not run.folder.run_key.exists()
    assert not [p for p in run.path.rglob("*") if "trial" in p.name]
    outcome = json.loads(run.folder.outcome.read_text())
    assert outcome["seconds"] == {} and "trials" not in json.dumps(outcome)
    chosen = outcome["search"]["chosen"]
    assert chosen.keys() == base["tune"]["over"].keys()
    for key, value in chosen.items():
        assert value in base["tune"]["over"][key]
    facts = json.loads(run.folder.plan.read_text())
    assert facts["search"]["chosen"] == chosen
    assert facts["recipe_digest"] == planned.digest
    assert len((run.path / "released.jsonl").read_text().splitlines()) == outcome["done"]
    again = open_run(run.path)
    assert again.recipe == run.recipe
    audit_run(again)
    write_report(run.path)
    assert "Epsilon is that of a whole search" in (run.path / "report.html").read_text()
    assert (
        str(gather(run.path)["plan"]["parties"][0]["epsilon"])[:4] == f"{_price(planned):.9f}"[:4]
    )


def _price(planned: Any) -> float:
    return planned.levels[0].price.epsilon


@pytest.mark.parametrize("base", [SEARCH, PARTIES, COUNTED], ids=["central", "parties", "counted"])
def test_the_whole_search_is_charged_before_its_first_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: dict[str, Any]
) -> None:
    patients(tmp_path / "patients.csv")
    base = changed(base, {"ledger.path": "privacy.db"})
    planned = plan(recipe(tmp_path, base))
    _interrupt(monkeypatch, 0)
    with pytest.raises(Stopped):
        tune(planned, tmp_path / "run")
    monkeypatch.undo()
    abandon(tmp_path / "run")  # nothing comes back, however early
    with Ledger.open(tmp_path / "privacy.db") as ledger:
        for holder in planned.levels:
            assert holder.account is not None
            (grant,) = ledger.summary(holder.account).grants
            (run,) = ledger.summary(holder.account).runs
            assert (run.journalled, run.end) == (1, "settled")
            assert grant.spent > 0.5 and grant.reserved == 0
            standing = ledger._book.account(holder.account).run(run.run).request
            event = from_json(json.loads(standing.step))
            delta = planned.recipe.differential_privacy.delta  # type: ignore[union-attr]
            paid = epsilon(event, delta, "rdp", standing.adjacency).epsilon
            budget = planned.recipe.differential_privacy.epsilon  # type: ignore[union-attr]
            assert 0.999 * budget < paid <= budget
            assert standing.count == 1
    assert not RunFolder(tmp_path / "run").trials.exists()


@pytest.mark.parametrize("moment", ["write_json", "rmtree"])
def test_a_search_whose_noise_remembers_goes_on_from_the_end_of_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Stopped between the last step of a trial and the removal of what its noise remembers."""
    base = changed(
        SEARCH,
        {
            "training.sampling": {"kind": "cyclic_poisson"},
            "training.batch": 15,
            "differential_privacy.noise": {"kind": "banded", "bands": 3},
        },
    )
    base["tune"] = {"trials": 2, "over": {"training.optimizer.lr": [0.001, 0.1]}}
    planned = plan(recipe(tmp_path, base))

    def stop(*_: Any, **__: Any) -> None:
        raise Stopped

    monkeypatch.setattr(*((tuning, "write_json") if moment == "write_json" else
                          (tuning.shutil, "rmtree")), stop)  # fmt: skip
    with pytest.raises(Stopped):
        tune(planned, tmp_path / "run")
    monkeypatch.undo()
    (trial,) = (tmp_path / "run" / "local" / "trials").iterdir()
    assert (trial / "trial.json").exists() == (moment == "rmtree")
    assert list((trial / "local" / "noise").iterdir())
    with pytest.raises(RunError, match=r"`nacre tune RECIPE"):
        open_run(tmp_path / "run")
    tune(plan(recipe(tmp_path, base), resume=tmp_path / "run"), tmp_path / "run", resume=True)
    assert not RunFolder(tmp_path / "run").trials.exists()


def test_parties_may_be_the_units_of_a_search(tmp_path: Path) -> None:
    """The federation's own level is the one that is charged, and its noise that of the search."""
    names = [f"p{number}" for number in range(60)]
    base = changed(
        PARTIES,
        {
            "federated_learning.parties": {"kind": "uniform", "names": names},
            "federated_learning.cohort": {"kind": "poisson", "expected": 50},
            "differential_privacy.unit": "client",
            "differential_privacy.delta": 1.0e-3,
            "training.batch": 1,
            "ledger.grant.delta": 1.0e-3,
        },
    )
    planned = plan(recipe(tmp_path, base))
    for each in planned.alternatives:
        assert each.outer is not None and each.outer == each.levels[0].mechanism
        assert each.outer.noise.multiplier is not None
    assert 0.999 * 8 < _price(planned) <= 8


def test_no_time_tells_how_long_a_search_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patients(tmp_path / "patients.csv")
    base = changed(COUNTED, {"ledger.path": "privacy.db"})
    _interrupt(monkeypatch, 0)
    with pytest.raises(Stopped):
        tune(plan(recipe(tmp_path, base)), tmp_path / "run")
    monkeypatch.undo()
    long_ago = (tmp_path / "run").stat().st_mtime - 3600
    for path in (tmp_path / "run").rglob("*"):
        os.utime(path, (long_ago, long_ago))
    tune(plan(recipe(tmp_path, base), resume=tmp_path / "run"), tmp_path / "run", resume=True)
    shared = [p for p in (tmp_path / "run").rglob("*") if "local" not in p.parts]
    assert len(shared) > 6 and min(path.stat().st_mtime for path in shared) > long_ago + 3000
    created = json.loads((tmp_path / "run" / "plan.json").read_text())["created"]
    with contextlib.closing(sqlite3.connect(tmp_path / "privacy.db")) as book:
        work = "SELECT time FROM entries WHERE kind IN ('journal', 'settle')"
        days = [time for (time,) in book.execute(work)]
    assert len(days) == 3 and {len(day) for day in (*days, created)} == {len("2026-03-02")}


@pytest.mark.parametrize("base", [SEARCH, COUNTED], ids=["central", "counted"])
def test_an_interrupted_search_ends_in_the_same_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: dict[str, Any]
) -> None:
    """Wherever it stops, and several times. It draws four trials or five from its key, so that
    every interruption comes."""
    base = changed(base, {"ledger.path": "privacy.db"})
    if base["tune"]["over"] == OVER:  # planned ten times, each with all that is tried
        base["tune"]["over"] = {"training.steps": OVER["training.steps"]}
    drawn = Trials.draw
    with monkeypatch.context() as few:
        few.setattr(Trials, "draw", lambda *given: 4 + drawn(*given) % 2)
        _ends_alike(tmp_path, base)


def _ends_alike(tmp_path: Path, base: dict[str, Any]) -> None:
    first, undisturbed = tmp_path / "first", tmp_path / "undisturbed"
    first.mkdir()
    patients(first / "patients.csv")
    with pytest.MonkeyPatch.context() as stopping, pytest.raises(Stopped):
        _interrupt(stopping, 0)
        tune(plan(recipe(first, base)), first / "run")
    shutil.copytree(first, undisturbed)

    def resumed(folder: Path) -> dict[str, torch.Tensor]:
        planned = plan(recipe(folder, base), resume=folder / "run")
        return _weights(tune(planned, folder / "run", resume=True).path)

    for after in range(3):  # before another trial, after one more, after two more
        with pytest.MonkeyPatch.context() as stopping, pytest.raises(Stopped):
            _interrupt(stopping, after)
            resumed(first)
    ours, theirs = resumed(first), resumed(undisturbed)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not RunFolder(first / "run").trials.exists()


def test_the_best_trial_wins_and_each_draws_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores in place of the model's: the trials that were made are told here, and nowhere else."""
    made: list[tuple[float, dict[str, torch.Tensor]]] = []

    def score(*given: Any) -> float:
        keyed, weights = given[-2:]
        made.append((float(keyed.child("test").stream().uniform(1)[0]), weights))
        return made[-1][0]

    monkeypatch.setattr(tuning, "_score", score)
    base = changed(SEARCH, {"tune.trials": 8, "training.steps": 2})
    base["tune"]["over"] = {"training.optimizer.lr": [0.001, 0.01, 0.1]}
    seen: Counter[int] = Counter()
    for number in range(4):
        made.clear()
        run = tune(plan(recipe(tmp_path, base)), tmp_path / f"run{number}")
        best = max(made, key=lambda pair: pair[0])[1]
        assert all(torch.equal(best[name], value) for name, value in _weights(run.path).items())
        seen[len(made)] += 1
    assert len(seen) > 1  # the chance of four equal numbers of trials is below 1e-3


def test_a_trial_that_cannot_go_on_loses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score, seen = tuning._score, iter(range(99))

    def failing(*arguments: Any) -> float:
        if next(seen) % 2 == 0:
            raise RunError("this trial moved nothing")
        return score(*arguments)

    monkeypatch.setattr(tuning, "_score", failing)
    monkeypatch.setattr("nacre.differential_privacy.selection.trials.Trials.draw", lambda *_: 4)
    run = tune(plan(recipe(tmp_path, SEARCH)), tmp_path / "run")
    assert run.folder.outcome.exists()
    monkeypatch.setattr(tuning, "_score", _raises)
    with pytest.raises(RunError, match=r"every trial of the search failed.*nacre abandon"):
        tune(plan(recipe(tmp_path, SEARCH)), tmp_path / "other")
    abandon(tmp_path / "other")


def _raises(*_: Any) -> float:
    raise RunError("this trial moved nothing")


def test_a_winner_is_answered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the winner's entry and its leaving, and its weights exchanged."""
    planned = plan(recipe(tmp_path, SEARCH))

    def stop(*_: Any) -> None:
        raise Stopped

    monkeypatch.setattr(tuning, "_moved", stop)
    with pytest.raises(Stopped):
        tune(planned, tmp_path / "run")
    monkeypatch.undo()
    assert not (tmp_path / "run" / "released.jsonl").exists()
    (kept,) = (tmp_path / "run" / "local" / "trials").glob("*/model.safetensors")
    weights, _ = load_tensors(kept)
    save_tensors(kept, {name: value + 1 for name, value in weights.items()})
    again = plan(recipe(tmp_path, SEARCH), resume=tmp_path / "run")
    with pytest.raises(LedgerError, match="from another state"):
        tune(again, tmp_path / "run", resume=True)
    save_tensors(kept, weights)
    tune(again, tmp_path / "run", resume=True)
    assert torch.equal(*(w[min(w)] for w in (weights, _weights(tmp_path / "run"))))


def test_one_unit_moves_a_count_by_one_at_most() -> None:
    draw = torch.Generator().manual_seed(3)
    for _ in range(200):
        size = int(torch.randint(1, 12, (1,), generator=draw))
        names = tuple(f"p{int(n)}" for n in torch.randint(0, 4, (size,), generator=draw))
        right = [bool(x) for x in torch.randint(0, 2, (size,), generator=draw)]
        rows = Rows(torch.zeros(size, 1), torch.zeros(size), group=names)
        whole = tuning._units_right(rows, right, True)
        for name in set(names):
            left = [i for i in range(size) if names[i] != name]
            fewer = Rows(torch.zeros(len(left), 1), torch.zeros(len(left)),
                         group=tuple(names[i] for i in left))  # fmt: skip
            rest = tuning._units_right(fewer, [right[i] for i in left], True)
            assert 0 <= whole - rest <= 1
        assert whole <= len(set(names))
        assert tuning._units_right(rows, right, False) == sum(right)


def test_a_private_count_has_the_stated_noise(tmp_path: Path) -> None:
    patients(tmp_path / "patients.csv")
    planned = plan(recipe(tmp_path, COUNTED))
    held = rows.read(planned.recipe, bytes(32))
    schema = planned.schema
    model = build(planned.recipe.model, schema.shape, schema.outputs(), 0, tmp_path)
    assert planned.search is not None
    option = planned.search.tune.score

    def scored(keyed: Source) -> float:
        return tuning._score(planned.recipe, option, held, model, keyed, {})

    draws = torch.tensor([
        scored(Source(number.to_bytes(32, "big")))
        for number in range(400)
    ])  # fmt: skip
    assert torch.equal(draws, draws.round())
    assert abs(float(draws.std()) - 4.0) < 0.6
    assert scored(Source(bytes(32))) == draws[0]


WRONG = {
    "no differential privacy": ({"differential_privacy": None}, "nothing to hide"),
    "no public rows": ({"data.public": None, "data.size": 120}, "score: {kind: private}"),
    "pld grant": ({"ledger.grant.rule": "pld"}, "`rule: rdp`"),
    "pld accountant": ({"differential_privacy.accountant": "pld"}, "use `rdp`"),
    "another section": ({"tune.over": {"data.size": [3]}}, "may not differ between trials"),
    "epsilon": ({"tune.over": {"differential_privacy.epsilon": [3]}}, "may not differ"),
    "unknown key": ({"tune.over": {"training.optimiser.lr": [3]}}, "no section `optimiser`"),
    "unknown last key": ({"tune.over": {"training.optimizer.rate": [3]}}, "is no key here"),
    "wrong value": ({"tune.over": {"training.optimizer.lr": ["x"]}}, "must be a number"),
    "wrong kind": ({"tune.over": {"training.optimizer": [{"kind": "x"}]}}, "is unknown"),
    "no value": ({"tune.over": {"training.optimizer.lr": []}}, "lists no value"),
    "nothing": ({"tune.over": {}}, "names nothing to try"),
    "twice": (
        {"tune.over": {"training": [{}], "training.steps": [3]}}, "holds over.training.steps"
    ),
    "far too many": (
        {"tune.over": {f"model.a{n}": list(range(100)) for n in range(9)}}, "list fewer"
    ),
    "too many": ({"tune.over": {"training.steps": list(range(1, 300))}}, "list fewer"),
    "one trial": ({"tune.trials": 1.0}, "trials=1.0 must be > 1"),
    "shape": ({"tune.shape": -2.0}, "shape=-2.0 must be > -1"),
    "batch": ({"tune.over": {"training.batch": [30, 5000]}}, "tried with training.batch: 5000"),
    "figure": ({"data.name": "diabetes", "tune.score": {"figure": "accuracy"}}, ""),
    "deviation": ({"tune.score": {"kind": "private", "deviation": 0}}, "must lie between"),
    "score too dear": (
        {"tune.score": {"kind": "private", "deviation": 0.1}}, "take a cheaper score"
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_searches_are_refused_in_one_sentence(tmp_path: Path, wrong: str) -> None:
    changes, said = WRONG[wrong]
    file = tmp_path / "search.yaml"
    file.write_text(yaml.safe_dump(changed(SEARCH, changes), sort_keys=False))
    with pytest.raises(NacreError) as refused:
        plan(load_recipe(file))
    assert said in str(refused.value)
    assert str(refused.value).startswith(f"{file}:")
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == [file]


def test_parties_cannot_count_and_numbers_have_no_accuracy(tmp_path: Path) -> None:
    with pytest.raises(Incompatible, match="no party may count"):
        plan(recipe(tmp_path, changed(PARTIES, {"tune.score": {"kind": "private"}})))


def test_verbs_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Incompatible, match="use `nacre tune`"):
        train(plan(recipe(tmp_path, SEARCH)), tmp_path / "run")
    with pytest.raises(Incompatible, match="nothing to search over"):
        tune(plan(recipe(tmp_path, changed(SEARCH, {"tune": None}))), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    _interrupt(monkeypatch, 0)
    with pytest.raises(Stopped):
        tune(plan(recipe(tmp_path, SEARCH)), tmp_path / "run")
    with pytest.raises(RunError, match="holds a search"):
        finish(tmp_path / "run")
    with pytest.raises(RunError, match="its search is open; continue it with `nacre tune RECIPE"):
        gather(tmp_path / "run")


@pytest.mark.parametrize("rule", ["zcdp", "pld"])
def test_a_search_says_which_account_it_needs(tmp_path: Path, rule: RuleName) -> None:
    with Ledger.open(tmp_path / "privacy.db", create=True) as ledger:
        ledger.grant("tiny", "example", epsilon=8, delta=1e-4, rule=rule)
    changes = {"ledger": {"path": "privacy.db", "dataset": "tiny"}}
    with pytest.raises(Incompatible, match=r"account 'tiny' .* `nacre ledger grant --rule rdp`"):
        plan(recipe(tmp_path, changed(SEARCH, changes)))


def test_a_second_search_needs_a_grant_of_its_own(tmp_path: Path) -> None:
    base = changed(SEARCH, {"ledger.path": "privacy.db"})
    tune(plan(recipe(tmp_path, base)), tmp_path / "run")
    with pytest.raises(BudgetExceeded, match="of it is left"):
        plan(recipe(tmp_path, base))


def test_a_search_in_python_is_the_one_in_yaml(tmp_path: Path) -> None:
    one = recipe(tmp_path, SEARCH)
    assert loads(dumps(one), folder=tmp_path) == one


def test_a_plan_says_what_a_search_draws_from_and_costs(tmp_path: Path) -> None:
    planned = plan(recipe(tmp_path, changed(SEARCH, {"tune.trials": 10})))
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(plan_tables(planned))
    found = outlook(planned)
    assert found is not None and found.one_more_epoch is None
    console.print(found.table())
    text = console.export_text()
    assert "about 10 trials" in text and "training.optimizer.lr: 0.1, training.steps: 6" in text
    by_name = {choice.changed: choice.epsilon for choice in found.choices}
    assert by_name[""] == _price(planned)
    assert by_name["half the trials"] < by_name[""] < by_name["twice the trials"]
    assert by_name["shape: 0 (spreads more)"] < by_name[""] < by_name["shape: 5 (spreads less)"]
    multipliers = {p.levels[0].mechanism.steps: p.levels[0].mechanism.noise.multiplier
                   for p in planned.alternatives}  # fmt: skip
    assert multipliers[4] < multipliers[6]
    assert len(planned.alternatives) == 4
    assert planned.to_json()["search"]["chosen"] is None
    assert math.isfinite(planned.levels[0].quote.share)  # type: ignore[union-attr]

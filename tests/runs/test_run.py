"""Whole runs, from Python: resumed to the same bits, charged once, refused when changed."""

import json
import re
import shutil

import pytest
import rich
import torch

from nacre.audit.run import audit_run
from nacre.core.errors import (
    BudgetExceeded,
    DataError,
    FileDamaged,
    Incompatible,
    LedgerError,
    NotAsPlanned,
    RunError,
    UnsupportedLayer,
)
from nacre.core.files import load_tensors
from nacre.core.optimizers import Schedule
from nacre.core.run_folder import RunFolder
from nacre.ledger import Ledger
from nacre.models import build
from nacre.planning.plan import plan
from nacre.planning.show import plan_tables
from nacre.report.evidence import check_releases, write_report
from nacre.report.sections.numbers import epsilon_text, left, percent
from nacre.runs import checkpoint, loop
from nacre.runs.run import abandon, finish, open_run, train
from nacre.training import step
from tests.integrations.declared import private
from tests.training.tiny import (
    CENTRAL,
    FEDERATED,
    TABLE,
    StopAfter,
    Stopped,
    changed,
    patients,
    recipe,
)

pytestmark = pytest.mark.slow

PACED = changed(CENTRAL, {"training.schedule": {"shape": "cosine", "warmup": 0.4}})
AVERAGED = changed(CENTRAL, {"training.average": {"decay": 0.8}})
AVERAGED_ROUNDS = changed(FEDERATED, {"training.average": {"decay": 0.8}})
BASES = {
    "central": CENTRAL,
    "federated": FEDERATED,
    "paced": PACED,
    "averaged": AVERAGED,
    "averaged rounds": AVERAGED_ROUNDS,
}


def _weights(path):
    return load_tensors(path / "model.safetensors")[0]


def _equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _spent(path, account):
    with Ledger.open(path) as ledger:
        (grant,) = ledger.summary(account).grants
        (run,) = ledger.summary(account).runs
        assert ledger.verify() == []
    return grant, run


def _interrupted(base, tmp_path, steps):
    """A run stopped after some steps, beside an untouched copy of it from before the first."""
    tmp_path.mkdir(exist_ok=True)
    own = {} if base is TABLE else {"ledger__path": "{run}/privacy.db"}
    planned = plan(recipe(tmp_path, base, **own))
    with pytest.raises(Stopped):
        train(planned, tmp_path / "run", observe=StopAfter(steps))
    return planned


@pytest.mark.diagonal
@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_resumed_run_ends_in_the_same_bits(tmp_path, monkeypatch, kind, steps):
    """The copy is taken after the reservation, before the first step: the key is fixed by then."""
    planned = plan(recipe(tmp_path, BASES[kind], ledger__path="{run}/privacy.db"))

    def copying(*args, **more):
        if not (tmp_path / "copy").exists():
            shutil.copytree(tmp_path / "run", tmp_path / "copy")
        return real(*args, **more)

    real = loop.fit
    monkeypatch.setattr(loop, "fit", copying)
    with pytest.raises(Stopped):
        train(planned, tmp_path / "run", observe=StopAfter(steps))
    again = plan(planned.recipe, resume=tmp_path / "run")
    train(again, tmp_path / "run", resume=True)
    train(plan(planned.recipe, resume=tmp_path / "copy"), tmp_path / "copy", resume=True)
    assert _equal(_weights(tmp_path / "run"), _weights(tmp_path / "copy"))
    log = [
        [json.loads(text) for text in (tmp_path / name / "released.jsonl").read_text().splitlines()]
        for name in ("run", "copy")
    ]
    assert log[0] == log[1]
    assert [entry["step"] for entry in log[0]] == list(range(1, again.rounds + 1))


@pytest.mark.parametrize("kind", BASES)
def test_a_complete_run_is_charged_and_its_key_is_gone(tmp_path, kind):
    planned = plan(recipe(tmp_path, BASES[kind]))
    run = train(planned, tmp_path / "run")
    assert not run.folder.run_key.exists()
    for holder in planned.levels:
        grant, entry = _spent(tmp_path / "privacy.db", holder.account)
        assert (entry.journalled, entry.end) == (holder.mechanism.steps, "settled")
        assert grant.epsilon_spent == pytest.approx(holder.price.epsilon)
    assert train(planned, tmp_path / "run", resume=True).path == run.path  # nothing is left to do


def test_a_second_run_on_a_spent_account_is_refused_before_a_file_is_written(tmp_path):
    train(plan(recipe(tmp_path, CENTRAL)), tmp_path / "run")
    with pytest.raises(BudgetExceeded, match="one run fixed beforehand"):
        plan(recipe(tmp_path, CENTRAL, name="other"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["run"]


def test_two_plans_for_one_grant_cannot_both_run(tmp_path):
    first, second = plan(recipe(tmp_path, CENTRAL)), plan(recipe(tmp_path, CENTRAL))
    train(first, tmp_path / "first")
    with pytest.raises(BudgetExceeded):
        train(second, tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_a_filter_gives_unused_steps_back_and_takes_several_runs(tmp_path):
    grant = {"epsilon": 40, "delta": 1e-4, "rule": "rdp"}
    planned = plan(recipe(tmp_path, CENTRAL, ledger__grant=grant))
    with pytest.raises(Stopped):
        train(planned, tmp_path / "first", observe=StopAfter(3))
    abandon(tmp_path / "first")
    grant, entry = _spent(tmp_path / "privacy.db", "iris")
    assert (entry.journalled, entry.end) == (3, "settled")
    assert grant.spent == pytest.approx(planned.levels[0].quote.share / 2)
    train(plan(planned.recipe), tmp_path / "second")
    with pytest.raises(RunError, match="has ended"):
        train(plan(planned.recipe, resume=tmp_path / "first"), tmp_path / "first", resume=True)


def test_what_was_released_stays_charged_after_a_stop(tmp_path):
    _interrupted(CENTRAL, tmp_path, 2)
    grant, entry = _spent(tmp_path / "run" / "privacy.db", "iris")
    assert (entry.journalled, entry.end) == (2, None)
    assert grant.left == 0


def test_a_changed_recipe_is_refused_on_resume(tmp_path):
    _interrupted(CENTRAL, tmp_path, 2)
    other = recipe(
        tmp_path, CENTRAL, ledger__path="{run}/privacy.db", training__optimizer={"kind": "sgd"}
    )
    with pytest.raises(RunError, match="the recipe differs"):
        train(plan(other, resume=tmp_path / "run"), tmp_path / "run", resume=True)


def test_changed_data_are_refused_on_resume(tmp_path):
    patients(tmp_path / "patients.csv")
    planned = _interrupted(TABLE, tmp_path, 2)
    patients(tmp_path / "patients.csv", seed=1)
    with pytest.raises(RunError, match="the data differ"):
        train(plan(planned.recipe, resume=tmp_path / "run"), tmp_path / "run", resume=True)


def test_rows_that_do_not_fit_cost_nothing(tmp_path):
    patients(tmp_path / "patients.csv")
    text = (tmp_path / "patients.csv").read_text()
    (tmp_path / "patients.csv").write_text(
        text.replace("north", "north", 1) + "p1,north,,f,1.0,no\n"
    )
    with pytest.raises(DataError, match=r"patients\.csv"):
        train(plan(recipe(tmp_path, TABLE)), tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["patients.csv"]


def test_groups_are_protected_and_figures_on_private_rows_stay_local(tmp_path):
    patients(tmp_path / "patients.csv")
    asked = recipe(tmp_path, TABLE, audit=["membership"])
    run = train(plan(asked), tmp_path / "run")
    (finding,) = audit_run(open_run(run.path))
    assert not finding.public
    assert (run.folder.local / "findings.json").exists()
    assert not (run.path / "findings.json").exists()
    assert not (run.path / "comparison.json").exists()


def test_an_audit_takes_no_rows_but_those_of_the_training(tmp_path):
    patients(tmp_path / "patients.csv")
    run = train(plan(recipe(tmp_path, TABLE, audit=["membership"])), tmp_path / "run")
    text = (tmp_path / "patients.csv").read_text()
    (tmp_path / "patients.csv").write_text(text.replace("yes", "no", 1))
    with pytest.raises(RunError, match="the data differ"):
        audit_run(open_run(run.path))
    assert not (run.folder.local / "findings.json").exists()


def test_a_schedule_sets_the_step_size_of_each_step(tmp_path, monkeypatch):
    sizes = []

    def noting(optimizer, factor):
        real(optimizer, factor)
        sizes.append(optimizer.param_groups[0]["lr"])

    real = step.scale_steps
    monkeypatch.setattr(step, "scale_steps", noting)
    planned = _interrupted(PACED, tmp_path, 3)
    train(plan(planned.recipe, resume=tmp_path / "run"), tmp_path / "run", resume=True)
    schedule = Schedule(shape="cosine", warmup=0.4)
    assert sizes[:3] == pytest.approx([1e-3 * schedule.factor(n, 6) for n in range(3)])
    assert sizes[-3:] == pytest.approx([1e-3 * schedule.factor(n, 6) for n in (3, 4, 5)])


def test_a_schedule_is_refused_in_a_federation(tmp_path):
    with pytest.raises(Incompatible, match="parties start theirs anew"):
        plan(recipe(tmp_path, FEDERATED, training__schedule={"shape": "linear"}))


def test_finish_keeps_the_model_of_the_last_checkpoint(tmp_path):
    _interrupted(CENTRAL, tmp_path, 5)
    run = finish(tmp_path / "run")
    outcome = json.loads(run.folder.outcome.read_text())
    assert (outcome["done"], outcome["stopped"]) == (4, "finished early")
    assert not run.folder.run_key.exists()
    assert finish(tmp_path / "run").path == run.path


@pytest.mark.parametrize("kind", ["central", "federated"])
def test_finish_keeps_every_line_of_what_left(tmp_path, kind):
    """Steps after the last checkpoint are in no model, and they left all the same."""
    _interrupted(BASES[kind], tmp_path, 3)
    shutil.rmtree(tmp_path / "run" / "state")  # as if the checkpoint were still to come
    (tmp_path / "run" / "state").mkdir()
    run = finish(tmp_path / "run")
    outcome = json.loads(run.folder.outcome.read_text())
    assert (outcome["done"], outcome["released"]) == (0, 3)
    assert len((run.path / "released.jsonl").read_text().splitlines()) == 3
    assert [(part["first"], part["last"]) for part in check_releases(run.path)] == [(1, 3)]
    assert "3 released, the model is that of step 0" in write_report(run.path).read_text()


@pytest.mark.parametrize("line", ["", '{"step": 3, "how": "no'], ids=["none", "cut short"])
def test_a_step_that_left_no_line_is_counted(tmp_path, line):
    """The process died after the ledger had journalled its step, and before the line was whole."""
    _interrupted(CENTRAL, tmp_path, 3)
    record = tmp_path / "run" / "released.jsonl"
    record.write_text("".join(record.read_text().splitlines(True)[:2]) + line)
    run = finish(tmp_path / "run")
    assert json.loads(run.folder.outcome.read_text())["unrecorded"] == 1
    assert len(record.read_text().splitlines()) == 2
    check_releases(run.path)
    assert "1 more steps over rows were charged" in write_report(run.path).read_text()


def test_a_run_that_ended_early_says_what_its_ledger_says(tmp_path):
    grant = {"epsilon": 16, "delta": 1e-4, "rule": "rdp"}
    planned = plan(recipe(tmp_path, CENTRAL, ledger__grant=grant))
    with pytest.raises(Stopped):
        train(planned, tmp_path / "run", observe=StopAfter(2))
    run = finish(tmp_path / "run")
    page, standing = write_report(run.path).read_text(), _spent(tmp_path / "privacy.db", "iris")[0]
    assert standing.epsilon_fits > 16 - standing.epsilon_spent
    assert f"a run of up to {left(standing.epsilon_fits)} fits" in page
    reserved = planned.priced[0].quote.share
    assert f"{percent(reserved)} of its grant was reserved" in page
    assert f"{epsilon_text(standing.epsilon_spent)}, {percent(standing.spent)} of the grant" in page
    assert page.count(epsilon_text(planned.priced[0].quote.epsilon_after)) == 0


def test_a_record_that_lacks_what_was_charged_is_refused(tmp_path):
    """Also where outcome.json agrees with what is left of it; and no page is written of it."""
    run = train(plan(recipe(tmp_path, CENTRAL)), tmp_path / "run")
    record = run.path / "released.jsonl"
    record.write_text("".join(record.read_text().splitlines(True)[:-1]))
    for look in (check_releases, write_report):
        with pytest.raises(NotAsPlanned, match="not on record"):
            look(run.path)
    facts = json.loads(run.folder.outcome.read_text())
    run.folder.outcome.write_text(json.dumps(facts | {"done": facts["done"] - 1}))
    for look in (check_releases, write_report):
        with pytest.raises(NotAsPlanned, match="were charged"):
            look(run.path)
    assert not (run.path / "report.html").exists()


def test_an_open_run_has_no_model_yet(tmp_path):
    _interrupted(CENTRAL, tmp_path, 2)
    with pytest.raises(RunError, match=r"not complete: it is open; continue it with .*--resume"):
        open_run(tmp_path / "run")
    abandon(tmp_path / "run")
    with pytest.raises(RunError, match=r"not complete: it was abandoned, .* start a new run"):
        open_run(tmp_path / "run")
    with pytest.raises(RunError, match="was abandoned before"):
        abandon(tmp_path / "run")


def test_a_complete_run_has_nothing_to_abandon(tmp_path):
    run = train(plan(recipe(tmp_path, CENTRAL)), tmp_path / "run")
    with pytest.raises(RunError, match="is complete, so there is nothing to abandon"):
        abandon(run.path)


def test_a_loop_of_ones_own_is_no_run_of_a_recipe(tmp_path):
    with private(tmp_path, folder=tmp_path / "output" / "private") as own:
        own.step()
    for path in (tmp_path / "output", tmp_path / "output" / "private"):
        for verb in (finish, abandon, open_run):
            with pytest.raises(RunError, match=f"loop of your own.*`nacre report {path} --check`"):
                verb(path)


def test_a_damaged_checkpoint_says_what_to_delete_and_then_the_run_ends_the_same(tmp_path):
    planned = _interrupted(CENTRAL, tmp_path, 5)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    newest = sorted((tmp_path / "run" / "state").glob("step-*"))[-1]
    newest.write_bytes(newest.read_bytes()[:-3])
    again = plan(planned.recipe, resume=tmp_path / "run")
    with pytest.raises(FileDamaged, match="delete this file"):
        train(again, tmp_path / "run", resume=True)
    newest.unlink()
    train(again, tmp_path / "run", resume=True)
    train(plan(planned.recipe, resume=tmp_path / "copy"), tmp_path / "copy", resume=True)
    assert _equal(_weights(tmp_path / "run"), _weights(tmp_path / "copy"))


def test_changed_code_is_refused_on_resume(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from torch import nn\n\ndef net():\n    return nn.Linear(4, 3)\n")
    asked = {"kind": "python", "call": "mine:net"}
    planned = plan(recipe(tmp_path, CENTRAL, model=asked, ledger__path="{run}/privacy.db"))
    with pytest.raises(Stopped):
        train(planned, tmp_path / "run", observe=StopAfter(2))
    file.write_text(file.read_text() + "# another\n")
    again = plan(planned.recipe, resume=tmp_path / "run")
    with pytest.raises(RunError, match="the code differs"):
        train(again, tmp_path / "run", resume=True)


def test_a_run_has_one_process_at_a_time(tmp_path):
    planned = _interrupted(CENTRAL, tmp_path, 2)
    again = plan(planned.recipe, resume=tmp_path / "run")
    with RunFolder(tmp_path / "run").locked(), pytest.raises(RunError, match="another process"):
        train(again, tmp_path / "run", resume=True)


def test_a_ledger_that_is_gone_is_never_made_again(tmp_path):
    """It would forget what the run has spent."""
    planned = _interrupted(CENTRAL, tmp_path, 2)
    for file in (tmp_path / "run").glob("privacy.db*"):
        file.unlink()
    again = plan(planned.recipe, resume=tmp_path / "run")
    with pytest.raises(LedgerError, match="is gone"):
        train(again, tmp_path / "run", resume=True)
    assert not (tmp_path / "run" / "privacy.db").exists()


def test_a_crash_before_the_reservation_can_be_resumed(tmp_path, monkeypatch):
    planned = plan(recipe(tmp_path, CENTRAL, ledger__path="{run}/privacy.db"))

    def crashing(*_, **__):
        raise Stopped

    monkeypatch.setattr("nacre.runs.reservations.reserve", crashing)
    with pytest.raises(Stopped):
        train(planned, tmp_path / "run")
    monkeypatch.undo()
    run = train(plan(planned.recipe, resume=tmp_path / "run"), tmp_path / "run", resume=True)
    assert run.folder.outcome.exists()


def test_threads_are_bounded_while_a_run_lasts(tmp_path):
    before, seen = torch.get_num_threads(), []

    class Watch(StopAfter):
        def __call__(self, count=1, note="", total=None):
            seen.append(torch.get_num_threads())

    planned = plan(recipe(tmp_path, CENTRAL, execution={"threads": 1}))
    train(planned, tmp_path / "run", observe=Watch(0))
    assert set(seen) == {1}
    assert torch.get_num_threads() == before


def test_a_base_without_privacy_is_refused_unless_its_rows_are_public(tmp_path):
    plain = recipe(tmp_path, CENTRAL, differential_privacy=None, ledger=None)
    train(plan(plain), tmp_path / "plain")
    base = {"kind": "run", "path": "plain"}
    with pytest.raises(Incompatible, match="trained without differential privacy"):
        plan(recipe(tmp_path, CENTRAL, model=base))
    with pytest.raises(RunError, match="no finished model"):
        plan(recipe(tmp_path, CENTRAL, model={"kind": "run", "path": "nowhere"}))
    planned = plan(recipe(tmp_path, CENTRAL, model=base | {"public": True}))
    assert any("public, as declared" in text for text in planned.to_json()["assumptions"])
    train(planned, tmp_path / "tuned")


def test_a_private_base_on_the_same_account_states_the_composed_epsilon(tmp_path, capsys):
    grant = {"epsilon": 60, "delta": 1e-4, "rule": "rdp"}
    first = plan(recipe(tmp_path, CENTRAL, ledger__grant=grant))
    train(first, tmp_path / "first")
    base = {"kind": "run", "path": "first"}
    second = plan(recipe(tmp_path, CENTRAL, ledger__grant=grant, model=base))
    (holder,) = second.levels
    assert holder.quote.share_after == pytest.approx(2 * holder.quote.share)
    assert first.levels[0].price.epsilon < holder.quote.epsilon_after < 60
    rich.print(plan_tables(second))
    assert "iris was charged before" in " ".join(capsys.readouterr().out.split())
    train(second, tmp_path / "second")


def test_what_happened_to_private_rows_is_told_and_not_kept(tmp_path):
    """A count of private rows is private: it goes to the terminal of whoever holds them."""
    told = []

    class Watch(StopAfter):
        def tell(self, sentence):
            told.append(sentence)

    patients(tmp_path / "patients.csv")
    with (tmp_path / "patients.csv").open("a") as file:
        file.write("p1,north,50,f,11.5,no\n")
    asked = recipe(tmp_path, TABLE, data__on_out_of_range="clamp")
    run = train(plan(asked), tmp_path / "run", observe=Watch(-1))
    told = [sentence for sentence in told if "clamped" in sentence]  # how a split falls is another
    assert len(told) == 1
    assert "dose" in told[0]
    kept = [path for path in run.path.rglob("*") if path.is_file()]
    assert not any(told[0].encode() in path.read_bytes() for path in kept)


def test_no_copy_of_a_run_takes_a_step_from_another_state(tmp_path):
    """A step is paid for once: the ledger, which no copy takes along, knows what entered it."""
    planned = plan(recipe(tmp_path, CENTRAL))
    with pytest.raises(Stopped):
        train(planned, tmp_path / "run", observe=StopAfter(3))
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    forged = tmp_path / "copy"
    (kept,) = (forged / "state").glob("step-*")
    model = build(planned.recipe.model, (4,), 3, 7, tmp_path)  # weights of the attacker's choice
    kept.unlink()
    checkpoint.save_checkpoint(
        forged / "state", model, torch.optim.Adam(model.parameters()), 0,
        {"curve": [], "stopped": "completed"},
    )  # fmt: skip
    again = plan(planned.recipe, resume=forged)
    with pytest.raises(LedgerError, match="was taken before, from another state"):
        train(again, forged, resume=True)
    train(plan(planned.recipe, resume=tmp_path / "run"), tmp_path / "run", resume=True)


def test_how_long_private_work_took_stays_local(tmp_path):
    patients(tmp_path / "patients.csv")
    run = train(plan(recipe(tmp_path, TABLE)), tmp_path / "run")
    assert json.loads(run.folder.outcome.read_text())["seconds"] == {}
    assert (run.folder.local / "seconds.json").exists()
    for account in json.loads((run.path / "ledger.json").read_text())["accounts"]:
        assert all(len(entry["time"]) == len("2026-11-23") for entry in account["entries"])


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (
            CENTRAL,
            {"model": {"kind": "python", "call": "noisy:build"}},
            "randomness inside the model other than dropout",
        ),
        (TABLE, {"ledger__path": "{run}/privacy.db"}, "a fresh budget"),
    ],
)
def test_what_would_break_the_guarantee_is_refused(tmp_path, base, changes, message):
    (tmp_path / "noisy.py").write_text(_NOISY)
    with pytest.raises(Incompatible, match=message):
        plan(recipe(tmp_path, base, **changes))


_NOISY = """
import torch
from torch import nn


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(x + torch.randn_like(x) if self.training else x)


def build():
    return Noisy()
"""


@pytest.mark.parametrize("gradients", ["auto", "ghost", "looped"])
def test_a_model_with_dropout_trains_privately(tmp_path, gradients):
    changes = {"model__dropout": 0.3, "execution": {"gradients": gradients}}
    asked = plan(recipe(tmp_path, CENTRAL, **changes))
    assert train(asked, tmp_path / "run").folder.outcome.exists()
    changes["execution"] = {"gradients": "vmapped"}
    vmapped = recipe(tmp_path, CENTRAL, ledger__path="other.db", **changes)
    with pytest.raises(UnsupportedLayer, match="gradients: bookkeeping"):
        plan(vmapped)


def test_the_same_rows_under_another_name_have_no_second_budget(tmp_path):
    patients(tmp_path / "patients.csv")
    train(plan(recipe(tmp_path, TABLE)), tmp_path / "first")
    with pytest.raises(LedgerError, match="charged to account 'patients' already"):
        train(plan(recipe(tmp_path, TABLE, ledger__dataset="others")), tmp_path / "second")
    scaled = {"ledger__dataset": "others", "data__scaling": {"kind": "none"}}
    with pytest.raises(LedgerError, match="charged to account 'patients' already"):
        train(plan(recipe(tmp_path, TABLE, **scaled)), tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_a_declared_size_that_is_far_off_is_told_to_the_holder_only(tmp_path):
    told = []

    class Watch(StopAfter):
        def tell(self, sentence):
            told.append(sentence)

    patients(tmp_path / "patients.csv")
    run = train(plan(recipe(tmp_path, TABLE, data__size=500)), tmp_path / "run", observe=Watch(-1))
    (sentence,) = told
    said = r"READ (\d+) values of 'patient' to train on, DECLARED 500 .* draws about (\S+) units"
    units, drawn = re.match(said, sentence).groups()
    assert float(drawn) == pytest.approx(24 * int(units) / 500, rel=0.01)
    assert "divides by the 24 of" in sentence
    kept = [path for path in run.path.rglob("*") if path.is_file()]
    assert not any(sentence.encode() in path.read_bytes() for path in kept)


def test_a_raised_grant_covers_the_recipe_that_made_it(tmp_path):
    grant = {"epsilon": 10, "delta": 1e-4, "rule": "rdp"}
    asked = recipe(tmp_path, CENTRAL, ledger__grant=grant)
    train(plan(asked), tmp_path / "first")
    with pytest.raises(BudgetExceeded):
        plan(asked)
    with Ledger.open(tmp_path / "privacy.db") as ledger:
        ledger.grant("iris", "example", 60, 1e-4)
    train(plan(asked), tmp_path / "second")


def test_an_update_that_moves_nothing_ends_the_run(tmp_path):
    """Opacus #820: weights that never move while epsilon counts."""
    asked = recipe(tmp_path, CENTRAL, training__optimizer={"kind": "sgd", "lr": 1e-30})
    with pytest.raises(RunError, match=r"left the trainable weight .* as it was"):
        train(plan(asked), tmp_path / "run")
    with Ledger.open(tmp_path / "privacy.db") as ledger:
        assert ledger.summary("iris").runs[0].journalled == 1

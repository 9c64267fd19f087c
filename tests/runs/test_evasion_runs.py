"""Evasion of whole runs: what stays local, what neighbours change, and an interrupt half-way."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from nacre.audit.catalogue import AUDITS
from nacre.audit.model_security import classes
from nacre.audit.model_security.batch_file import batches_in, load_batch, save_batch
from nacre.audit.run import _shown, audit_run, rescored_run
from nacre.cli.audit import command
from nacre.cli.findings import findings_tables
from nacre.cli.main import cli
from nacre.core.errors import DataError, RunError
from nacre.core.files import load_tensors, write_json
from nacre.differential_privacy.options import Privacy
from nacre.planning.plan import plan
from nacre.recipe.audits import Evasion
from nacre.report.evidence import write_report
from nacre.report.sections.numbers import number_text
from nacre.runs.run import open_run, train
from tests.training.tiny import TABLE, patients, recipe, text

PRIVACY = Privacy(epsilon=1, delta=1e-4)
EVASION = {"kind": "evasion", "ball": {"radius": 0.8}, "effort": "quick"}


@pytest.fixture
def made(tmp_path):
    patients(tmp_path / "patients.csv")
    chosen = recipe(tmp_path, TABLE, audit=[EVASION], training__steps=60)  # or no row may be moved
    return train(plan(chosen), tmp_path / "run")


def test_an_evasion_on_private_rows_stays_local_and_leaves_the_model(made):
    before, _ = load_tensors(made.path / "model.safetensors")
    files = {path for path in made.path.rglob("*") if path.is_file()}
    (finding,) = audit_run(open_run(made.path))
    assert not finding.public and finding.details["pictures"] == []
    new = {path for path in made.path.rglob("*") if path.is_file()} - files
    assert new and all(made.folder.local in path.parents for path in new)
    assert batches_in(made.folder.local / "attacks") == ("protected-1",)
    after, _ = load_tensors(made.path / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    (again,) = audit_run(open_run(made.path))
    assert again == finding
    names = [stage["name"] for stage in finding.details["stages"]]
    assert not names or names[0] == "APGD-PMA"


def _files_for_others(run):
    every = [path.relative_to(run) for path in run.rglob("*") if path.is_file()]
    return sorted(str(path) for path in every if path.parts[0] != "local")


def test_an_audit_that_private_rows_refuse_leaves_no_trace_for_others(tmp_path, monkeypatch):
    """It is told to the holder, after all else is done; others find the same files."""
    patients(tmp_path / "patients.csv")
    wanted = [{**EVASION, "towards": "yes"}, EVASION]
    (tmp_path / "recipe.yaml").write_text(text(TABLE, audit=wanted))

    def made(name):
        asked = ["run", str(tmp_path / "recipe.yaml"), "--into", str(tmp_path / name)]
        found = CliRunner().invoke(cli, asked)
        file = tmp_path / name / "local" / "findings.json"
        return found, json.loads(file.read_text())["findings"]

    found, both = made("measured")
    assert found.exit_code == 0, found.output
    (tmp_path / "privacy.db").unlink()
    ask = AUDITS[Evasion]

    def refuse(target, option, advance):
        if option.towards is not None:
            raise DataError("every test row has the class that `towards` names")
        return ask(target, option, advance)

    monkeypatch.setitem(AUDITS, Evasion, refuse)
    refused, left = made("refused")
    assert refused.exit_code == 2, refused.output
    assert "every test row has the class that `towards` names" in refused.output
    assert [len(both), len(left)] == [2, 1]
    files = _files_for_others(tmp_path / "refused")
    assert files == _files_for_others(tmp_path / "measured")
    assert "report.html" in files and "findings.json" not in files


def test_rescoring_names_no_private_row(made):
    audit_run(open_run(made.path))
    kept = made.folder.local / "attacks"
    batch = load_batch(kept, "protected-1")
    save_batch(replace(batch, attacked=batch.clean), kept, "protected-1")
    run = CliRunner().invoke(command, [str(made.path), "--rescore", "--json"])
    fallen = int((batch.stage >= 0).sum())
    assert run.exit_code == 1 and fallen
    (said,) = json.loads(run.stdout)["rescored"].values()
    assert not said["holds"] and said["changed"] == said["outside"] == []
    assert (
        rescored_run(open_run(made.path))["protected-1"]
        .sentence(False)
        .startswith(f"the same weights answer {fallen} row")
    )


def test_a_batch_of_other_weights_says_nothing_of_the_run(made):
    audit_run(open_run(made.path))
    assert rescored_run(open_run(made.path))["protected-1"].holds is True
    file = made.folder.local / "attacks" / "protected-1.json"
    facts = json.loads(file.read_text())
    write_json(file, {**facts, "model_sha256": "0" * 64})
    with pytest.raises(RunError, match="other weights than those of"):
        rescored_run(open_run(made.path))


def test_findings_on_private_rows_are_marked_on_the_terminal(made):
    """Each table with figures of them, as every page does."""
    run = CliRunner().invoke(command, [str(made.path)])
    assert run.exit_code == 0, run.output
    assert "findings on private rows: not for others" in run.stdout
    (private,) = audit_run(open_run(made.path))
    public = replace(private, public=True)
    assert [table.title for table in findings_tables([public, private])] == [
        None, "findings on private rows: not for others",
    ]  # fmt: skip


def test_private_rows_that_an_attack_moved_are_shown_to_their_holder_alone(made):
    (finding,) = audit_run(open_run(made.path))
    rows = finding.details["rows"]
    assert rows and not finding.public
    assert all(change["before"] != change["after"] for row in rows for change in row["changes"])
    assert not (made.path / "findings.json").exists()
    shared = write_report(made.path).read_text()
    mine = (made.folder.local / "report.html").read_text()
    said = "Examples on private rows: not for others."
    assert said in mine and "What an attack looks like" in mine
    assert said not in shared and "What an attack looks like" not in shared
    figures = {
        f"{number_text(change['before'])} → {number_text(change['after'])}"
        for row in rows
        for change in row["changes"]
    }
    evidence = (made.path / "evidence.json").read_text()
    assert all(figure in mine for figure in figures)
    assert not any(figure in shared or figure in evidence for figure in figures)
    run = CliRunner().invoke(command, [str(made.path), "--json"])
    (printed,) = json.loads(run.stdout)["findings"]
    assert printed["details"]["rows"] == [] and printed["value"] == finding.value


@pytest.mark.parametrize(
    ("privacy", "compare", "stages"),
    [
        (None, (), ["evasion"]),
        (None, ("unprotected",), ["evasion: the model", "evasion: unprotected"]),
        (PRIVACY, ("unprotected",), ["evasion: protected", "evasion: unprotected"]),
    ],
)
def test_progress_calls_a_model_protected_only_where_something_protects_it(
    privacy, compare, stages
):
    names = ("protected", *compare)
    shown = _shown(SimpleNamespace(differential_privacy=privacy), names)
    assert [f"evasion{shown[name]}" for name in names] == stages


def test_an_interrupt_half_way_leaves_nothing_and_the_next_audit_is_the_same(made, monkeypatch):
    class Stopped(classes.RadiusSearch):
        def __call__(self, *rest):
            super().__call__(*rest)
            raise KeyboardInterrupt

    state = torch.random.get_rng_state()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(classes, "RadiusSearch", Stopped)
        audit_run(open_run(made.path))
    assert torch.equal(state, torch.random.get_rng_state())
    assert not (made.folder.local / "findings.json").exists()
    (finding,) = audit_run(open_run(made.path))
    kept = json.loads((made.folder.local / "findings.json").read_text())
    assert kept["findings"] == [json.loads(json.dumps(finding.to_json()))]


def test_one_row_more_changes_nothing_of_the_others(made):
    """Random numbers are keyed by the row's own number: neighbouring test sets agree row by row."""
    from nacre.audit import run as audits
    from nacre.audit.target import no_progress

    opened = open_run(made.path)
    held = audits.trained_on(opened.recipe, opened.folder, lambda *told: None)
    target = audits._variants(opened, held)["protected"]
    (option,) = opened.recipe.audit
    whole = target.test
    fewer = replace(target, test={name: value[:-1] for name, value in whole.items()})
    found = []
    for one in (target, fewer):
        attack = classes.attack_classes(one, one.test, option.ball, option, (0.5, 1.0), no_progress)
        at = torch.full((len(whole["label"]),), -1.0, dtype=torch.float64)
        at[attack.search.batch["unit"]] = attack.search.broken_at
        found.append(at)
    assert torch.equal(found[0][:-1], found[1][:-1])

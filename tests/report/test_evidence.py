"""What is gathered from a run folder, what is refused, and what never leaves it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from nacre.core.errors import FileDamaged, NacreError, RunError
from nacre.report import Evidence, gather, write_report
from nacre.report.conform import conform
from nacre.report.evidence import check_releases
from tests.report import sample


def test_the_evidence_has_the_documented_shape(tmp_path: Path) -> None:
    run = sample.write(tmp_path / "run")
    evidence = gather(run)
    conform(evidence, Evidence)
    assert json.loads(json.dumps(evidence, allow_nan=False)) == evidence
    assert evidence["format"] == 1
    assert evidence["released"]["inherited"] == evidence["released"]["count"] == 20
    assert evidence["files"]["model.safetensors"] == hashlib.sha256(b"weights").hexdigest()
    assert [finding["audit"] for finding in evidence["findings"]] == ["membership", "evasion"]


def test_both_files_are_written_and_the_same_again(tmp_path: Path) -> None:
    run = sample.write(tmp_path / "run")
    page = write_report(run)
    first = page.read_bytes(), (run / "evidence.json").read_bytes()
    assert page == run / "report.html"
    assert json.loads(first[1]) == gather(run)
    write_report(run)
    assert (page.read_bytes(), (run / "evidence.json").read_bytes()) == first


def test_the_page_can_go_elsewhere(tmp_path: Path) -> None:
    run = sample.write(tmp_path / "run")
    assert write_report(run, tmp_path / "page.html") == tmp_path / "page.html"
    assert (run / "evidence.json").exists()
    assert not (run / "report.html").exists()
    with pytest.raises(NacreError, match="could not be written"):
        write_report(run, tmp_path / "nowhere" / "page.html")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("plan", "plan.json"),
        ("recipe", "recipe.yaml"),
        ("released", "released.jsonl"),
        ("ledger", "ledger.json"),
        ("model", "model.json"),
    ],
)
def test_a_missing_file_is_named_with_what_brings_it_back(
    tmp_path: Path, name: str, file: str
) -> None:
    """No verb would: the folder exists, and `nacre train` refuses it."""
    run = sample.write(tmp_path / "run", **{name: None})
    with pytest.raises(RunError) as caught:
        gather(run)
    assert f"holds no {file}" in str(caught.value)
    assert "restore it from a copy" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_run_is_told_how_one_is_made(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"`nacre run RECIPE --into {tmp_path}` makes one"):
        gather(tmp_path)


def test_an_open_run_without_a_step_has_nothing_to_check(tmp_path: Path) -> None:
    run = sample.write(tmp_path / "run", outcome=None, released=None)
    (run / "local" / "run.key").write_bytes(bytes(32))
    with pytest.raises(RunError, match=r"has released nothing yet: it is open; .*--resume"):
        check_releases(run)


def test_what_has_no_page_is_said_to_be_checked(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"private": true}')
    (tmp_path / "answers.json").write_text("{}")
    for path, what in ((tmp_path, "a loop of your own"), (tmp_path / "answers.json", "a file")):
        with pytest.raises(RunError, match=f"is {what}, .*`nacre report {path} --check`"):
            write_report(path)


def test_a_run_without_an_outcome_is_open_or_was_abandoned(tmp_path: Path) -> None:
    run = sample.write(tmp_path / "run", outcome=None)
    with pytest.raises(RunError, match=r"it was abandoned, .* start a new run"):
        gather(run)
    (run / "local" / "run.key").write_bytes(bytes(32))
    with pytest.raises(RunError, match=rf"it is open; .*--resume.* `nacre finish {run}`"):
        gather(run)


@pytest.mark.parametrize("file", ["plan.json", "outcome.json", "comparison.json", "findings.json"])
@pytest.mark.parametrize("content", [b"{", b"[]", b'{"x": NaN}', b"\xff\xfe"])
def test_a_damaged_file_is_named(tmp_path: Path, file: str, content: bytes) -> None:
    run = sample.write(tmp_path / "run")
    (run / file).write_bytes(content)
    with pytest.raises(FileDamaged) as caught:
        gather(run)
    assert str(run / file) in str(caught.value)
    assert "nacre " in str(caught.value)
    assert ("`nacre audit" if file[0] in "cf" else "restore it from a copy") in str(caught.value)


def test_a_value_of_the_wrong_kind_is_named(tmp_path: Path) -> None:
    plan = sample.plan()
    plan["parties"][1]["epsilon"] = "four"
    run = sample.write(tmp_path / "run", plan=plan)
    with pytest.raises(FileDamaged, match=r"`parties\[1\].epsilon` should be a number or null"):
        gather(run)


def damaged(**other: Any) -> list[dict[str, Any]]:
    return [sample.evasion() | other]


@pytest.mark.parametrize(
    ("findings", "reason"),
    [
        (damaged(public=False), "belongs in local/"),
        (damaged(verdict="anonymous"), "verdict="),
        (damaged(value="x"), "must be real number"),
        (damaged(low=0.9), "must lie in its interval"),
        (damaged(extra=1), "missing or unknown"),
        ([sample.evasion(notes="x")], "`evasion.details.notes` should be a list"),
        ([sample.evasion(pictures=[sample.picture([1, 9, 9])])], "does not fit its shape"),
        ([sample.evasion(pictures=[sample.picture([64])])], "cannot be drawn"),
        (
            [sample.evasion(pictures=[sample.picture() | {"attacked": ["x"] * 64}])],
            "a pixel should be a number",
        ),
    ],
)
def test_a_finding_that_may_not_be_shown_is_refused(
    tmp_path: Path, findings: list[Any], reason: str
) -> None:
    run = sample.write(tmp_path / "run", findings={"findings": findings})
    with pytest.raises(FileDamaged) as caught:
        gather(run)
    assert reason in str(caught.value)
    assert f"nacre audit {run}" in str(caught.value)


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"how": "guessed"}', '{"how": ["noised"]}', '{"how": "noised"}']
)
def test_a_line_that_is_no_release_is_named(tmp_path: Path, line: str) -> None:
    run = sample.write(tmp_path / "run")
    (run / "released.jsonl").write_text('{"how": "inherited"}\n' + line + "\n")
    with pytest.raises(FileDamaged, match="line 2 is no release"):
        gather(run)


def test_the_deviations_of_the_noise_are_listed_once(tmp_path: Path) -> None:
    lines = [{"step": s, "how": "noised", "deviation": d} for s, d in [(1, 2.0), (2, 2.0), (3, 1)]]
    evidence = gather(sample.write(tmp_path / "run", released=lines))
    assert evidence["released"]["deviations"] == [1.0, 2.0]


def test_credentials_in_the_recipe_are_masked(tmp_path: Path) -> None:
    recipe = "ledger: {path: 'postgresql://nacre:hunter2@db.example/ledger'}\n"
    evidence = gather(sample.write(tmp_path / "run", recipe=recipe))
    assert evidence["recipe"] == "ledger: {path: 'postgresql://…@db.example/ledger'}\n"


def test_a_run_without_a_ledger_needs_none(tmp_path: Path) -> None:
    run = sample.write(tmp_path / "run", plan=sample.unprotected_plan(), ledger=None)
    assert gather(run)["ledger"] is None

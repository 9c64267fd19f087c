"""What each party did in each round: on the owner's page, in `local/`, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nacre.core.errors import FileDamaged, RunError
from nacre.core.run_folder import RunFolder
from nacre.core.types import Release, Unprotected
from nacre.planning.plan import plan
from nacre.report import write_report
from nacre.report.parties.rounds import rounds_section
from nacre.runs.run import train
from nacre.runs.workers.rounds import FILE, SINGLE, RoundLog, Took, noted
from tests.across.houses import NAMES, OWN_LAYERS, SUMMED, Houses
from tests.report.test_page import Walk
from tests.runs.test_drift import PLAIN
from tests.training.tiny import FEDERATED, StopAfter, Stopped, changed, recipe

pytestmark = pytest.mark.slow

HEADING = "Parties, round by round"


def _lines(run: Path) -> list[dict[str, Any]]:
    text = (run / "local" / FILE).read_text()
    return [json.loads(line) for line in text.splitlines() if line]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_curve_a_party_is_on_the_owners_page_alone(tmp_path: Path, workers: int) -> None:
    """The loss is that of the plain loop's steps, the norm that of the change which is summed."""
    base = changed(PLAIN, {"execution": {"workers": workers, "threads": 1}})
    run = train(plan(recipe(tmp_path, base)), tmp_path / "run").path
    lines = _lines(run)
    assert [line["round"] for line in lines] == [1, 2, 3, 4, 5]
    for line in lines:
        assert line["answered"] == line["asked"] == 3 and set(line["parties"]) == {"a", "b", "c"}
        for each in line["parties"].values():
            assert each["bytes"] > 100 and each["seconds"] > 0 and each["norm"] > 0
    losses = [line["parties"]["a"]["loss"] for line in lines]
    assert 0 < losses[-1] < losses[0] < 3
    page = write_report(run)
    own = Walk((run / "local" / "report.html").read_text()).text
    assert HEADING in own and "15 of 15 requests were answered in 5 rounds" in own
    outside = [path for path in run.rglob("*") if path.is_file() and "local" not in path.parts]
    found = b"".join(path.read_bytes() for path in outside)
    assert page in outside and HEADING.encode() not in found
    assert not any(json.dumps(value).encode() in found for value in losses)


def test_a_party_under_noise_has_no_loss(tmp_path: Path) -> None:
    run = train(plan(recipe(tmp_path, FEDERATED)), tmp_path / "run").path
    assert all("loss" not in each for line in _lines(run) for each in line["parties"].values())
    section = rounds_section(run)
    assert section is not None and len(section.blocks) == 3


def test_many_parties_are_quantiles(tmp_path: Path) -> None:
    """A line does not grow with the cohort, and names nobody."""
    many = {"kind": "uniform", "names": {"count": SINGLE + 8}}
    base = changed(
        PLAIN,
        {"federated_learning.parties": many, "federated_learning.rounds": 2, "training.batch": 3},
    )
    run = train(plan(recipe(tmp_path, base)), tmp_path / "run").path
    for line in _lines(run):
        assert line["answered"] == SINGLE + 8 and "parties" not in line
        for key in ("bytes", "seconds", "norm", "loss"):
            assert line["quantiles"][key] == sorted(line["quantiles"][key])
            assert len(line["quantiles"][key]) == 5
    assert "party-0" not in (run / "local" / FILE).read_text()
    write_report(run)
    assert "median of a round" in (run / "local" / "report.html").read_text()


def test_a_round_that_is_taken_again_keeps_its_first_line(tmp_path: Path) -> None:
    base = changed(FEDERATED, {"ledger.path": "{run}/privacy.db", "training.checkpoint": 4})
    planned = plan(recipe(tmp_path, base))
    run = tmp_path / "run"
    with pytest.raises(Stopped):
        train(planned, run, observe=StopAfter(3))
    with (run / "local" / FILE).open("a") as file:
        file.write('{"round": 3, "ask')  # cut short by the crash
    train(plan(planned.recipe, resume=run), run, resume=True)
    section = rounds_section(run)
    assert section is not None
    text = section.blocks[0].text  # pyright: ignore[reportAttributeAccessIssue]
    assert "8 of 8 requests were answered in 4 rounds" in text


@pytest.mark.parametrize("privacy", [OWN_LAYERS, SUMMED])
def test_a_party_in_its_own_house_has_a_page_of_its_own(tmp_path: Path, privacy: str) -> None:
    houses = Houses(tmp_path, privacy)
    server = houses.lead(houses.channel()).path
    assert not (server / "local" / FILE).exists()
    for name in NAMES:
        run = tmp_path / name / "run"
        lines = _lines(run)
        assert [line["round"] for line in lines] == [1, 2, 3]
        assert all(set(line["parties"]) == {name} for line in lines)
        page = write_report(run)
        assert page == run / "local" / "report.html" and page.stat().st_mode & 0o077 == 0
        text = Walk(page.read_text()).text
        assert f"three wards: {name}" in text and HEADING in text and "alone" in text
        assert ("local/personal/" in text) == (privacy == OWN_LAYERS)
        assert not (run / "evidence.json").exists()


def test_a_party_that_answered_nothing_has_no_page(tmp_path: Path) -> None:
    houses = Houses(tmp_path)
    houses.met()
    with pytest.raises(RunError, match="answered no round"):
        write_report(tmp_path / "east" / "run")


@pytest.mark.parametrize(
    "line",
    ["[]", "3", '{"round": 1}', '{"round": 1, "asked": 1, "answered": 1, "parties": {"a": {}}}',
     '{"round": 1, "asked": 1, "answered": 1, "parties": {"a": {"bytes": "x"}}}',
     '{"round": 1, "asked": 1, "answered": 1, "quantiles": {"bytes": [1, 2]}}'],
)  # fmt: skip
def test_a_file_that_training_does_not_write_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "local").mkdir()
    assert rounds_section(tmp_path) is None
    (tmp_path / "local" / FILE).write_text(line + "\n")
    with pytest.raises(FileDamaged, match="does not write"):
        rounds_section(tmp_path)
    (tmp_path / "local" / FILE).unlink()
    RunFolder(tmp_path).personal.mkdir()
    (RunFolder(tmp_path).personal / "figures.json").write_text('{"parties": {"a": {}}}')
    with pytest.raises(FileDamaged, match="figures of parties"):
        rounds_section(tmp_path)


def test_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    log = RoundLog(tmp_path / FILE, 2)
    release = Release({"w": torch.tensor([torch.inf])}, Unprotected("a test"))
    noted(lambda weights, number: release, "a", log, lambda: float("nan"))({}, 0)
    log.end(1, 2, {"a": 7, "b": 8})
    line = json.loads((tmp_path / FILE).read_text())
    assert set(line["parties"]["a"]) == {"bytes", "seconds"} and line["parties"]["b"] == {
        "bytes": 8
    }
    nowhere = RoundLog(None, 2)
    nowhere.took("a", Took(1.0, 1.0, None))
    nowhere.end(1, 1, {"a": 7})

"""The plan is what runs: a step that would release something else than plan.json says is held back,
whichever line of the wiring is wrong."""

# pyright: reportPrivateUsage=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportArgumentType=false

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from nacre.cli.main import cli
from nacre.core.errors import NotAsPlanned
from nacre.data.units import Units
from nacre.differential_privacy.noise import independent
from nacre.differential_privacy.queries import Count, Mean
from nacre.gradient_clipping import Adaptive, Flat
from nacre.integrations import steps
from nacre.ledger import Ledger
from nacre.planning.plan import plan
from nacre.report.evidence import check_releases, gather, write_report
from nacre.report.sections.headline import warnings
from nacre.runs.levels import outermost
from nacre.runs.run import train
from nacre.statistics import noisy_numbers, release
from nacre.training import holders
from nacre.training.step import Parts
from tests.integrations.declared import private
from tests.training.tiny import CENTRAL, FEDERATED, TABLE, patients, recipe

pytestmark = pytest.mark.slow

Patch = pytest.MonkeyPatch


def _handing(**other: Any) -> Any:
    """`Parts` whose maker hands these instead of what it was given."""
    return lambda **given: Parts(**{**given, **other})


def _rows_alone(patch: Patch) -> None:
    for module in (holders, outermost):
        patch.setattr(
            module, "units", lambda recipe, rows, source: Units(rows, "example", None, source)
        )


def _other_draw(patch: Patch) -> None:
    real = holders.parts

    def parts(*given: Any) -> Parts:
        made = real(*given)
        sampling = dataclasses.replace(made.sampling, expected=2 * made.sampling.expected)
        return dataclasses.replace(made, sampling=sampling)

    for module in (holders, outermost):
        patch.setattr(module, "parts", parts)


def _other_adjacency(patch: Patch) -> None:
    patch.setattr(holders, "Parts", _handing(adjacency="add_or_remove"))


def _half_noise(patch: Patch) -> None:
    real = independent.scale_of_draws
    patch.setattr(independent, "scale_of_draws", lambda *given: real(*given) / 2)


def _half_added(patch: Patch) -> None:
    real = independent._secure
    patch.setattr(independent, "_secure", lambda source, size, flats: real(source, size / 2, flats))


REPLACE = {
    "differential_privacy__adjacency": "replace_one",
    "training__sampling": {"kind": "full"},
}
CLIENTS = {
    "differential_privacy": {
        "unit": "client", "adjacency": "replace_one", "epsilon": 8, "delta": 1.0e-4,
    },
    "federated_learning__few_clients": True,
}  # fmt: skip
WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], Any]] = {
    "a group trains as single rows": (TABLE, {}, _rows_alone),
    "units are drawn at twice the rate": (CENTRAL, {}, _other_draw),
    "replacing is noised as removing": (CENTRAL, REPLACE, _other_adjacency),
    "replacing is noised as removing, in a party": (FEDERATED, REPLACE, _other_adjacency),
    "half the noise": (CENTRAL, {}, _half_noise),
    "half the noise, and said to be whole": (CENTRAL, {"model__hidden": [32]}, _half_added),
}
BEFORE = [name for name in WRONG if not name.startswith("half")]
"""What shows before anything is journalled."""


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_line_of_a_run_is_stopped(tmp_path: Path, monkeypatch: Patch, wrong: str) -> None:
    base, changes, patch = WRONG[wrong]
    patients(tmp_path / "patients.csv")
    planned = plan(recipe(tmp_path, base, **changes))
    patch(monkeypatch)
    with pytest.raises(NotAsPlanned, match=r"plan\.json"):
        train(planned, tmp_path / "run")
    assert (
        not (tmp_path / "run" / "released.jsonl").exists()
        or not (tmp_path / "run" / "released.jsonl").read_text()
    )
    if wrong in BEFORE:
        with Ledger.open(tmp_path / "privacy.db") as ledger:
            account = next(h.account for h in planned.levels)
            assert account is not None
            assert ledger.summary(account).runs[0].journalled == 0


@pytest.mark.parametrize(
    ("base", "changes"),
    [(CENTRAL, REPLACE), (FEDERATED, REPLACE), (FEDERATED, CLIENTS)],
    ids=["central", "in a party", "whole parties"],
)
def test_replacing_one_is_noised_by_twice_the_bound(
    tmp_path: Path, base: dict[str, Any], changes: dict[str, Any]
) -> None:
    planned = plan(recipe(tmp_path, base, **changes))
    train(planned, tmp_path / "run")
    line = json.loads((tmp_path / "run" / "released.jsonl").read_text().splitlines()[0])
    noised = next(iter(line["parties"].values()))[0] if "parties" in line else line
    multiplier = planned.levels[0].mechanism.noise.multiplier
    assert multiplier is not None
    assert noised["bound"] == 1.0
    assert noised["deviation"] == pytest.approx(2 * multiplier, rel=1e-12)


def test_replacing_a_whole_party_is_noised_as_planned(tmp_path: Path, monkeypatch: Patch) -> None:
    planned = plan(recipe(tmp_path, FEDERATED, **CLIENTS))
    monkeypatch.setattr(outermost, "Parts", _handing(adjacency="add_or_remove"))
    with pytest.raises(NotAsPlanned, match="adjacency"):
        train(planned, tmp_path / "run")


@pytest.mark.parametrize("place", [None, "run"])
@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"noise": independent.Gaussian(multiplier=0.1)}, "noise multiplier"),
        ({"adjacency": "replace_one"}, "adjacency"),
    ],
)
def test_an_adapter_is_held_against_what_it_declared(
    tmp_path: Path, monkeypatch: Patch, place: str | None, wrong: dict[str, Any], named: str
) -> None:
    monkeypatch.setattr(steps, "Parts", _handing(**wrong))
    folder = None if place is None else tmp_path / place
    with private(tmp_path, folder=folder) as run:
        with pytest.raises(NotAsPlanned, match=named):
            run.step()
        assert run.epsilon() == 0.0


@pytest.mark.parametrize("base", [CENTRAL, FEDERATED], ids=["central", "federated"])
def test_a_record_that_differs_from_the_plan_is_found(tmp_path: Path, base: dict[str, Any]) -> None:
    run = tmp_path / "run"
    train(plan(recipe(tmp_path, base)), run)
    write_report(run)
    assert [part["as_planned"] for part in check_releases(run)] == [True]
    asked = ["report", str(run), "--check"]
    assert CliRunner().invoke(cli, asked).exit_code == 0
    kept = (run / "released.jsonl").read_text()
    lines = [json.loads(line) for line in kept.splitlines()]
    third = lines[2] if base is CENTRAL else next(iter(lines[2]["parties"].values()))[0]
    third["deviation"] /= 2
    (run / "released.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(NotAsPlanned, match=r"release 3 .* is planned"):
        check_releases(run)
    assert CliRunner().invoke(cli, asked).exit_code != 0
    assert warnings(gather(run))[0].startswith("The epsilon does not hold. Release 3 is not what")
    (run / "released.jsonl").write_text("".join(kept.splitlines(True)[:-1]))
    with pytest.raises(NotAsPlanned, match="steps were taken"):
        check_releases(run)
    assert warnings(gather(run))[0].startswith("The epsilon does not hold. The record holds")
    (run / "released.jsonl").write_text(kept)
    assert warnings(gather(run)) == []


def test_a_loop_of_ones_own_that_is_finished_keeps_what_left(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with private(tmp_path, folder=folder) as run:
        run.step()
        run.save()
        run.step()  # its process dies with it
    with private(tmp_path, folder=folder, resume=True) as run:
        assert run.done == 1
        run.finish()
    assert json.loads((folder / "outcome.json").read_text())["released"] == 2
    assert [part["last"] for part in check_releases(folder)] == [2]


@pytest.mark.parametrize("rule", [Flat(norm=1.0), Adaptive(norm=1.0)])
def test_a_loop_of_ones_own_leaves_a_record_that_can_be_checked(tmp_path: Path, rule: Any) -> None:
    folder = tmp_path / "run"
    with private(tmp_path, folder=folder, clip=rule) as run:
        run.step()
        run.step()
        run.save()
        run.step()  # lost with its process, and taken again
    with private(tmp_path, folder=folder, clip=rule, resume=True) as run:
        list(run)
        run.finish()
    assert [
        (part["first"], part["last"], part["as_planned"]) for part in check_releases(folder)
    ] == [(1, 6, True)]
    asked = ["report", str(folder), "--check"]
    assert CliRunner().invoke(cli, asked).exit_code == 0
    kept = (folder / "released.jsonl").read_text()
    lines = [json.loads(line) for line in kept.splitlines()]
    lines[3]["deviation"] /= 2
    (folder / "released.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(NotAsPlanned, match=r"release 4 .* is planned"):
        check_releases(folder)
    (folder / "released.jsonl").write_text("".join(kept.splitlines(True)[:-1]))
    with pytest.raises(NotAsPlanned, match="6 steps were taken"):
        check_releases(folder)


# -- statistics ----------------------------------------------------------------------------------

TABLE_OF_AGES = pd.DataFrame({"age": [10.25, 20.5, 30.125, 40.75]})
RANGE: dict[str, Any] = {"column": "age", "low": 0, "high": 50}
ASKED = [Mean(name="age", epsilon=1.0, **RANGE), Count(name="rows", epsilon=0.5)]


def _book(tmp_path: Path) -> Path:
    with Ledger.open(tmp_path / "privacy.db", create=True) as ledger:
        ledger.grant("ward", "example", 8, 1e-5, "pld")
    return tmp_path / "privacy.db"


def _cheaper(query: Any, *given: Any) -> Any:
    return noised_release(dataclasses.replace(query, epsilon=2 * query.epsilon), *given)


noised_release = noisy_numbers.noisy_aggregate


@pytest.mark.parametrize(
    ("module", "name", "wrong", "said"),
    [
        (noisy_numbers, "noisy_aggregate", _cheaper, "its noise has scale .* is paid for"),
        (release, "joint_event", lambda asked: release.query_event(asked[0]), "other answers"),
    ],
)
def test_statistics_that_are_not_what_was_paid_for_are_held_back(
    tmp_path: Path, monkeypatch: Patch, module: Any, name: str, wrong: Any, said: str
) -> None:
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(NotAsPlanned, match=said):
        release.release(TABLE_OF_AGES, ASKED, ledger=_book(tmp_path), account="ward")


def test_answers_in_a_file_are_held_against_their_queries(tmp_path: Path) -> None:
    rows, asked, kept = (tmp_path / name for name in ("rows.csv", "queries.yaml", "answers.json"))
    TABLE_OF_AGES.to_csv(rows, index=False)
    asked.write_text(
        "nacre: 1\nqueries:\n- {kind: mean, name: age, epsilon: 1, column: age, low: 0, high: 50}\n"
        "- {kind: histogram, name: ages, epsilon: 1, column: age, edges: [0, 25, 50]}\n"
    )
    words = ["release", str(rows), str(asked), "--account", "ward", "-o", str(kept)]
    done = CliRunner().invoke(cli, [*words, "--ledger", str(_book(tmp_path))])
    assert done.exit_code == 0, done.output
    held = ["report", str(kept), "--check"]
    assert "all 2 answers" in CliRunner().invoke(cli, held).output
    facts = json.loads(kept.read_text())
    for place, wrong in (("scale", 0.1), ("epsilon", 0.5), ("query", {"kind": "count"})):
        changed = json.loads(json.dumps(facts))
        changed["answers"][0][place] = wrong
        kept.write_text(json.dumps(changed))
        assert CliRunner().invoke(cli, held).exit_code != 0, place

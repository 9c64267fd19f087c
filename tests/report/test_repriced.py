"""Epsilon from plan.json alone: the one that was planned, for every draw and noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nacre.cli.main import cli
from nacre.core.errors import FileDamaged, NotAsPlanned
from nacre.core.files import write_json
from nacre.planning.plan import plan
from nacre.report.repriced import repriced
from nacre.runs.run import train
from tests.integrations.declared import private
from tests.planning.test_draws import WAYS, draws
from tests.training.tiny import CENTRAL, FEDERATED, recipe

NOISES: dict[str, dict[str, Any]] = {
    "poisson": {},
    "cyclic": draws("cyclic_poisson", "add_or_remove"),
    "tree": draws("cyclic_poisson", "add_or_remove")
    | {"differential_privacy__noise": {"kind": "tree"}},
    "blt": draws("cyclic_poisson", "add_or_remove")
    | {"differential_privacy__noise": {"kind": "blt", "buffers": 2}},
    "rdp": {"ledger__grant": {"epsilon": 8, "delta": 1e-4, "rule": "rdp"}},
}


@pytest.mark.parametrize("way", [*NOISES, *WAYS])
def test_epsilon_is_the_one_that_was_planned(way: str, tmp_path: Path) -> None:
    changes = NOISES[way] if way in NOISES else WAYS[way][0]
    planned = plan(recipe(tmp_path, CENTRAL, **changes))
    write_json(tmp_path / "plan.json", planned.to_json())
    (found,) = repriced(tmp_path)
    assert found.epsilon == pytest.approx(planned.priced[0].price.epsilon, rel=1e-9)
    assert found.sentence().startswith("epsilon ")


def test_each_party_has_its_own_and_a_run_without_privacy_none(tmp_path: Path) -> None:
    facts = plan(recipe(tmp_path, FEDERATED)).to_json()
    write_json(tmp_path / "plan.json", facts)
    assert [price.name for price in repriced(tmp_path)] == ["a", "b"]
    write_json(tmp_path / "plan.json", facts | {"private": False})
    assert repriced(tmp_path) == []


def test_a_plan_that_states_too_little_is_refused(tmp_path: Path) -> None:
    facts = plan(recipe(tmp_path, CENTRAL)).to_json()
    facts["parties"][0]["epsilon"] /= 2
    write_json(tmp_path / "plan.json", facts)
    with pytest.raises(NotAsPlanned, match="its mechanism costs"):
        repriced(tmp_path)
    facts["parties"][0]["sampling"] = {"kind": "by hand", "expected": 3}
    write_json(tmp_path / "plan.json", facts)
    with pytest.raises(FileDamaged, match="'by hand' are not known"):
        repriced(tmp_path)


@pytest.mark.slow
def test_the_check_says_epsilon_also_where_the_grant_is_used_up(tmp_path: Path) -> None:
    """The ledger lies beside the recipe, and the copy of the recipe in the run names it so."""
    train(plan(recipe(tmp_path, CENTRAL)), tmp_path / "run")
    said = CliRunner().invoke(cli, ["report", str(tmp_path / "run"), "--check"])
    assert said.exit_code == 0
    assert "\n  epsilon 7.99" in said.output
    words = ["report", str(tmp_path / "run"), "--check", "--json"]
    (price,) = json.loads(CliRunner().invoke(cli, words).output)["epsilon"]
    assert price["epsilon"] <= 8


@pytest.mark.slow
def test_so_has_a_loop_of_ones_own(tmp_path: Path) -> None:
    with private(tmp_path, folder=tmp_path / "run") as run:
        list(run)
        run.finish()
    (price,) = repriced(tmp_path / "run")
    plan_json = json.loads((tmp_path / "run/plan.json").read_text())
    assert 0 < price.epsilon <= plan_json["parties"][0]["epsilon"]

"""Runs whose parties add the noise themselves: what is planned and charged, what is refused, and
runs that are resumed."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from nacre.core.errors import Incompatible, Unbounded, UnsupportedEvent
from nacre.core.files import load_tensors, read_json, write_json
from nacre.ledger import Ledger
from nacre.planning.plan import Plan, plan
from nacre.planning.show import plan_tables
from nacre.report.repriced import repriced
from nacre.runs import loop
from nacre.runs.run import train
from nacre.runs.workers import parties
from tests.training.tiny import CENTRAL, StopAfter, Stopped, changed, recipe

ROUNDS = 4
BASE = changed(
    CENTRAL,
    {
        "differential_privacy": {
            "unit": "client", "epsilon": 20, "delta": 0.01,
            "noise": {"kind": "distributed_gaussian"},
        },
        "training": {"batch": 10, "checkpoint": 1, "optimizer": {"kind": "sgd", "lr": 0.2}},
        "federated_learning": {
            "parties": {"kind": "uniform", "names": list("abcdefg")},
            "rounds": ROUNDS,
            "few_clients": True,
            "gather": {"kind": "secure", "threshold": 5},
        },
        "ledger.path": "{run}/privacy.db",
        "ledger.grant": {"epsilon": 20, "delta": 0.01, "rule": "rdp"},
    },
)  # fmt: skip


def planned(folder: Path, **changes: Any) -> Plan:
    return plan(recipe(folder, BASE, **changes))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_tensors(folder / "model.safetensors")[0]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "released.jsonl").read_text().splitlines()]


def test_both_epsilons_are_stated_and_the_larger_one_is_charged(tmp_path: Path) -> None:
    drawn = planned(tmp_path)
    (party,) = drawn.to_json()["parties"]
    against = party["epsilon_against"]
    assert against["server_and_parties"] == party["epsilon"] <= 20
    assert against["model"] == pytest.approx(_by_hand(party["rho"] * 4 / 5), rel=1e-3)
    assert party["noise"]["sums"] == {
        "bits": 32, "parties": 7, "threshold": 5, "colluders": 1,
        "dimension": drawn.estimate.trained, "bound": party["clip"]["norm"], "rounds": ROUNDS,
    }  # fmt: skip
    run = train(drawn, tmp_path / "run")
    assert [(line["how"], line["shares"]) for line in lines(run.path)] == [("noised", 4)] * ROUNDS
    deviation = party["noise"]["multiplier"] * party["clip"]["norm"]
    assert all(line["deviation"] == pytest.approx(deviation) for line in lines(run.path))
    with Ledger.open(run.path / "privacy.db") as ledger:
        spent = ledger.summary(party["account"]).grants[0].epsilon_spent
    assert spent == pytest.approx(party["epsilon"], rel=1e-9)
    (found,) = repriced(run.path)
    assert found.epsilon == pytest.approx(party["epsilon"], rel=1e-9)
    evidence = read_json(run.path / "plan.json")
    assert evidence["parties"][0]["epsilon_against"] == against


def _by_hand(rho: float) -> float:
    from nacre.differential_privacy.accounting.rdp import ORDERS, rdp_epsilon

    return rdp_epsilon([rho * order for order in ORDERS], ORDERS, 0.01)


def test_the_plan_says_who_is_trusted_with_the_noise(tmp_path: Path) -> None:
    drawn = planned(tmp_path)
    facts = drawn.to_json()
    assumed = " ".join(facts["assumptions"])
    assert "Nobody is trusted with the noise" in assumed and "at least 4 are honest" in assumed
    assert "trusted to add the noise" not in assumed
    assert "each party clips its own change" in assumed
    assert "in shares, one from each party" in facts["techniques"]["differential_privacy"]
    out = io.StringIO()
    Console(width=200, file=out).print(plan_tables(drawn))
    said = " ".join(out.getvalue().split())
    assert "against those who see the model alone" in said and "4 shares counted" in said
    assert "added by each party before its change is masked" in said


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"federated_learning__gather": None}, Incompatible, "too small to hide it"),
        ({"federated_learning__gather__colluders": 0}, Incompatible, "knows its own share"),
        ({"federated_learning__gather__threshold": 4}, Incompatible, "tolerates 0 colluders"),
        ({"federated_learning__gather__colluders": 5}, Incompatible, "colluders=5 is asked for"),
        (
            {"federated_learning__cohort": {"kind": "poisson", "expected": 3}},
            Incompatible, "who takes part",
        ),
        ({"differential_privacy__unit": "example"}, Incompatible, "use `unit: client`"),
        (
            {"gradient_clipping": {"kind": "adaptive", "norm": 1.0}},
            Incompatible, "moves its norm",
        ),
        ({"ledger__grant__rule": "pld"}, UnsupportedEvent, "a grant under `rule: rdp`"),
        ({"differential_privacy__accountant": "pld"}, UnsupportedEvent, "accountant: rdp"),
        (
            {"federated_learning__gather__bits": 16, "differential_privacy__epsilon": 0.05,
             "model": {"kind": "mlp", "hidden": [4000]}},
            Incompatible, "too coarse",
        ),
    ],
)  # fmt: skip
def test_what_is_unsound_is_refused(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as found:
        planned(tmp_path, **changes)
    assert str(found.value).startswith("tiny.yaml:")


def test_a_run_of_rows_has_no_shares(tmp_path: Path) -> None:
    noise = {"kind": "distributed_gaussian"}
    with pytest.raises(Incompatible, match="use `unit: client` with a federation"):
        plan(recipe(tmp_path, CENTRAL, differential_privacy__noise=noise))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("bits", [16, 32])
def test_a_resumed_run_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, bits: int
) -> None:
    """So a round that is taken again has the noise that it had."""
    drawn, real = planned(tmp_path, federated_learning__gather__bits=bits), loop.fit

    def copying(*args: Any, **more: Any) -> Any:
        if not (tmp_path / "copy").exists():
            shutil.copytree(tmp_path / "run", tmp_path / "copy")
        return real(*args, **more)

    monkeypatch.setattr(loop, "fit", copying)
    with pytest.raises(Stopped):
        train(drawn, tmp_path / "run", observe=StopAfter(steps))
    for name in ("run", "copy"):
        train(plan(drawn.recipe, resume=tmp_path / name), tmp_path / name, resume=True)
    one, two = weights(tmp_path / "run"), weights(tmp_path / "copy")
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert lines(tmp_path / "run") == lines(tmp_path / "copy")


def test_parties_that_add_less_noise_than_was_priced_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan's multiplier, and what the parties are given, are held against each other."""
    real = parties.noised_grid

    def less(outer: Any) -> Any:
        grid = real(outer)
        assert grid is not None
        return replace(grid, noise=replace(grid.noise, variance=grid.noise.variance / 2))

    monkeypatch.setattr(parties, "noised_grid", less)
    with pytest.raises(Unbounded, match="parties' noise has deviation"):
        train(planned(tmp_path), tmp_path / "run")


def test_a_plan_that_counts_more_shares_than_there_are_is_refused(tmp_path: Path) -> None:
    facts = planned(tmp_path).to_json()
    facts["parties"][0]["noise"]["multiplier"] /= 1.5
    write_json(tmp_path / "plan.json", facts)
    with pytest.raises(Exception, match="its mechanism costs"):
        repriced(tmp_path)


@pytest.mark.parametrize("both", [False, True])
def test_shares_are_of_what_travels_where_parties_keep_layers(tmp_path: Path, both: bool) -> None:
    base = changed(BASE, {"model.hidden": [4], "federated_learning.local.personal": ["head"]})
    if both:
        inner = {"unit": "example", "epsilon": 8, "delta": 0.01}
        clip = {"kind": "flat", "norm": 1.0}
        within = {"differential_privacy": inner, "gradient_clipping": clip}
        grant = {"epsilon": 8, "delta": 0.01}
        more = {"within_parties": within, "ledger.grant_within_parties": grant}
        base = changed(base, more)
    drawn = plan(recipe(tmp_path, base))
    weights_of_head = 4 * 3 + 3
    (outer, *_), shared = drawn.to_json()["parties"], drawn.estimate.shared
    assert shared == drawn.estimate.trained - weights_of_head
    assert outer["noise"]["sums"]["dimension"] == shared
    run = train(drawn, tmp_path / "run")
    assert [(line["how"], line["shares"]) for line in lines(run.path)] == [("noised", 4)] * ROUNDS

"""Whole runs by every way of drawing: planned, charged, resumed to the same bits, reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from nacre.core.errors import BudgetExceeded, Incompatible, UnsupportedEvent
from nacre.core.files import load_tensors
from nacre.data.sampling import BallsInBins, FixedSize, Shuffled
from nacre.planning import words
from nacre.planning.outlook import outlook
from nacre.planning.plan import plan
from nacre.planning.show import plan_tables
from nacre.report import gather, write_report
from nacre.runs import loop
from nacre.runs.run import train
from tests.training.tiny import CENTRAL, FEDERATED, StopAfter, Stopped, recipe

pytestmark = pytest.mark.slow


def draws(kind: str, adjacency: str, **more: Any) -> dict[str, Any]:
    return {
        "training__sampling": {"kind": kind, **more},
        "training__batch": 35,
        "differential_privacy__adjacency": adjacency,
        "ledger__path": "{run}/privacy.db",
    }


WAYS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {  # changes, evidence, words
    "fixed size": (
        draws("fixed_size", "replace_one"),
        {"kind": "fixed_size", "expected": 35.0, "rate": 35 / 120},
        "no",
    ),
    "shuffled": (
        draws("shuffled", "zero_out"),
        {"kind": "shuffled", "expected": 35.0, "rate": 1.0, "epoch": 3},
        "once in each 3 steps at most",
    ),
    "bins": (
        draws("balls_in_bins", "add_or_remove"),
        {"kind": "balls_in_bins", "expected": 40.0, "rate": 1.0, "cycle": 3},
        "every 3 steps at most",
    ),
    "bins, anew": (
        draws("balls_in_bins", "replace_one", anew=True),
        {"kind": "balls_in_bins", "expected": 40.0, "rate": 1.0, "epoch": 3},
        "once in each 3 steps at most",
    ),
    "bins, anew, amplified": (
        draws("balls_in_bins", "add_or_remove", anew=True),
        {"kind": "balls_in_bins", "expected": 40.0, "rate": 1.0, "epoch": 3},
        "once in each 3 steps at most",
    ),
    "bins, banded noise": (
        draws("balls_in_bins", "replace_one")
        | {"differential_privacy__noise": {"kind": "banded", "bands": 3}},
        {"kind": "balls_in_bins", "expected": 40.0, "rate": 1.0, "cycle": 3},
        "every 3 steps at most",
    ),
}
EVERY = pytest.mark.parametrize("way", WAYS)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_tensors(path / "model.safetensors")[0]


@EVERY
def test_a_resumed_run_draws_and_ends_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The copy is taken before the first step, when the key is fixed already."""
    changes, real = WAYS[way][0], loop.fit

    def copying(*args: Any, **more: Any) -> Any:
        if not (tmp_path / "copy").exists():
            shutil.copytree(tmp_path / "run", tmp_path / "copy")
        return real(*args, **more)

    monkeypatch.setattr(loop, "fit", copying)
    with pytest.raises(Stopped):
        train(plan(recipe(tmp_path, CENTRAL, **changes)), tmp_path / "run", observe=StopAfter(4))
    for path in (tmp_path / "run", tmp_path / "copy"):
        again = plan(recipe(tmp_path, CENTRAL, **changes), resume=path)
        train(again, path, resume=True)
    one, other = weights(tmp_path / "run"), weights(tmp_path / "copy")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.diagonal
@EVERY
@pytest.mark.parametrize("rule", ["pld", "rdp", "zcdp"])
def test_it_is_charged_under_every_rule_and_reported(tmp_path: Path, way: str, rule: str) -> None:
    changes, sampling, turns = WAYS[way]
    asked = recipe(tmp_path, CENTRAL, **changes, ledger__grant__rule=rule)
    if rule == "zcdp" and way in ("fixed size", "bins, anew, amplified"):
        with pytest.raises(BudgetExceeded):  # zCDP sees no amplification
            plan(asked)
        return
    planned = plan(asked)
    (holder,) = planned.levels
    assert holder.price is not None and 7.9 < holder.price.epsilon <= 8
    prices = [price for _, price in holder.by_step]
    assert prices == sorted(prices) and prices[-1] == holder.price.epsilon
    assert outlook(planned) is not None and plan_tables(planned) is not None
    run = train(planned, tmp_path / "run")
    (party,) = gather(run.path)["plan"]["parties"]
    assert party["sampling"] == sampling
    page = write_report(run.path).read_text()
    assert turns in page and sampling["kind"].replace("_", " ") in page
    assert "adjacency" in (run.path / "ledger.json").read_text()


def test_the_trade_off_of_fixed_size_draws_moves_the_batch(tmp_path: Path) -> None:
    found = outlook(plan(recipe(tmp_path, CENTRAL, **WAYS["fixed size"][0])))
    assert found is not None
    by_name = {choice.changed: choice for choice in found.choices}
    half, now, twice = (by_name[n] for n in ("half the batch", "", "twice the batch"))
    assert (half.batch, now.batch, twice.batch) == (17, 35, 70)
    assert half.epsilon < now.epsilon < twice.epsilon


@pytest.mark.parametrize(
    ("base", "change", "error", "key", "remedy"),
    [
        (CENTRAL, draws("fixed_size", "add_or_remove"), UnsupportedEvent, "training.sampling",
         "adjacency: replace_one"),
        (CENTRAL, draws("fixed_size", "zero_out"), UnsupportedEvent, "training.sampling",
         "adjacency: replace_one"),
        (CENTRAL, draws("shuffled", "add_or_remove"), UnsupportedEvent, "training.sampling",
         "balls_in_bins"),
        (FEDERATED, draws("shuffled", "add_or_remove"), UnsupportedEvent, "training.sampling",
         "balls_in_bins"),
        (CENTRAL, WAYS["bins, banded noise"][0] | {"training__batch": 60}, UnsupportedEvent,
         "differential_privacy.noise", "bands: 2"),
        (CENTRAL, WAYS["bins, banded noise"][0] | draws("shuffled", "zero_out"), UnsupportedEvent,
         "differential_privacy.noise", "balls_in_bins"),
        (CENTRAL, draws("fixed_size", "replace_one") | {"training__batch": 121}, Incompatible,
         "training.batch", "use 120 or fewer"),
    ],
)  # fmt: skip
def test_what_is_not_proven_is_refused_by_plan(
    tmp_path: Path, base: dict[str, Any], change: dict[str, Any], error: type, key: str, remedy: str
) -> None:
    with pytest.raises(error, match=remedy) as caught:
        plan(recipe(tmp_path, base, **change))
    assert f"`{key}`:" in str(caught.value)


def test_without_privacy_nothing_is_asked_of_the_draw(tmp_path: Path) -> None:
    for kind, built in (
        ("fixed_size", FixedSize(35, 120)),
        ("shuffled", Shuffled(35, 120)),
        ("balls_in_bins", BallsInBins(120, 3)),
    ):
        asked = recipe(
            tmp_path, CENTRAL, training__sampling={"kind": kind}, training__batch=35,
            differential_privacy=None, ledger=None, gradient_clipping=None,
        )  # fmt: skip
        (holder,) = plan(asked).levels
        assert holder.mechanism.sampling == built
        assert built.separation == (3 if kind == "balls_in_bins" else 1)


def test_parties_draw_their_own_fixed_sizes(tmp_path: Path) -> None:
    change = draws("fixed_size", "replace_one") | {"training__batch": 20}
    run = train(plan(recipe(tmp_path, FEDERATED, **change)), tmp_path / "run")
    parties = gather(run.path)["plan"]["parties"]
    assert [party["sampling"]["kind"] for party in parties] == ["fixed_size"] * 2
    assert "fixed_size" in json.dumps(json.loads((run.path / "plan.json").read_text()))


def test_the_plan_says_where_noise_comes_from(tmp_path: Path) -> None:
    made = plan(recipe(tmp_path, CENTRAL))
    assert "secure: AES-256" in words.noise_words(made.recipe)
    assert made.to_json()["parties"][0]["noise"]["draws"] == "secure"
    assert any("Noise is exact" in line for line in made.to_json()["assumptions"])
    fast = {"differential_privacy__noise": {"kind": "gaussian", "draws": "fast"}}
    with pytest.raises(Incompatible, match="anyone can try its 32 bits of seed"):
        plan(recipe(tmp_path, CENTRAL, **fast))


@pytest.mark.parametrize("norm", [1e-300, 1e-25, 1e25])
def test_a_norm_that_leaves_no_room_for_noise_is_refused_before_the_charge(
    tmp_path: Path, norm: float
) -> None:
    with pytest.raises(Incompatible, match="use a norm between 1e-20 and 1e\\+20"):
        plan(recipe(tmp_path, CENTRAL, gradient_clipping__norm=norm))

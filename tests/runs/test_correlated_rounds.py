"""Noise that is correlated over the rounds of a federation (DP-FTRL): parties that take turns, runs
that are resumed, and what is refused."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from nacre.core.errors import Incompatible, UnsupportedEvent
from nacre.core.files import load_tensors
from nacre.differential_privacy.noise.independent import Gaussian
from nacre.planning.plan import plan
from nacre.runs import loop
from nacre.runs.levels import outermost
from nacre.runs.run import train
from tests.planning.test_clipping import CLIENT
from tests.training.tiny import StopAfter, Stopped, changed, recipe

pytestmark = pytest.mark.slow

ROUNDS = 8
PARTIES = changed(
    CLIENT,
    {
        "federated_learning.parties.names": [f"p{i}" for i in range(8)],
        "federated_learning.rounds": ROUNDS,
        "federated_learning.local.steps": 1,
        "federated_learning.cohort": {"kind": "cyclic_poisson", "expected": 2, "cycle": 4},
        "training.batch": 10,
        "ledger.path": "{run}/privacy.db",
    },
)
NOISES: dict[str, dict[str, Any]] = {
    "banded": {"kind": "banded", "bands": 4},
    "tree": {"kind": "tree"},
    "blt": {"kind": "blt", "buffers": 2},
}
EVERY = pytest.mark.parametrize("kind", NOISES)


def _plan(folder: Path, kind: str, **more: Any) -> Any:
    base = changed(PARTIES, {"differential_privacy.noise": NOISES[kind]} | more)
    return plan(recipe(folder, base))


@EVERY
@pytest.mark.parametrize("steps", [1, 5])
def test_a_resumed_run_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, steps: int
) -> None:
    planned, real = _plan(tmp_path, kind), loop.fit

    def copying(*args: Any, **more: Any) -> Any:
        if not (tmp_path / "copy").exists():
            shutil.copytree(tmp_path / "run", tmp_path / "copy")
        return real(*args, **more)

    monkeypatch.setattr(loop, "fit", copying)
    with pytest.raises(Stopped):
        train(planned, tmp_path / "run", observe=StopAfter(steps))
    assert steps == 1 or list((tmp_path / "run" / "local" / "noise").iterdir())
    for name in ("run", "copy"):
        train(plan(planned.recipe, resume=tmp_path / name), tmp_path / name, resume=True)
    one, two = (load_tensors(tmp_path / n / "model.safetensors")[0] for n in ("run", "copy"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    lines = [(tmp_path / n / "released.jsonl").read_text() for n in ("run", "copy")]
    assert lines[0] == lines[1]
    found = [json.loads(line) for line in lines[0].splitlines()]
    assert [line["how"] for line in found] == ["noised"] * ROUNDS
    assert not (tmp_path / "run" / "local" / "noise").exists()


@EVERY
def test_a_party_is_asked_at_most_once_in_a_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    asked: list[tuple[Any, ...]] = []
    real = outermost.Federation.__call__

    def noted(self: Any, model: Any, units: Any, *more: Any) -> Any:
        asked.append((self.round, *units))
        return real(self, model, units, *more)

    monkeypatch.setattr(outermost.Federation, "__call__", noted)
    train(_plan(tmp_path, kind), tmp_path / "run")
    rounds = {
        name: [r for r, *names in asked if name in names] for name in map("p{}".format, range(8))
    }
    assert any(rounds.values())
    for taken in rounds.values():
        assert all((b - a) % 4 == 0 for a, b in itertools.pairwise(taken))


def test_the_event_is_that_of_rows_that_take_turns(tmp_path: Path) -> None:
    """Two turns of four rounds, in each of which a party of the group has a coin of one."""
    mechanism = _plan(tmp_path, "banded").levels[0].mechanism
    assert mechanism.unit == "client" and mechanism.sampling.separation == 4
    step = mechanism.event()
    assert step.count == 2
    assert step.event.noise_multiplier == pytest.approx(mechanism.noise.multiplier)
    assert isinstance(mechanism.with_multiplier(1.0).noise, type(mechanism.noise))
    assert not isinstance(mechanism.noise, Gaussian)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"federated_learning.cohort": None}, Incompatible, "cohort: {kind: cyclic_poisson"),
        (
            {"federated_learning.cohort": {"kind": "poisson", "expected": 2}},
            Incompatible, "parties that take turns",
        ),
        (
            {"federated_learning.cohort.cycle": 2}, UnsupportedEvent,
            "with cycle=2 a unit enters more than one",
        ),
        ({"federated_learning.cohort.expected": 3}, Incompatible, "more than a group holds"),
        (
            {"differential_privacy.unit": "example", "ledger.grant": None,
             "federated_learning.few_clients": None},
            Incompatible, "a party keeps none of its noise",
        ),
    ],
)  # fmt: skip
def test_what_is_not_proven_is_refused(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        _plan(tmp_path, "banded", **changes)


def test_turns_need_no_correlated_noise(tmp_path: Path) -> None:
    train(plan(recipe(tmp_path, PARTIES)), tmp_path / "run")

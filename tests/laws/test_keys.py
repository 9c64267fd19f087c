"""What a key stands for: everything that a release is computed from is in the key of its noise, and
what is written about private rows stands under a key that no other run has."""

# pyright: reportArgumentType=false
# pyright: reportPrivateUsage=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nacre.core.errors import CallFailed
from nacre.core.random import Source
from nacre.core.tensors import detached, trainable
from nacre.core.types import Adjacency, BoundedSum, Noised, Release
from nacre.data.dataset import Rows
from nacre.data.sampling import AllUnits
from nacre.data.sketches.sketch import Sketch
from nacre.data.units import Units
from nacre.gradient_clipping import Flat
from nacre.ledger import Ledger
from nacre.planning.plan import plan
from nacre.runs import begin, loop
from nacre.runs import run as running
from nacre.runs import tune as tuning
from nacre.runs.run import train
from nacre.runs.workers import parties
from nacre.training import holders
from nacre.training.step import Parts, State, entering, step
from tests.integrations.declared import linear, private
from tests.training.tiny import FEDERATED, TABLE, StopAfter, Stopped, changed, patients, recipe

pytestmark = pytest.mark.slow

KEY = bytes(range(32))
ROOT = Source(KEY)
Patch = pytest.MonkeyPatch


def _told_apart(found: list[Any]) -> bool:
    return len({str(one) for one in found}) == len(found)


# -- a step --------------------------------------------------------------------------------------


def _state(**given: Any) -> State:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return State(model, optimizer, Flat(norm=given.pop("norm", 1.0)), **given)


def test_what_enters_a_step_is_told_apart() -> None:
    moved = _state()
    with torch.no_grad():
        moved.model.bias[0] += 1e-7  # type: ignore[operator, index]
    states = [_state(), _state(norm=2.0), _state(done=1), moved]
    found = [entering(state, ROOT) for state in states]
    found += [entering(_state(), ROOT, b"request"), entering(_state(), ROOT.child("other"))]
    assert _told_apart(found)
    assert found[0] == entering(_state(), ROOT)


class _Seen:
    """A noise that shows which source it was given."""

    def __init__(self, multiplier: float = 1.0) -> None:
        self.multiplier = multiplier
        self.keys: list[bytes] = []

    def init(self, like: Any) -> None:
        return None

    def add(
        self, total: BoundedSum, state: Any, source: Source, adjacency: Adjacency, **_: Any
    ) -> tuple[Release, Any]:
        self.keys.append(source.digest("seen"))
        return Release(total.total, Noised(1.0)), state


def test_the_key_of_the_noise_stands_for_its_sum_its_scale_and_what_it_remembers() -> None:
    """All under one digest of what entered, so each has to stand in the key by itself."""

    def key(
        value: float = 1.0, multiplier: float = 1.0, adjacency: Adjacency = "zero_out",
        **given: Any,
    ) -> bytes:  # fmt: skip
        noise = _Seen(multiplier)

        def sums(model: nn.Module, *_: Any) -> BoundedSum:
            filled = {n: torch.full_like(p, value) for n, p in trainable(model).items()}
            return BoundedSum(filled, given.get("norm", 1.0))

        parts = Parts(
            sampling=AllUnits(given.pop("rows", 4)), sums=lambda _: sums, noise=noise,  # type: ignore[arg-type]
            adjacency=adjacency,
        )  # fmt: skip
        rows = Rows(torch.zeros(4, 3), torch.zeros(4))
        step(_state(**given), Units(rows, "example", None, ROOT), parts, ROOT, b"entered")
        return noise.keys[0]

    remembered = {"past": torch.ones(2)}
    found = [
        key(), key(value=2.0), key(multiplier=2.0), key(adjacency="replace_one"), key(norm=2.0),
        key(done=1), key(noise_state=remembered),
    ]  # fmt: skip
    assert _told_apart(found)
    assert found[0] == key()


# -- a run ---------------------------------------------------------------------------------------

SEARCH = changed(
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


def _source(place: Path, patch: Patch, verb: str, seed: int = 0, **other: Any) -> bytes:
    """The source that a run under the known key draws from."""
    base, module, door = (
        (TABLE, running, train) if verb == "train" else (SEARCH, tuning, tuning.tune)
    )
    place.mkdir(exist_ok=True)
    patients(place / "patients.csv", seed=seed)
    found: list[Source] = []

    def start(setting: Any, held: Any, source: Source, *_: Any) -> Any:
        found.append(source)
        raise Stopped

    with patch.context() as known:
        known.setattr(os, "urandom", lambda count: (KEY * count)[:count])
        known.setattr(module, "starting_model", start)
        if code := other.pop("code", None):
            known.setattr(begin, "code", lambda _: code)
        with pytest.raises(Stopped):
            door(plan(recipe(place, base, **other)), place / "run")
    return found[0].digest("seen")


@pytest.mark.parametrize("verb", ["train", "tune"])
def test_the_key_of_a_run_stands_for_its_rows_its_recipe_and_its_code(
    tmp_path: Path, monkeypatch: Patch, verb: str
) -> None:
    def key(place: str, **other: Any) -> bytes:
        return _source(tmp_path / place, monkeypatch, verb, **other)

    optimizer = {"kind": "adam", "lr": 0.123}
    found = [
        key("one"), key("rows", seed=1), key("recipe", training__optimizer=optimizer),
        key("code", code="another"),
    ]  # fmt: skip
    assert _told_apart(found)
    assert found[0] == key("again")


def test_each_trial_has_a_key_of_its_own(tmp_path: Path, monkeypatch: Patch) -> None:
    patients(tmp_path / "patients.csv")
    keys: list[bytes] = []
    real = tuning.starting_model

    def start(setting: Any, held: Any, source: Source, *given: Any) -> Any:
        keys.append(source.digest("seen"))
        return real(setting, held, source, *given)

    monkeypatch.setattr(tuning, "starting_model", start)
    monkeypatch.setattr("nacre.differential_privacy.selection.trials.Trials.draw", lambda *_: 3)
    tuning.tune(plan(recipe(tmp_path, SEARCH)), tmp_path / "run")
    assert len(keys) == 3 and _told_apart(keys)


# -- parties -------------------------------------------------------------------------------------


def test_parties_draw_and_keep_their_replies_under_keys_of_their_own(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    sources: list[bytes] = []
    keys: list[bytes | None] = []
    trained, together = parties.Workplace.training, parties.RoundFiles

    def local(*given: Any) -> Callable[..., Release]:
        sources.append(next(x for x in given if isinstance(x, Source)).digest("seen"))
        return trained(*given)

    def made(folder: Any, key: bytes | None) -> Any:
        keys.append(key)
        return together(folder, key)

    monkeypatch.setattr(parties.Workplace, "training", local)
    monkeypatch.setattr(parties, "RoundFiles", made)
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        planned = plan(recipe(tmp_path / place, FEDERATED))
        with pytest.raises(Stopped):
            train(planned, tmp_path / place / "run", observe=StopAfter(1))
    assert len(sources) == 4 and len(keys) == 2
    assert _told_apart(sources) and _told_apart(keys)


def test_the_round_of_a_party_is_keyed_by_the_whole_request(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    """Its weights, its number, and what the party computes with and does not move."""
    seen: list[bytes] = []
    fit, place = holders.fit, parties.Workplace

    def fitting(*given: Any, **more: Any) -> State:
        seen.append(more["context"])
        return fit(*given, **more)

    class Local:
        def __init__(self, setting: Any, model: Any) -> None:
            self.setting, self.model = setting, model

        def training(self, *given: Any) -> Any:
            weights = detached(trainable(self.model))
            other = {name: value + 1 for name, value in weights.items()}
            train_once = place(self.setting, self.model).training(*given)
            for request, number in ((weights, 0), (weights, 0), (other, 0), (weights, 1)):
                train_once(request, number)
            self.model.register_buffer("kept", torch.ones(1))
            place(self.setting, self.model).training(*given)(weights, 0)
            raise Stopped

    monkeypatch.setattr(holders, "fit", fitting)
    monkeypatch.setattr(parties, "Workplace", Local)
    monkeypatch.setattr("nacre.ledger.charge.Charge.journal", lambda *_: None)
    with pytest.raises(CallFailed, match="Stopped"):  # it is asked within the step over parties
        train(plan(recipe(tmp_path, FEDERATED)), tmp_path / "run")
    first, same, *others = seen
    assert first == same and len(others) == 3 and _told_apart([first, *others])


# -- what is written -----------------------------------------------------------------------------


def test_nothing_that_two_runs_write_of_equal_rows_is_alike(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    """Who could compare them, or compute one himself, would confirm a guess of a row."""
    sketches: list[Sketch] = []
    contexts: list[bytes] = []
    recorded, fit = Ledger.record_rows, loop.fit

    def record(self: Ledger, known: Mapping[str, Sketch]) -> None:
        sketches.extend(known.values())
        recorded(self, known)

    def fitting(state: State, *given: Any, **more: Any) -> State:
        contexts.append(more["context"])
        assert more["context"] == holders.fixed(state.model)
        return fit(state, *given, **more)

    monkeypatch.setattr(Ledger, "record_rows", record)
    monkeypatch.setattr(loop, "fit", fitting)
    found = [_opened(tmp_path / place) for place in ("one", "two")]
    for one, other in zip(*found, strict=True):
        assert one and other and one != other
    first, second = sketches
    assert not first.rows & second.rows and not first.parts & second.parts
    assert first.table != second.table and not first.columns & second.columns
    assert len(contexts) == 2


def _opened(place: Path) -> list[Any]:
    """What a run that was stopped after its first step wrote of its rows, and under which keys."""
    place.mkdir()
    patients(place / "patients.csv")
    full = {"training__sampling": {"kind": "full"}, "training__checkpoint": 1}
    with pytest.raises(Stopped):
        train(plan(recipe(place, TABLE, **full)), place / "run", observe=StopAfter(1))
    local = place / "run" / "local"
    with Ledger.open(place / "privacy.db") as ledger:
        (run,) = ledger.summary("patients").runs
        asked = ledger.asked("patients", run.run)
        with ledger._store.transaction(write=False) as transaction:
            contents = {entry.kind: json.loads(entry.content) for entry in transaction.entries(1)}
    assert (asked.column, asked.rows_per_unit) == ("patient", 2)
    facts = json.loads((local / "run.json").read_text())
    return [
        (local / "run.key").read_bytes(), (local / "holder.key").read_bytes(), facts["hmac"],
        contents["journal"]["entered"], contents["rows"], contents["reserve"]["run"],
        next((place / "run" / "state").glob("step-*")).read_bytes(),
    ]  # fmt: skip


def test_the_hmac_of_the_rows_stands_for_the_rows_and_for_its_key(tmp_path: Path) -> None:
    from nacre.runs import rows

    found: list[str] = []
    for seed, key in ((0, KEY), (1, KEY), (0, KEY[::-1])):
        patients(tmp_path / "patients.csv", seed=seed)
        found.append(rows.read(recipe(tmp_path, TABLE, data__holdout=None), key).hmac)
    assert _told_apart(found)


@pytest.mark.parametrize("place", [None, "run"])
def test_no_two_loops_of_ones_own_draw_the_same_noise(tmp_path: Path, place: str | None) -> None:
    found: list[Tensor] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        model = linear()
        folder = None if place is None else tmp_path / name / place
        with private(tmp_path / name, model, steps=1, folder=folder) as run:
            run.step()
        found += [value.reshape(-1) for value in detached(trainable(model)).values()]
    ones, twos = torch.cat(found[: len(found) // 2]), torch.cat(found[len(found) // 2 :])
    # Noise lies on a grid: one entry of 300 agrees by chance, and most of ten never do.
    assert int((ones != twos).sum()) > len(ones) // 2

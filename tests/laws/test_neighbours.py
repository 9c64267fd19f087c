"""Neighbours through the public door of recipes: one unit taken away or replaced moves a noiseless
sum by its bound at most, and nothing else that a run writes outside `local/`.

The sums are cut at the release (`cut`), so "nothing else" is meant byte for byte. A new unit or
adjacency is tested by being listed in `UNITS` or `ADJACENCIES`.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nacre.differential_privacy.noise.shares import NoiseShares
from nacre.federated_learning import OnDemand, Reply, RoundRequest
from nacre.federated_learning.secure.member import Member
from nacre.planning.plan import Plan, plan
from nacre.recipe.schema import Recipe
from nacre.runs import loop
from nacre.runs.run import train
from nacre.runs.tune import tune
from nacre.runs.workers import parties
from tests.laws.conftest import Sums, moved, written
from tests.training.tiny import CENTRAL, TABLE, changed, patients, recipe

pytestmark = pytest.mark.slow

MANY = "p999"  # a person with twelve rows, and the file's last ones
UNITS = ["example", "group"]
ADJACENCIES = ["add_or_remove", "replace_one", "zero_out"]

WHOLE: dict[str, Any] = changed(
    TABLE,
    {
        "data.holdout": None,
        "data.public": {"path": "public.csv"},
        "data.scaling": {"kind": "public"},
        "fine_tuning": {"kind": "full", "pretrain": {"steps": 2, "batch": 16}},
        "training.batch": 47,  # of 48: each unit is drawn within two steps, whatever the digest
        "training.steps": 2,
        "training.checkpoint": 1,
    },
)
"""A run in which public rows scale, teach the base, and are measured after each step."""
PARTIES: dict[str, Any] = changed(
    WHOLE,
    {
        "data.drop": [],
        "data.party": "hospital",
        "training": {"batch": 20, "checkpoint": 1, "optimizer": {"kind": "sgd", "lr": 0.2}},
        "federated_learning": {
            "parties": {
                "kind": "column", "column": "hospital", "sizes": {"north": 24, "south": 24},
            },
            "rounds": 3,
            "local": {"steps": 3},
            "stop": {"patience": 1, "min_delta": 100.0},
        },
    },
)  # fmt: skip
SEARCH: dict[str, Any] = changed(
    WHOLE,
    {
        "ledger.grant": {"epsilon": 8, "delta": 1.0e-3, "rule": "rdp"},
        "tune": {"trials": 2, "over": {"training.optimizer.lr": [0.05, 0.2]}},
    },
)


def table(folder: Path) -> Path:
    """A table of patients, the last of whom has twelve rows, and a public one beside it."""
    patients(folder / "public.csv", people=12, seed=1)
    file = patients(folder / "patients.csv", people=30)
    with file.open("a", newline="") as handle:
        csv.writer(handle).writerows(
            [MANY, "north", f"{20 + place}", "f", f"{place / 2:.2f}", ("no", "yes")[place % 2]]
            for place in range(12)
        )
    return file


def neighbour(file: Path, unit: str, adjacency: str) -> None:
    """One unit less, or another in its place: the last row, every row of the person with twelve, or
    of one party. The other's rows are legal, and far from all that the table holds."""
    ours = {
        "example": lambda line: line.startswith(f"{MANY},north,31,"),
        "group": lambda line: line.startswith(MANY),
        "client": lambda line: ",north," in line,
    }[unit]
    lines = file.read_text().splitlines(keepends=True)
    other = [_other(line) if adjacency == "replace_one" else "" for line in lines]
    file.write_text("".join(o if ours(x) else x for x, o in zip(lines, other, strict=True)))


def _other(line: str) -> str:
    who, hospital, *_ = line.split(",")
    return f"{who},{hospital},119.0,m,0.00,no\n"


def _planned(
    folder: Path, base: dict[str, Any], unit: str, adjacency: str, noise: Any = None
) -> Plan:
    privacy: dict[str, Any] = {
        "unit": unit, "adjacency": adjacency, "epsilon": 8, "delta": 1.0e-3,
        "accountant": "rdp", "noise": noise or {"kind": "gaussian"},
    }  # fmt: skip
    changes: dict[str, Any] = {"differential_privacy": privacy}
    if unit == "group":
        privacy["rows_per_unit"] = 12
    if adjacency == "replace_one":
        changes["training__sampling"] = {"kind": "full"}
    return plan(recipe(folder, base, **changes))


def ran(planned: Plan, folder: Path, name: str) -> Path:
    """A run on what lies in `folder` now, and on a ledger of its own."""
    for path in folder.glob("privacy.db*"):
        path.unlink()
    verb = train if planned.search is None else tune
    return verb(planned, folder / name).path


def _both(folder: Path, base: dict[str, Any], unit: str, adjacency: str) -> tuple[Path, Path]:
    """The run folders of one plan on neighbouring tables."""
    file = table(folder)
    planned = _planned(folder, base, unit, adjacency)
    first = ran(planned, folder, "one")
    neighbour(file, unit, adjacency)
    return first, ran(planned, folder, "other")


def _reach(adjacency: str) -> float:
    """How far neighbours may lie apart in units of the bound, and what rounding adds."""
    return (2 if adjacency == "replace_one" else 1) * (1 + 1e-5)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("adjacency", ADJACENCIES)
def test_one_unit_moves_a_sum_by_its_bound_and_nothing_else(
    tmp_path: Path, cut: Sums, unit: str, adjacency: str
) -> None:
    first, other = _both(tmp_path, WHOLE, unit, adjacency)
    assert 0 < max(moved(cut)) <= _reach(adjacency)
    found = written(first)
    assert found == written(other)
    assert len(found["outcome.json"]["curve"]) == 2
    assert {"state/base.safetensors", "model.safetensors", "released.jsonl"} <= found.keys()


REMEMBERED: dict[str, Any] = {
    "federated_learning.local": {"steps": 3, "proximal": 0.1, "controls": True},
    "federated_learning.compression": {"kind": "top_k", "share": 0.5},
}
"""What parties carry from one round to the next."""
PERSONAL: dict[str, Any] = {
    "federated_learning.local": {"steps": 3, "personal": ["head"]},
    "federated_learning.stop": None,
}
"""Layers of the parties' own."""


@pytest.mark.parametrize("unit", UNITS)
def test_one_unit_of_a_party_that_remembers_moves_its_sums_and_nothing_else(
    tmp_path: Path, cut: Sums, unit: str
) -> None:
    first, other = _both(tmp_path, changed(PARTIES, REMEMBERED), unit, "add_or_remove")
    assert 0 < max(moved(cut)) <= _reach("add_or_remove")
    assert written(first) == written(other)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("adjacency", ADJACENCIES)
def test_one_unit_of_a_party_with_layers_of_its_own_moves_its_sums_and_nothing_else(
    tmp_path: Path, cut: Sums, unit: str, adjacency: str
) -> None:
    """The sums are over shared and own layers together, and so is the bound: as all of them are cut
    at the release, the party's own model is the same too."""
    first, other = _both(tmp_path, changed(PARTIES, PERSONAL), unit, adjacency)
    assert 0 < max(moved(cut)) <= _reach(adjacency)
    assert all(any("head" in name for name in each.total) for each in cut)
    assert written(first) == written(other)
    for path in (first / "local" / "personal").glob("*/*"):
        assert path.read_bytes() == (other / path.relative_to(first)).read_bytes()


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("adjacency", ADJACENCIES)
def test_one_unit_of_a_party_moves_its_sums_and_nothing_else(
    tmp_path: Path, cut: Sums, unit: str, adjacency: str
) -> None:
    first, other = _both(tmp_path, PARTIES, unit, adjacency)
    assert 0 < max(moved(cut)) <= _reach(adjacency)
    found = written(first)
    assert found == written(other)
    assert found["outcome.json"]["stopped"] == "stopped improving"


AS_FOUND: dict[str, Any] = changed(
    WHOLE,
    {
        "data.columns": {
            "age": {"low": 0, "high": 120, "missing": {"kind": "drop"}},
            "sex": {"categories": ["f"], "other": True},
            "dose": {
                "low": 0, "high": 10, "coding": {"kind": "piecewise", "count": 3},
                "missing": {"kind": "fill", "value": 5, "flag": True},
            },
        },
        "data.dialect": {"missing": ["?"]},
        "training.class_prior": {"no": 0.9, "yes": 0.1},
        "training.class_weights": "balanced",
    },
)  # fmt: skip


@pytest.mark.parametrize("cells", ["?,f,3.10", "31,x,?"], ids=["dropped", "filled"])
def test_a_row_that_lacks_a_value_moves_a_sum_by_its_bound_and_nothing_else(
    tmp_path: Path, cut: Sums, cells: str
) -> None:
    """Whether a row is dropped is decided by that row alone, and its count stays in `local/`."""
    file = table(tmp_path)
    planned = _planned(tmp_path, AS_FOUND, "example", "replace_one")
    first = ran(planned, tmp_path, "one")
    lines = file.read_text().splitlines(keepends=True)
    lines[-1] = f"{MANY},north,{cells},no\n"
    file.write_text("".join(lines))
    other = ran(planned, tmp_path, "other")
    assert 0 < max(moved(cut)) <= _reach("replace_one")
    assert written(first) == written(other)


class _Silent(OnDemand):
    """The parties without the one that is taken away."""

    def exchange(self, request: RoundRequest, cohort: Sequence[str]) -> Mapping[str, Reply | bytes]:
        return {n: reply for n, reply in super().exchange(request, cohort).items() if n != "north"}


@pytest.mark.parametrize(
    "kept",
    [
        {},
        {"federated_learning.gather.aggregate": {"kind": "centred_clipping"}},
        REMEMBERED,
        PERSONAL,
    ],
    ids=["nothing", "the last direction", "between rounds", "layers of its own"],
)
@pytest.mark.parametrize("adjacency", ADJACENCIES)
def test_a_whole_party_moves_the_sum_over_parties_and_nothing_else(
    tmp_path: Path, cut: Sums, monkeypatch: pytest.MonkeyPatch, adjacency: str,
    kept: dict[str, Any],
) -> None:  # fmt: skip
    """Around the last direction too, which was released and is the same on both sides."""
    base = changed(PARTIES, {"federated_learning.few_clients": True, "data.unit": None,
                             "data.drop": ["patient"],
                             "federated_learning.gather": {"kind": "plain"}} | kept)  # fmt: skip
    file = table(tmp_path)
    planned = _planned(tmp_path, base, "client", adjacency)
    first = ran(planned, tmp_path, "one")
    if adjacency == "replace_one":
        neighbour(file, "client", adjacency)
    else:
        monkeypatch.setattr(parties, "OnDemand", _Silent)
    other = ran(planned, tmp_path, "other")
    assert 0 < max(moved(cut)) <= _reach(adjacency)
    assert written(first) == written(other)


@pytest.mark.parametrize("noise", [{"kind": "banded", "bands": 2}, {"kind": "tree"}])
def test_a_whole_party_that_takes_turns_moves_the_sum_and_nothing_else(
    tmp_path: Path, cut: Sums, monkeypatch: pytest.MonkeyPatch, noise: dict[str, Any]
) -> None:
    """Under noise that is correlated over the rounds: DP-FTRL over parties."""
    base = changed(PARTIES, {"federated_learning.few_clients": True, "data.unit": None,
                             "data.drop": ["patient"], "federated_learning.cohort":
                             {"kind": "cyclic_poisson", "expected": 1, "cycle": 2}})  # fmt: skip
    table(tmp_path)
    planned = _planned(tmp_path, base, "client", "zero_out", noise)
    first = ran(planned, tmp_path, "one")
    monkeypatch.setattr(parties, "OnDemand", _Silent)
    other = ran(planned, tmp_path, "other")
    assert 0 < max(moved(cut)) <= _reach("zero_out")
    assert written(first) == written(other)


SHARES: dict[str, Any] = changed(
    CENTRAL,
    {
        "training": {"batch": 10, "checkpoint": 1, "optimizer": {"kind": "sgd", "lr": 0.2}},
        "ledger.grant": {"epsilon": 8, "delta": 1.0e-3, "rule": "rdp"},
        "federated_learning": {
            "parties": {"kind": "uniform", "names": list("abcde")},
            "rounds": 3,
            "few_clients": True,
            "gather": {"kind": "secure", "threshold": 4},
        },
    },
)
"""Parties that noise their secure sums themselves."""


@pytest.mark.parametrize("factor", [0.0, -1e6, math.nan])
@pytest.mark.parametrize("bits", [16, 32])
def test_a_whole_party_moves_a_sum_that_parties_noise_and_nothing_else(
    tmp_path: Path, cut: Sums, monkeypatch: pytest.MonkeyPatch, bits: int, factor: float
) -> None:
    """Before the noise, and exactly: rounding lengthens no change."""
    monkeypatch.setattr(
        NoiseShares, "drawn", lambda self, source: np.zeros(self.dimension, dtype=np.int64)
    )
    base = changed(SHARES, {"federated_learning.gather.bits": bits})
    noise = {"kind": "distributed_gaussian"}
    adjacency = "replace_one" if factor < 0 else "zero_out"
    privacy = {"unit": "client", "adjacency": adjacency, "epsilon": 8, "delta": 1.0e-3}
    planned = plan(recipe(tmp_path, base, differential_privacy=privacy | {"noise": noise}))
    first, real = ran(planned, tmp_path, "one"), Member._encoded

    def other_change(self: Member, change: Any, asked: Any) -> Any:
        if self.name == "b":
            change = {name: factor * value for name, value in change.items()}
        return real(self, change, asked)

    monkeypatch.setattr(Member, "_encoded", other_change)
    other = ran(planned, tmp_path, "other")
    assert 0 < max(moved(cut)) <= (2 if factor < 0 else 1) * (1 + 1e-6)
    found = [written(path) for path in (first, other)]
    for each in found:  # a demonstration says how long it took
        each["outcome.json"].pop("seconds")
    assert found[0] == found[1]


COUNTED: dict[str, Any] = changed(
    PARTIES,
    {
        "data.drop": ["patient"],
        "data.unit": None,
        "federated_learning.few_clients": True,
        "federated_learning.gather": {"kind": "plain"},
        "federated_learning.parties": {
            "kind": "column", "column": "hospital", "count": 2, "size": 24,
        },
    },
)  # fmt: skip
"""Parties that a column names: who they are is known once rows are read."""


@pytest.mark.parametrize(
    "kept", [{}, REMEMBERED, PERSONAL], ids=["nothing", "between rounds", "layers of its own"]
)
@pytest.mark.parametrize("name", ["../../state/north", "north/", "n" * 300, "north\0"])
def test_what_a_party_is_called_moves_nothing_else(
    tmp_path: Path, cut: Sums, name: str, kept: dict[str, Any]
) -> None:
    """A name is a value of a private row, and may be none that a folder can have."""
    file = table(tmp_path)
    planned = _planned(tmp_path, changed(COUNTED, kept), "client", "replace_one")
    first = ran(planned, tmp_path, "one")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    file.write_text(file.read_text().replace(",north,", f",{name},"))
    other = ran(planned, tmp_path, "other")
    assert max(moved(cut)) <= _reach("replace_one")
    assert written(first) == written(other)
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert all(path.is_relative_to(other) or path.name.startswith("privacy.db") for path in new)


@pytest.mark.parametrize("score", ["public", "private"])
def test_one_unit_moves_the_sums_and_counts_of_a_search_and_nothing_else(
    tmp_path: Path, cut: Sums, monkeypatch: pytest.MonkeyPatch, score: str
) -> None:
    from nacre.runs import tune as tuning

    counts: list[int] = []
    real = tuning._units_right  # pyright: ignore[reportPrivateUsage]

    def counted(*given: Any) -> int:
        counts.append(real(*given))
        return 0

    monkeypatch.setattr(tuning, "_units_right", counted)
    base = SEARCH if score == "public" else changed(SEARCH, {"tune.score": {"kind": "private"}})
    first, other = _both(tmp_path, base, "group", "add_or_remove")
    assert 0 < max(moved(cut)) <= _reach("add_or_remove")
    assert written(first) == written(other)
    half = len(counts) // 2
    assert (half > 0) == (score == "private")
    assert all(abs(a - b) <= 1 for a, b in zip(counts[:half], counts[half:], strict=True))


@pytest.mark.parametrize("cohort", ["held out", "public"])
def test_rows_that_are_not_trained_on_move_no_private_sum(
    tmp_path: Path, cut: Sums, cohort: str
) -> None:
    """Scaling is declared here: public rows that scale, or teach a base, move sums by right."""
    base = changed(
        WHOLE,
        {"data.holdout": {"share": 0.3}, "data.scaling": None, "fine_tuning": None},
    )
    file = table(tmp_path)
    planned = _planned(tmp_path, base, "group", "zero_out")
    runs = [ran(planned, tmp_path, "one")]
    kept_out = _held_out(planned.recipe, runs[0])
    file = file if cohort == "held out" else tmp_path / "public.csv"
    lines = file.read_text().splitlines(keepends=True)
    changes = kept_out if cohort == "held out" else {x.split(",")[0] for x in lines[1:]}
    file.write_text("".join(_other(x) if x.split(",")[0] in changes else x for x in lines))
    runs.append(ran(planned, tmp_path, "other"))
    assert max(moved(cut)) == 0
    first, other = map(written, runs)
    if cohort == "public":
        curves = [facts["outcome.json"].pop("curve") for facts in (first, other)]
        assert curves[0] != curves[1]
        for facts in (first, other):  # a checkpoint holds the curve as well
            for path in [path for path in facts if path.startswith("state/")]:
                facts.pop(path)
    assert first == other


def _held_out(own: Recipe, run: Path) -> set[str]:
    """The people that this run keeps out of its training."""
    key = (run / "local" / "holder.key").read_bytes()
    test = own.data.read(own.folder, own.seed, key).test
    assert test is not None and test.group
    return set(test.group)


def test_the_fixture_sees_what_goes_around_the_release(
    tmp_path: Path, cut: Sums, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The laws above can fail: a curve over private rows is seen, though the weights are equal."""
    real = loop.passed

    def passed(*given: Any) -> Any:
        setting, held, part = real(*given)
        return setting, replace(held, public=held.private[""]), part

    monkeypatch.setattr(loop, "passed", passed)
    first, other = _both(tmp_path, WHOLE, "group", "add_or_remove")
    one, two = written(first), written(other)
    assert one["model.safetensors"] == two["model.safetensors"]
    assert json.dumps(one["outcome.json"]) != json.dumps(two["outcome.json"])


PROTECTED: dict[str, Any] = changed(WHOLE, {"data.holdout": {"share": 0.3, "protected": True}})


@pytest.mark.parametrize(
    ("unit", "adjacency"),
    [("group", "add_or_remove"), ("example", "replace_one"), ("example", "zero_out")],
)
def test_one_unit_moves_a_protected_figure_by_a_vote_and_nothing_else(
    tmp_path: Path, cut: Sums, unit: str, adjacency: str
) -> None:
    """A unit that is held out moves the votes alone, and one that is trained on the steps' sums
    alone, since each sum is cut before it moves the weights. It is the last of its side: coins fall
    by place."""
    file = table(tmp_path)
    planned = _planned(tmp_path, PROTECTED, unit, adjacency)
    first = ran(planned, tmp_path, "one")
    one, found = cut.copy(), written(first)
    steps, draws = planned.rounds, planned.priced[0].mechanism.evaluation
    assert len(one) == steps + draws and [each.bound for each in one[steps:]] == [1.0] * draws
    kept_out = _held_out(planned.recipe, first)
    whole = file.read_text().splitlines(keepends=True)
    for held_out in (True, False):
        side = [line for line in whole[1:] if (line.split(",")[0] in kept_out) is held_out]
        last = max(line.split(",")[0] for line in side)
        ours = (
            [line for line in side if line.startswith(f"{last},")] if unit == "group" else side[-1:]
        )
        changes = {line: _other(line) if adjacency == "replace_one" else "" for line in ours}
        file.write_text("".join(changes.get(line, line) for line in whole))
        cut[:] = one
        second = ran(planned, tmp_path, f"other {held_out}")
        distances = moved(cut)
        training, votes = distances[:steps], distances[steps:]
        still, moving = (training, votes) if held_out else (votes, training)
        assert max(still) == 0 < max(moving) <= _reach(adjacency)
        assert found == written(second)
    assert found["evaluation.json"]["draws"] == draws

"""Neighbours through the other public doors: loops of one's own, the Trainer, and statistics.

What is true of recipes (`test_neighbours.py`) is true here: one unit moves what enters the noise by
its bound at most, and nothing else that is written or handed over.
"""

# pyright: reportArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import TensorDataset

from nacre.core.errors import UnsupportedEvent
from nacre.core.tensors import trainable
from nacre.core.types import Adjacency
from nacre.differential_privacy.options import Privacy
from nacre.differential_privacy.queries import (
    Choice,
    Contingency,
    Count,
    Histogram,
    Keys,
    Mean,
    Quantiles,
    QueryOption,
    Sum,
    Variance,
)
from nacre.integrations.sklearn import PrivateClassifier
from nacre.ledger import Ledger
from nacre.recipe.sections import GrantOption, LedgerChoice
from nacre.report.evidence import check_releases
from nacre.statistics import answers, noisy_numbers
from nacre.statistics.release import release
from tests.integrations.declared import linear, private, table
from tests.integrations.texts import bert, sentences, trainer
from tests.laws.conftest import Sums, moved, written

pytestmark = pytest.mark.slow

ONE_SIDED: list[Adjacency] = ["add_or_remove", "zero_out"]
"""What coins are priced for; under replace-one both adapters refuse."""


def _promised(adjacency: Adjacency) -> Privacy:
    return Privacy(epsilon=8, delta=1e-4, adjacency=adjacency)


@pytest.mark.parametrize("adjacency", ONE_SIDED)
def test_one_row_moves_a_sum_of_a_loop_of_ones_own_and_nothing_else(
    tmp_path: Path, cut: Sums, adjacency: Adjacency
) -> None:
    features, label = table().tensors
    handed: list[dict[str, torch.Tensor]] = []
    for name, count in (("one", len(label)), ("other", len(label) - 1)):
        place, model = tmp_path / name, linear()
        place.mkdir()
        rows = TensorDataset(features[:count], label[:count])
        with private(
            place, model, dataset=rows, batch=60, steps=6, folder=place / "run",
            privacy=_promised(adjacency),
        ) as run:  # fmt: skip
            list(run)
            run.save({"epsilon": run.epsilon()})
            run.finish()
        handed.append(dict(trainable(model)))
    assert 0 < max(moved(cut)) <= 1 + 1e-5
    assert written(tmp_path / "one" / "run") == written(tmp_path / "other" / "run")
    assert all(torch.equal(value, handed[1][name]) for name, value in handed[0].items())


def test_one_person_moves_a_sum_of_a_loop_of_ones_own_and_nothing_else(
    tmp_path: Path, cut: Sums
) -> None:
    """All rows of one person are in the one data set, none in the other."""
    features, label = table().tensors
    people = [f"p{place * 7 % 30:02}" for place in range(len(label))]
    handed: list[dict[str, torch.Tensor]] = []
    for name, last in (("one", "p29"), ("other", "p28")):
        place, model = tmp_path / name, linear()
        place.mkdir()
        kept = [row for row, person in enumerate(people) if person <= last]
        with private(
            place, model, dataset=TensorDataset(features[kept], label[kept]), batch=15, size=30,
            folder=place / "run", groups=[people[row] for row in kept], column="patient",
            privacy=Privacy(unit="group", rows_per_unit=3, epsilon=8, delta=1e-4),
        ) as run:  # fmt: skip
            list(run)
            run.save({"epsilon": run.epsilon()})
            run.finish()
        handed.append(dict(trainable(model)))
    assert 0 < max(moved(cut)) <= 1 + 1e-5
    assert written(tmp_path / "one" / "run") == written(tmp_path / "other" / "run")
    assert all(torch.equal(value, handed[1][name]) for name, value in handed[0].items())


def test_one_row_moves_a_sum_of_an_estimator_and_nothing_else(tmp_path: Path, cut: Sums) -> None:
    """What a fitted estimator holds and answers is the same, its ledger's place aside."""
    rows = np.random.default_rng(0).normal(size=(60, 3))
    told: list[Any] = []
    for name, count in (("one", 60), ("other", 59)):
        (tmp_path / name).mkdir()
        grant = GrantOption(epsilon=8, delta=1e-4)
        model = PrivateClassifier(
            bounds=(-2, 2), classes=(0, 1), epsilon=8, delta=1e-4, size=60, batch=30, steps=6,
            hidden=(), random_state=0,
            ledger=LedgerChoice(path=str(tmp_path / name / "p.db"), dataset="rows", grant=grant),
        ).fit(rows[:count], (rows.sum(1) > 0)[:count].astype(int))  # fmt: skip
        held = {key: value for key, value in vars(model).items() if key.endswith("_")}
        weights = held.pop("module_").state_dict()
        told.append((repr(sorted(held.items())), weights, model.predict_proba(rows)))
    assert 0 < max(moved(cut)) <= 1 + 1e-5
    assert told[0][0] == told[1][0] and np.array_equal(told[0][2], told[1][2])
    assert all(torch.equal(value, told[1][1][key]) for key, value in told[0][1].items())


@pytest.mark.filterwarnings("ignore:READ . rows")
@pytest.mark.parametrize("adjacency", ONE_SIDED)
def test_one_row_moves_a_sum_of_the_trainer_and_nothing_else(
    tmp_path: Path, cut: Sums, adjacency: Adjacency
) -> None:
    every, model = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1}, "bert"
    every |= {"per_device_train_batch_size": 55, "gradient_accumulation_steps": 2}
    rows = sentences(8)  # of the 120 that are declared
    told: list[Any] = []
    for name, own in (("one", rows), ("other", rows[:-1])):
        place = tmp_path / name
        place.mkdir()
        run = trainer(
            place, bert(dropout=0.0), train_dataset=own, arguments=every,
            privacy=_promised(adjacency), eval_dataset=rows[:4],
        )  # fmt: skip
        told.append((run.train().metrics, run.state.log_history))
        run.save_model(str(place / "out" / model))
    assert 0 < max(moved(cut)) <= 1 + 1e-5
    first, other = (_but_its_place(written(tmp_path / name / "out")) for name in ("one", "other"))
    assert first == other
    assert told[0] == told[1]
    assert [part["as_planned"] for part in check_releases(tmp_path / "one" / "out")] == [True]
    assert f"{model}/model.safetensors" in first


def _but_its_place(found: dict[str, Any]) -> dict[str, Any]:
    """Without the arguments, which name the folder; pickles of torch have no other difference."""
    kept = {n: facts for n, facts in found.items() if Path(n).name != "training_args.bin"}
    for name, facts in kept.items():
        if Path(name).name == "trainer_state.json":
            facts.pop("best_model_checkpoint", None)
    return kept


@pytest.mark.parametrize("door", ["loop", "trainer"])
def test_coins_have_no_price_under_replace_one(tmp_path: Path, door: str) -> None:
    with pytest.raises(UnsupportedEvent, match="replace_one has no price"):
        if door == "loop":
            private(tmp_path, privacy=_promised("replace_one"))
        else:
            trainer(tmp_path, privacy=_promised("replace_one")).train()
    assert not (tmp_path / "privacy.db").exists()


# -- statistics ----------------------------------------------------------------------------------

_RANGE: dict[str, Any] = {"column": "age", "low": 0.0, "high": 50.0}
_WARDS = ("east", "west")
QUERIES: dict[str, tuple[type[QueryOption], dict[str, Any]]] = {
    "count": (Count, {}),
    "count by ward": (Count, {"by": "ward", "groups": _WARDS}),
    "sum": (Sum, _RANGE),
    "mean": (Mean, _RANGE),
    "mean of a public number": (Mean, _RANGE | {"size": 20}),
    "variance": (Variance, _RANGE),
    "quantiles": (Quantiles, _RANGE | {"cells": 10}),
    "histogram": (Histogram, {"column": "age", "edges": (0.0, 20.0, 50.0)}),
    "categories": (Histogram, {"column": "ward", "categories": _WARDS}),
    "contingency": (Contingency, {"columns": {"ward": _WARDS}}),
    "keys": (Keys, {"column": "ward"}),
    "choice": (Choice, {"column": "ward", "categories": _WARDS}),
}
"""Every kind of query; those that OpenDP noises as sums and counts with both noises."""


def _visits() -> pd.DataFrame:
    """People with one to four visits; the last one's lie at the end of the range."""
    who = [f"p{number}" for number in range(8) for _ in range(1 + number % 3)]
    rows = [(name, 5.0 * (place % 9), _WARDS[place % 2]) for place, name in enumerate(who)]
    rows += [("last", 900.0, "east")] * 4
    return pd.DataFrame(rows, columns=["who", "age", "ward"])


class _Tapped:
    """What enters the noise of each statistic; what goes on is computed as if there were no row."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered: list[tuple[list[int], float]] = []  # with the scale of the noise
        drawn: list[list[int]] = []
        real = noisy_numbers.noisy_aggregate

        def emptied(measurement: Any, transformation: Any, rows: list[int]) -> Any:
            found = transformation(rows)
            drawn.append(found if isinstance(found, list) else [found])
            return transformation([])

        def counted(*given: Any) -> Any:
            found = real(*given)
            self.entered.append((drawn.pop(), found.scale))
            return found

        monkeypatch.setattr(noisy_numbers, "_drawn", emptied)
        monkeypatch.setattr(noisy_numbers, "noisy_aggregate", counted)
        monkeypatch.setattr(answers, "choose", self._choose)
        monkeypatch.setattr(answers, "shown_keys", self._shown)

    def _choose(
        self, scores: list[int], epsilon: float, *_: Any, sensitivity: int, **__: Any
    ) -> int:
        self.entered.append((scores, sensitivity / epsilon))
        return 0

    def _shown(self, keys: list[str], epsilon: float, _: float, rows: int) -> Any:
        self.entered.append(([keys.count(ward) for ward in _WARDS], rows / epsilon))
        return {"east": 1}, rows / epsilon, 1

    def cost(self, gaussian: bool) -> list[float]:
        """Of what entered first against what entered then: epsilon of each noised vector under
        Laplace noise, rho under Gaussian."""
        half = len(self.entered) // 2
        found: list[float] = []
        for (one, scale), (other, same) in zip(
            self.entered[:half], self.entered[half:], strict=True
        ):
            assert scale == same
            apart = [abs(a - b) / scale for a, b in zip(one, other, strict=True)]
            found.append(math.hypot(*apart) ** 2 / 2 if gaussian else math.fsum(apart))
        return found


@pytest.mark.parametrize("unit", [None, "who"])
@pytest.mark.parametrize(
    ("kind", "delta"),
    [(kind, delta) for kind in QUERIES for delta in (0.0, 1e-6) if delta or kind != "keys"],
)
def test_one_unit_moves_the_numbers_of_a_query_by_what_is_paid_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known_keys: None, kind: str, delta: float,
    unit: str | None,
) -> None:  # fmt: skip
    made, options = QUERIES[kind]
    most = {} if unit is None else {"unit": unit, "rows_per_unit": 2}
    query = made(**{"name": "asked", "epsilon": 1.0, "delta": delta, **options, **most})
    tapped = _Tapped(monkeypatch)
    whole = _visits()
    less = whole[:-1] if unit is None else whole[whole["who"] != "last"]
    answers: list[Any] = []
    for number, rows in enumerate((whole, less)):
        path = tmp_path / f"{number}.db"
        with Ledger.open(path, create=True) as ledger:
            kind_of = "example" if unit is None else "group"
            rule = "pld" if made is Keys else "rdp"
            ledger.grant("ward", kind_of, 8, 1e-5, rule, column=unit or "")
        answers.append(release(rows, [query], ledger=path, account="ward"))
    gaussian = delta > 0 and made not in (Keys, Choice)
    budget = noisy_numbers.rho(query.epsilon, delta) if gaussian else query.epsilon
    assert 0 < math.fsum(tapped.cost(gaussian)) <= budget * (1 + 1e-6)
    assert answers[0] == answers[1]  # what leaves is computed from what was noised


def test_a_release_is_charged_for_each_of_its_answers(tmp_path: Path) -> None:
    """The reserved event is that of all answers together, and each unit pays its own account."""
    queries = [Count(name="rows", epsilon=0.5), Sum(name="ages", epsilon=0.25, **_RANGE)]
    with Ledger.open(tmp_path / "privacy.db", create=True) as ledger:
        ledger.grant("ward", "example", 8, 1e-5, "pld")
        found = release(_visits(), queries, ledger=ledger, account="ward")
        (run,) = ledger.summary("ward").runs
        (grant,) = ledger.summary("ward").grants
    assert run.run.startswith(found.run) and (run.journalled, run.end) == (1, "settled")
    assert grant.epsilon_spent == pytest.approx(0.75, rel=1e-3)

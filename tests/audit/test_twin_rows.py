"""Public rows that play the part of the parties' are dealt to one use each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nacre.audit.federation.rows import TwinRows, rows_of_twins
from nacre.core.errors import DataError
from nacre.core.random import Source
from nacre.data.dataset import Rows
from nacre.data.partition import Uniform
from nacre.federated_learning import MeanAggregate, PlainGather
from nacre.planning.plan import plan
from nacre.recipe.audits import Poisoning
from nacre.runs.rows import read
from tests.audit.test_poisoning import TABLE
from tests.training.tiny import changed, patients, recipe

SOURCE = Source(bytes(32))
FREE = {"differential_privacy": None, "gradient_clipping": None, "ledger": None}
ROOTED = {"federated_learning.gather": {"kind": "plain", "aggregate": {"kind": "fltrust"}}}


def _chosen(folder: Path, public: int = 40, **changes: Any) -> TwinRows:
    patients(folder / "patients.csv")
    patients(folder / "public.csv", people=public, seed=5)
    chosen = recipe(folder, changed(TABLE, changes))
    return rows_of_twins(chosen, read(chosen, bytes(32)), Poisoning(bad=1), SOURCE)


def _said(rows: Rows) -> list[bytes]:
    return list(rows.in_bytes())


@pytest.mark.parametrize("rooted", [False, True])
def test_no_row_has_two_uses(tmp_path: Path, rooted: bool) -> None:
    found = _chosen(tmp_path, **(FREE | ROOTED if rooted else {}))
    assert found.public
    parts = [*found.held.private.values(), found.test]
    assert (found.held.public is not None) == rooted
    parts += [found.held.public] if found.held.public is not None else []
    public = read(found.recipe, bytes(32)).public
    assert public is not None
    whole = _said(public)
    assert sorted(row for rows in parts for row in _said(rows)) == sorted(whole)
    sizes = [len(rows) for rows in found.held.private.values()]
    assert max(sizes) - min(sizes) <= 1 and found.recipe.data.size == sum(sizes)
    assert len(found.test) == len(whole) // 5


def test_the_recipe_of_a_twin_trains_as_the_run_does(tmp_path: Path) -> None:
    found = _chosen(tmp_path, **{"training.batch": 40})
    federation = found.recipe.federated_learning
    assert federation is not None and federation.parties == Uniform(names=("north", "south"))
    assert federation.gather == PlainGather(aggregate=MeanAggregate()) and federation.rounds == 3
    assert found.recipe.audit == () and found.recipe.data.public_demonstration
    assert found.recipe.training.batch == min(map(len, found.held.private.values()))
    assert plan(found.recipe, ledger=False).private


def test_a_row_of_a_public_file_is_a_person_of_its_own(tmp_path: Path) -> None:
    groups = {"data.unit": "patient", "data.drop": None, "differential_privacy.unit": "group"}
    found = _chosen(tmp_path, **groups, **{"differential_privacy.rows_per_unit": 3})
    for rows in found.held.private.values():
        assert rows.group is not None and len(set(rows.group)) == len(rows)


def test_too_few_public_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="public rows are too few for 2 parties"):
        _chosen(tmp_path, public=1)


def test_which_rows_are_kept_apart_follows_from_the_key(tmp_path: Path) -> None:
    found = [_chosen(tmp_path) for _ in range(2)]
    assert torch.equal(found[0].test.features, found[1].test.features)

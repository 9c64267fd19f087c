"""Neighbours through the public door of recipes, where an adversary moves the rows: one unit taken
away or replaced moves a noiseless sum by its bound at most, and nothing else that a run or its
audit writes outside `local/`.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nacre.audit.run import audit_run
from nacre.runs.run import open_run
from tests.laws.conftest import Sums, moved, written
from tests.laws.test_neighbours import WHOLE, _planned, _reach, neighbour, ran, table
from tests.training.tiny import changed

pytestmark = pytest.mark.slow

PGD: dict[str, Any] = {"kind": "pgd", "ball": {"radius": 0.1}, "steps": 3}

ROWS_OF_A_TABLE: dict[str, Any] = {
    "kind": "table",
    "columns": {"age": {"reach": 9, "only": "increase"}, "dose": {"reach": 1}},
}
COPIES: dict[str, Any] = {"training.augment": {"kind": "copies", "count": 3, "noise": 0.1}}
PORTIONS: dict[str, Any] = {"execution.microbatch": 7, "training.average": {"decay": 0.5}}
GUARD: dict[str, Any] = {"rows": 8, "steps": 2}

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "worst of restarts": ("example", {"kind": "madry", "attack": PGD | {"restarts": 2}}, COPIES),
    "last point, guard, ramp": (
        "group",
        {
            "kind": "madry", "attack": PGD | {"keep": "last"}, "clean_share": 0.3,
            "guard": GUARD, "ramp": {"share": 0.9, "steps": 1},
        },
        PORTIONS,
    ),
    "trades in l2": (
        "group", {"kind": "trades", "attack": PGD | {"ball": {"kind": "l2", "radius": 0.3}}}, COPIES
    ),
    "mart in l1": (
        "example", {"kind": "mart", "attack": PGD | {"ball": {"kind": "l1", "radius": 0.3}}},
        PORTIONS,
    ),
    "fast": ("example", {"kind": "fast", "ball": {"radius": 0.1}, "guard": GUARD}, PORTIONS),
    "rows of a table": (
        "group", {"kind": "madry", "attack": PGD | {"ball": ROWS_OF_A_TABLE}}, {}
    ),
}  # fmt: skip
"""The unit, the objective, and what else a step does with its rows."""


@pytest.mark.parametrize("case", CASES)
def test_an_attacked_unit_moves_a_sum_by_its_bound_and_nothing_else(
    tmp_path: Path, cut: Sums, case: str
) -> None:
    unit, objective, beside = CASES[case]
    base = changed(WHOLE, {"adversarial_training": objective, "training.steps": 3} | beside)
    file = table(tmp_path)
    planned = _planned(tmp_path, base, unit, "add_or_remove")
    first = ran(planned, tmp_path, "one")
    neighbour(file, unit, "add_or_remove")
    other = ran(planned, tmp_path, "other")
    assert 0 < max(moved(cut)) <= _reach("add_or_remove")
    assert written(first) == written(other)


def test_an_audit_of_private_rows_writes_nothing_of_them_outside_local(
    tmp_path: Path, cut: Sums
) -> None:
    """The held-out rows are private: neighbours differ in `local/` alone, by what is found there
    too. The row that is taken away is a held-out one of these tables or trained on."""
    audits = [
        {"kind": "evasion", "effort": "quick", "ball": {"radius": 0.2}},
        {"kind": "certificate", "method": {"kind": "ibp"}, "ball": {"radius": 0.05}},
        {"kind": "membership"},
    ]
    base = changed(WHOLE, {"data.holdout": {"share": 0.2}, "audit": audits, "training.steps": 3})
    file = table(tmp_path)
    planned = _planned(tmp_path, base, "example", "add_or_remove")
    found: list[dict[str, Any]] = []
    for name in ("one", "other"):
        run = ran(planned, tmp_path, name)
        audit_run(open_run(run))
        assert (run / "local" / "findings.json").exists()
        found.append(written(run))
        neighbour(file, "example", "add_or_remove")
    assert found[0] == found[1]

"""Neighbours through the public door of recipes, where an adversary moves the rows: one unit taken
away or replaced moves a noiseless sum by its bound at most, and nothing else that a run or its
audit writes outside `local/`.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportPrivateUsage=false
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from nacre.audit.run import audit_run
from nacre.runs.run import open_run
from tests.data.tokenizer_folders import encoder
from tests.laws.conftest import Sums, moved, written
from tests.laws.test_neighbours import PARTIES, WHOLE, _planned, _reach, neighbour, ran, table
from tests.models.transformer_folders import folder_of
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


FEDERATED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "rows of a party": ("example", "replace_one", {"kind": "madry", "attack": PGD}),
    "persons of a party": (
        "group", "add_or_remove", {"kind": "madry", "attack": PGD | {"early_stop": 0}}
    ),
    "trades": ("group", "replace_one", {"kind": "trades", "attack": PGD}),
}  # fmt: skip


@pytest.mark.parametrize("case", FEDERATED)
def test_an_attacked_unit_of_a_party_moves_its_sum_by_its_bound(
    tmp_path: Path, cut: Sums, case: str
) -> None:
    unit, adjacency, objective = FEDERATED[case]
    base = changed(PARTIES, {"adversarial_training": objective, "federated_learning.rounds": 2})
    file = table(tmp_path)
    planned = _planned(tmp_path, base, unit, adjacency)
    first = ran(planned, tmp_path, "one")
    neighbour(file, unit, adjacency)
    other = ran(planned, tmp_path, "other")
    assert 0 < max(moved(cut)) <= _reach(adjacency)
    assert written(first) == written(other)


TEXTS: dict[str, Any] = changed(
    WHOLE,
    {
        "data": {
            "kind": "text", "path": "reviews.jsonl", "text": "text", "label": "label",
            "classes": ["bad", "good"], "length": 24, "size": 40,
        },
        "model": {"kind": "pretrained", "name": "bert"},
        "fine_tuning": {"kind": "lora", "rank": 2},
        "training": {"steps": 2, "batch": 39, "checkpoint": 1},
    },
)  # fmt: skip


def _reviews(folder: Path) -> Path:
    """Reviews, one of them three times as long as the others: it stands alone at its width."""
    draws, file = random.Random(0), folder / "reviews.jsonl"
    with file.open("w") as handle:
        for number in range(40):
            label, words = draws.choice(["good", "bad"]), draws.choices("abc", k=4 + number % 4)
            words = words if number != 39 else draws.choices("abc", k=20)
            handle.write(json.dumps({"text": " ".join(["film", *words]), "label": label}) + "\n")
    return file


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("kind", ["freelb", "embedding_pgd"])
@pytest.mark.parametrize("adjacency", ["add_or_remove", "replace_one"])
def test_a_text_whose_words_are_moved_moves_a_sum_by_its_bound(
    tmp_path: Path, cut: Sums, kind: str, adjacency: str
) -> None:
    """Dropout is on; the last and longest text goes, or a short one with the other label comes."""
    encoder(folder_of("Bert", tmp_path))
    objective = {"kind": kind, "steps": 2, "threat": {"radius": 0.3}}
    file = _reviews(tmp_path)
    planned = _planned(
        tmp_path, changed(TEXTS, {"adversarial_training": objective}), "example", adjacency
    )
    first = ran(planned, tmp_path, "one")
    lines = file.read_text().splitlines(keepends=True)
    other = json.dumps({"text": "c", "label": "bad"}) + "\n"
    lines[-1] = other if adjacency == "replace_one" else ""
    file.write_text("".join(lines))
    second = ran(planned, tmp_path, "other")
    assert 0 < max(moved(cut)) <= _reach(adjacency)
    assert written(first) == written(second)

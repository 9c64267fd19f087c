"""The evasion audit under a threat to a table."""

import pytest
import torch
from torch import nn

from nacre.adversarial_training import ColumnMove, LinearRelation, TableThreat
from nacre.audit.model_security.evasion import evasion
from nacre.audit.target import Target
from nacre.core.random import Source
from nacre.core.types import FeatureSpace
from nacre.models.tasks import Classification
from nacre.recipe.audits import Evasion

SPACE = FeatureSpace(
    (3,), names=("debt", "late", "age"),
    scale=torch.tensor([1000.0, 1.0, 10.0]), offset=torch.tensor([2000.0, 3.0, 40.0]),
)  # fmt: skip
THREAT = TableThreat(
    columns={
        "debt": ColumnMove(reach=1000, only="decrease", cost=1),
        "late": ColumnMove(reach=2, integer=True, low=0, cost=500),
    },
    relations=(LinearRelation(terms={"late": 1000, "debt": -1}, at_most=0),),
    budget=1200,
)


def _target(model):
    torch.manual_seed(0)
    raw = torch.stack(
        [torch.rand(80) * 8000 + 1000, torch.randint(0, 5, (80,)), torch.full((80,), 40.0)], 1
    )
    x = (raw - SPACE.offset) / SPACE.scale
    batch = {
        "features": x,
        "label": model(x).argmax(1),
        "unit": torch.arange(80),
        "present": torch.ones(80, dtype=torch.bool),
    }
    return Target(
        model=model, task=Classification(2), space=SPACE, source=Source(bytes(32)), test=batch,
        test_public=True, classes=("good", "bad"),
    ), raw  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_rows_are_attacked_within_what_is_declared_and_shown_in_their_own_units():
    model = nn.Linear(3, 2)
    with torch.no_grad():  # bad where debt is above 4,000
        model.weight[:] = torch.tensor([[0.0, 0, 0], [1, 0, 0]])
        model.bias[:] = torch.tensor([0.0, -2])
    target, raw = _target(model)
    finding = evasion(target, Evasion(ball=THREAT, effort="quick"))
    broken = (raw[:, 0] > 4000) & (raw[:, 0] <= 5000)
    # A debt only falls, by 1,000 at most, and not below 1,000 a month of arrears.
    held = (raw[:, 1] * 1000 - 2000 > 4000) & broken
    assert not held.any()
    stays = (raw[:, 1] >= 4) & broken  # where months cannot fall by enough within the budget
    expected = 1 - (broken & ~stays).sum() / 80
    assert abs(finding.value - float(expected)) <= float(stays.sum()) / 80 + 1e-6
    assert finding.details["ball"] == {"kind": "table", "radius": 1.0, "unit": "threat"}
    own = int((raw[:, 1] * 1000 > raw[:, 0]).sum())
    notes = finding.details["notes"]
    assert own and any(note.startswith(f"{own} of 80 clean rows") for note in notes)
    assert not any(note.startswith("most clean rows") for note in notes)
    assert finding.details["rows"]
    for row in finding.details["rows"]:
        change = row["changes"][0]
        assert change["feature"] in ("debt", "late")
        assert {c["feature"] for c in row["changes"]} <= {"debt", "late"}
    values = [point["value"] for point in finding.details["curve"]]
    assert values == sorted(values, reverse=True)


@pytest.mark.filterwarnings("ignore")
def test_a_relation_that_most_rows_break_is_warned_of():
    target, raw = _target(nn.Linear(3, 2))
    turned = LinearRelation(terms={"late": 1000, "debt": -1}, at_least=0)
    threat = TableThreat(columns={"debt": ColumnMove(reach=1000)}, relations=(turned,))
    notes = evasion(target, Evasion(ball=threat, effort="quick")).details["notes"]
    own = int((raw[:, 1] * 1000 < raw[:, 0]).sum())
    assert own > 40 and any(note.startswith(f"{own} of 80 clean rows") for note in notes)
    assert any(note.startswith("most clean rows break a declared relation") for note in notes)

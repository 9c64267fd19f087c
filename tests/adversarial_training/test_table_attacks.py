"""Attacks on rows of a table against the list of all legal rows, and training against them."""

import itertools

import pytest
import torch
from torch import nn

from nacre.adversarial_training import (
    FGSM,
    PGD,
    ColumnMove,
    LinearRelation,
    Madry,
    TableThreat,
    Trades,
)
from nacre.adversarial_training.evaluation.access import LabelOnly, ScoreOnly, Scorer, WhiteBox
from nacre.adversarial_training.evaluation.cascade import Cascade
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.evaluation.stages.column_search import ColumnSearch
from nacre.adversarial_training.evaluation.stages.constrained import ConstrainedAPGD
from nacre.adversarial_training.evaluation.untouched import untouched
from nacre.core.random import Source
from nacre.data.columns.column import Column
from nacre.data.dataset import Rows, Schema
from nacre.data.scaling import DeclaredScaling, fit_scaling
from nacre.models.tasks import Classification

SCHEMA = Schema(
    (6,),
    (
        Column("a", "number", 0, 4),
        Column("b", "number", 0, 4),
        Column("c", "number", 0, 1),
        Column("kind", "category", categories=("x", "y", "z")),
    ),
    "classification",
    ("n", "y"),
)
THREAT = TableThreat(
    columns={
        "a": ColumnMove(integer=True, cost=1),
        "b": ColumnMove(integer=True, only="increase", cost=2),
        "kind": ColumnMove(cost=3),
    },
    relations=(LinearRelation(terms={"a": 1, "b": 1}, at_most=5),),
    budget=5,
)
SCALER = fit_scaling(DeclaredScaling(), SCHEMA, None)
SPACE = SCALER.space(SCHEMA)
REGION = THREAT.region(SPACE)
SOURCE = Source(bytes(32))


def _clean(count):
    torch.manual_seed(4)
    raw = torch.zeros(count, 6)
    raw[:, 0], raw[:, 1] = torch.randint(0, 5, (count,)), torch.randint(0, 3, (count,))
    raw[:, 2] = torch.rand(count)
    raw[torch.arange(count), 3 + torch.randint(0, 3, (count,))] = 1
    return raw, SCALER.apply(Rows(raw, torch.zeros(count), torch.arange(count))).features


def _model(dtype=torch.float32):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 2))
    for weight in model[0].parameters():
        weight.data *= 3  # so that most rows can be broken
    return model.to(dtype)


def _legal_rows(row):
    """Every row that the declarations allow, by going through all there are."""
    for a, b, kind in itertools.product(range(5), range(5), range(3)):
        own = int(row[3:].argmax())
        cost = abs(a - int(row[0])) + 2 * abs(b - int(row[1])) + 3 * (kind != own)
        excess = max(5, int(row[0] + row[1]))
        if b >= row[1] and cost <= 5 and a + b <= excess:
            other = row.clone()
            other[0], other[1] = a, b
            other[3:] = torch.eye(3)[kind]
            yield other


def _breakable(model, raw, label):
    result = []
    for row, own in zip(raw, label, strict=True):
        every = torch.stack(list(_legal_rows(row)))
        x = SCALER.apply(Rows(every, torch.zeros(len(every)), torch.arange(len(every)))).features
        result.append(bool((model(x).argmax(1) != own).any()))
    return torch.tensor(result)


def test_the_region_is_the_list_of_legal_rows():
    raw, clean = _clean(12)
    grid = [
        torch.tensor([a, b, 0.0, *torch.eye(3)[kind].tolist()])
        for a, b, kind in itertools.product(range(5), range(5), range(3))
    ]
    for row, centre in zip(raw, clean, strict=True):
        every = torch.stack(grid)
        every[:, 2] = row[2]
        x = SCALER.apply(Rows(every, torch.zeros(75), torch.arange(75))).features
        inside = REGION.contains(x, centre.expand(75, -1))
        legal = {tuple(other.tolist()) for other in _legal_rows(row)}
        assert legal == {tuple(other.tolist()) for other in every[inside]}


def test_a_cascade_breaks_what_can_be_broken_and_nothing_else():
    model = _model()
    raw, clean = _clean(150)
    with torch.no_grad():
        label = model(clean).argmax(1)
        truth = _breakable(model, raw, label)
    rows = Inputs(torch.arange(150), torch.arange(150), clean, label)
    gradient, search = ConstrainedAPGD(steps=30), ColumnSearch(queries=300)
    broken = {}
    for name, stages in {"g": (gradient,), "s": (search,), "both": (gradient, search)}.items():
        with untouched(model):
            found = Cascade(stages)(Scorer(model), REGION, rows, SOURCE)
        broken[name] = found.by >= 0
        assert not (broken[name] & ~truth).any()
        assert REGION.contains(found.points, clean).all()
    assert 20 < truth.sum() < 140
    assert broken["g"].sum() >= 0.7 * truth.sum()
    assert broken["s"].sum() >= 0.95 * truth.sum()
    assert broken["both"].sum() >= 0.97 * truth.sum()


@pytest.mark.parametrize("stage", [ConstrainedAPGD(steps=10), ColumnSearch(queries=40)])
def test_width_and_neighbours_change_nothing(stage):
    model = _model(dtype=torch.float64)
    _, clean = _clean(30)
    clean = clean.double()
    label = model(clean).argmax(1)
    rows = Inputs(torch.arange(30), torch.arange(30), clean, label)

    def run(rows, width):
        with untouched(model):
            return Cascade((stage,), width)(Scorer(model), REGION, rows, SOURCE).points

    whole = run(rows, 30)
    assert torch.equal(run(rows, 4), whole)
    assert torch.equal(run(rows.take(torch.arange(1)), 30), whole[:1])


def test_a_search_sees_scores_and_no_gradient():
    assert ColumnSearch.access is ScoreOnly
    assert not issubclass(LabelOnly, ScoreOnly)
    assert ConstrainedAPGD.access is WhiteBox


OBJECTIVES = [
    Madry(attack=PGD(ball=THREAT, steps=4)),
    Madry(attack=FGSM(ball=THREAT), clean_share=0.5),
    Trades(attack=PGD(ball=THREAT, steps=4), beta=2),
]


@pytest.mark.parametrize("option", OBJECTIVES, ids=lambda option: f"{option.kind}")
def test_a_row_is_moved_by_itself_and_the_weights_alone(option):
    """The proof obligation of training under differential privacy: another row in the batch
    changes no row's perturbation."""
    model, task = _model(dtype=torch.float64), Classification(2)
    _, clean = _clean(20)
    batch = {
        "features": clean.double(),
        "label": torch.arange(20) % 2,
        "unit": torch.arange(20),
        "present": torch.ones(20, dtype=torch.bool),
    }
    objective = option.build(task, SPACE)
    moved = objective.perturb(model, batch, SOURCE)["adversarial"]
    assert REGION.contains(moved, batch["features"]).all()
    assert (moved != batch["features"]).any()
    other = {**batch, "features": batch["features"].clone()}
    other["features"][7] = other["features"][3]
    again = objective.perturb(model, other, SOURCE)["adversarial"]
    kept = torch.arange(20) != 7
    assert torch.equal(again[kept], moved[kept])


def test_training_against_a_threat_leaves_fewer_rows_to_break():
    raw, clean = _clean(200)
    label = (raw[:, 0] + raw[:, 2] * 4 > 4).long()
    task = Classification(2)
    batch = {
        "features": clean,
        "label": label,
        "unit": torch.arange(200),
        "present": torch.ones(200, dtype=torch.bool),
    }
    standing = {}
    for name, option in {"plain": None, "madry": Madry(attack=PGD(ball=THREAT, steps=4))}.items():
        model = _model()
        optimizer = torch.optim.Adam(model.parameters(), 0.02)
        objective = None if option is None else option.build(task, SPACE)
        for step in range(80):
            if objective is None:
                losses = task.losses(model, batch)
            else:
                moved = objective.perturb(model, batch, SOURCE.child(step))
                losses = objective.losses(model, moved)
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
        rows = Inputs(torch.arange(200), torch.arange(200), clean, label)
        with untouched(model):
            found = Cascade((ConstrainedAPGD(steps=20), ColumnSearch(queries=60)))(
                Scorer(model), REGION, rows, SOURCE
            )
        standing[name] = found.accuracy
    assert standing["madry"] > standing["plain"] + 0.1

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from nacre.adversarial_training import Ball
from nacre.adversarial_training.evaluation.access import LabelOnly, Scorer
from nacre.adversarial_training.evaluation.cascade import Cascade, Series
from nacre.adversarial_training.evaluation.efforts import cascade, table_cascade
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.evaluation.stage import Tried
from nacre.adversarial_training.evaluation.stages import square
from nacre.adversarial_training.evaluation.stages.auto_pgd import AutoPGD
from nacre.adversarial_training.evaluation.stages.square import Square
from nacre.adversarial_training.evaluation.survivors import hunt
from nacre.core.random import Source
from nacre.core.types import FeatureSpace


def _stages(*arguments):
    """Names of all stages, those of a series included."""
    entries = cascade(*arguments).stages
    flat = [s for e in entries for s in (e.stages if isinstance(e, Series) else (e,))]
    return [stage.name for stage in flat]


def _targets(names):
    return [name for name in names if "towards" in name]


@pytest.mark.parametrize(("classes", "targets"), [(2, 1), (3, 2), (10, 9), (100, 9)])
def test_full_climbs_towards_each_wrong_class_and_at_most_nine(classes, targets):
    assert len(_targets(_stages("full", classes))) == targets


@pytest.mark.parametrize("effort", ["quick", "standard", "full"])
def test_an_aimed_cascade_climbs_towards_no_other_class(effort):
    names = _stages(effort, 10, 3)
    assert names
    assert not _targets(names)


def test_each_effort_breaks_what_the_smaller_one_breaks_and_costs_more():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))
    clean = torch.rand(60, 6) * 2 - 1
    with torch.no_grad():
        rows = Inputs(torch.arange(60), torch.arange(60), clean, model(clean).argmax(1))
    region = Ball(radius=0.15).region(FeatureSpace((6,)))
    accuracies, backwards = [], []
    for effort in ("quick", "standard", "full"):
        scorer = Scorer(model)
        found = cascade(effort, 4)(scorer, region, rows, Source(bytes(32)))
        accuracies.append(found.accuracy)
        backwards.append(scorer.queries.backwards)
    assert 0 < accuracies[2] <= accuracies[1] <= accuracies[0] < 1
    assert backwards[0] < backwards[1] < backwards[2]


def _climbing(to_reach):
    """Two classes whose margin at x is x less what each row has to reach; its own class is 0."""

    def scores(x):
        return torch.cat([torch.zeros(len(x), 1), x - to_reach], 1)

    return scores


def _one_row_found(stage, to_reach):
    rows = Inputs(
        torch.zeros(1).long(), torch.zeros(1).long(), torch.zeros(1, 1), torch.zeros(1).long()
    )
    scorer = Scorer(_climbing(to_reach))
    region = Ball(radius=1.0).region(FeatureSpace((1,)))
    found = Cascade((stage,))(scorer, region, rows, Source(bytes(32)))
    return found, scorer.queries


@pytest.mark.parametrize(
    ("to_reach", "steps"), [(10.0, 6), (5.0, 11), (2.5, 16), (1.9, 26), (1.2, 56), (1.03, 101)]
)
def test_a_row_of_which_too_much_is_missing_after_a_twentieth_of_the_steps_has_ended(
    to_reach, steps
):
    # The edge of the ball is 1: four fifths of 5 are missing, where 5 steps may leave 0.84, 10 may
    # leave 0.71, 15 0.59, 20 a half, 25 0.42, 50 0.18 and 55 0.15.
    _, spent = _one_row_found(AutoPGD(way=0.5), to_reach)
    assert spent.backwards == steps
    _, spent = _one_row_found(AutoPGD(), to_reach)
    assert spent.backwards == 101


@pytest.mark.parametrize(
    ("to_reach", "queries"), [(3.0, 150), (1.8, 250), (1.52, 300), (1.04, 1500)]
)
def test_square_ends_a_row_of_which_too_much_is_missing(monkeypatch, to_reach, queries):
    # The corners are all there is. 0.69 may be missing after 100 queries, 0.58 after 150, 0.48
    # after 200, 0.4 after 250, 0.33 after 300, 0.067 after 1500; 4 of 104 are missing of 1.04.
    monkeypatch.setattr(square, "AHEAD", 1)
    _, spent = _one_row_found(Square(queries=1500, way=0.6), to_reach)
    # The clean row is scored once here, and once by the caller.
    assert spent.forwards == queries + 2
    _, spent = _one_row_found(Square(queries=300), to_reach)
    assert spent.forwards == 300 + 1


@pytest.mark.parametrize(("missing", "queries"), [(99, 1300 + 1), (101, 250)])
def test_square_waits_for_a_row_whose_missing_share_halves(monkeypatch, missing, queries):
    monkeypatch.setattr(square, "AHEAD", 1)

    def predict(x):
        # Two fifths of the way may be missing after query 250, a fifth after query 500; the 1300th
        # crosses.
        predict.asked += 1
        queries = predict.asked - 1  # after that for the clean row
        margin = -1.0 if not queries else 1.0 if queries == 1300 else -missing / max(250, queries)
        return torch.tensor([[0.0, margin]]).expand(len(x), 2)

    predict.asked = 0
    rows = Inputs(
        torch.zeros(1).long(), torch.zeros(1).long(), torch.zeros(1, 1), torch.zeros(1).long()
    )
    region = Ball(radius=1.0).region(FeatureSpace((1,)))
    hunted = hunt(
        Square(queries=1500, way=0.6), Scorer(predict), region, rows, Source(bytes(32)), 1
    )
    assert predict.asked == 1 + queries
    assert len(hunted.place) == 0  # asked once more, a row that crossed stands


@dataclass(frozen=True)
class CameTo:
    """Breaks nothing, and says which margins it has come to."""

    margins: tuple[float, ...]
    access = LabelOnly
    name = "came to"

    def begin(self, target, region, rows, source):
        return {}

    def advance(self, target, region, rows, state, source):
        never = torch.zeros(len(rows), dtype=torch.bool)
        best = torch.tensor(self.margins)[rows.place]
        return Tried(rows.clean, never, state, ~never, best=best)


@pytest.mark.parametrize(
    ("stage", "whole", "least"),
    [
        (AutoPGD(way=0.1, behind=0.25), 101, 6),
        (AutoPGD(steps=40, way=0.1, behind=0.25), 41, 7),  # looked at each second step, from 6 on
    ],
    ids=["climb", "short climb"],
)
@pytest.mark.parametrize(
    ("came_to", "ends"),
    [(-0.65, False), (-0.55, True), (-0.41, True), (-0.39, False), (-0.1, False)],
)
def test_a_row_ends_where_it_is_behind_attacks_that_left_much_missing(
    stage, whole, least, came_to, ends
):
    """The edge gives -0.6, of -1.6 at the clean row: a quarter of the way is 0.4."""
    rows = Inputs(
        torch.zeros(1).long(), torch.zeros(1).long(), torch.zeros(1, 1), torch.zeros(1).long()
    )
    region = Ball(radius=1.0).region(FeatureSpace((1,)))
    scorer = Scorer(_climbing(1.6))
    found = Cascade((CameTo((came_to,)), stage))(scorer, region, rows, Source(bytes(32)))
    assert found.stages[1].backwards == (least if ends else whole)
    assert float(found.reached) == pytest.approx(max(came_to, -0.6))
    without = Cascade((CameTo((came_to,)), replace(stage, behind=None)))
    found = without(scorer, region, rows, Source(bytes(32)))
    assert found.stages[1].backwards == whole


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("stage", [AutoPGD(way=0.9, behind=0.01), Square(queries=600, way=0.9)])
def test_no_rule_ends_a_row_in_other_balls(monkeypatch, norm, stage):
    """They were chosen in Linf, and lose one row in twenty in an L2 ball."""
    monkeypatch.setattr(square, "AHEAD", 1)
    rows = Inputs(
        torch.zeros(1).long(), torch.zeros(1).long(), torch.zeros(1, 1), torch.zeros(1).long()
    )
    region = Ball(kind=norm, radius=1.0).region(FeatureSpace((1,)))
    stages = (CameTo((-0.5,)), stage)
    found = Cascade(stages)(Scorer(_climbing(10.0)), region, rows, Source(bytes(32)))
    assert found.stages[1].backwards in (0, 101)
    assert found.stages[1].backwards or found.stages[1].forwards == 601


def test_each_row_is_compared_with_what_was_reached_of_it():
    """Rows come and go: of 40 rows, six at a time, every third was nearly broken before."""
    count = 40
    near = torch.arange(count) % 3 == 0
    came_to = tuple(torch.where(near, -0.1, -0.5).tolist())
    rows = Inputs(
        torch.arange(count), torch.arange(count), torch.zeros(count, 1), torch.zeros(count).long()
    )
    region = Ball(radius=1.0).region(FeatureSpace((1,)))
    stages = (CameTo(came_to), AutoPGD(way=0.1, behind=0.25))
    found = Cascade(stages, 6)(Scorer(_climbing(1.6)), region, rows, Source(bytes(32)))
    assert found.reached.tolist() == pytest.approx(came_to)
    assert found.stages[1].backwards == int(near.sum()) * 101 + int((~near).sum()) * 6


def test_what_a_cascade_has_reached_lies_between_the_clean_margin_and_the_boundary():
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))
    clean = torch.rand(60, 6) * 2 - 1
    with torch.no_grad():
        scores = model(clean)
    rows = Inputs(torch.arange(60), torch.arange(60), clean, scores.argmax(1))
    region = Ball(radius=0.1).region(FeatureSpace((6,)))
    found = cascade("full", 4)(Scorer(model), region, rows, Source(bytes(32)))
    reached, margins = found.reached[found.standing], found.margins[found.standing]
    assert len(reached) and (reached >= margins).all() and (reached <= 0).all()
    assert (reached > margins).float().mean() > 0.9


@dataclass(frozen=True)
class Moves:
    """Moves one row, or none, to where it is broken; all others stay."""

    row: int = -1
    access = LabelOnly
    name = "moves"

    def begin(self, target, region, rows, source):
        return {}

    def advance(self, target, region, rows, state, source):
        points = rows.clean + (rows.place == self.row)[:, None]
        broken = rows.place == self.row
        return Tried(points, broken, state, torch.ones_like(broken))


@pytest.mark.parametrize(("radius", "broke"), [(0.4, False), (0.6, True)])
def test_a_stage_that_leaves_the_region_is_not_believed(radius, broke):
    """It moves a row by 1, which crosses the boundary at 0.5, and calls it broken."""
    rows = Inputs(torch.arange(3), torch.arange(3), torch.zeros(3, 1), torch.zeros(3).long())
    region = Ball(radius=radius).region(FeatureSpace((1,)))
    found = Cascade((Moves(row=1),))(Scorer(_climbing(0.5)), region, rows, Source(bytes(32)))
    assert (found.by >= 0).tolist() == [False, broke, False]
    assert found.unconfirmed == (not broke)
    assert region.contains(found.points, rows.clean).all()


def _tried(series, count=10):
    rows = Inputs(
        torch.arange(count), torch.arange(count), torch.zeros(count, 1), torch.zeros(count).long()
    )
    region = Ball(radius=1.0).region(FeatureSpace((1,)))
    found = Cascade((series,))(Scorer(_climbing(0.5)), region, rows, Source(bytes(32)))
    return [(stage.tried, stage.broke) for stage in found.stages]


@pytest.mark.parametrize(("patience", "stages"), [(None, 6), (31, 4), (30, 3), (1, 1)])
def test_a_series_ends_once_enough_rows_in_a_row_were_tried_in_vain(patience, stages):
    assert _tried(Series([Moves()] * 6, patience)) == [(10, 0)] * stages


def test_a_series_that_breaks_a_row_begins_to_count_anew():
    vain = [Moves()]
    expected = [(10, 0), (10, 0), (10, 1), (9, 0), (9, 0), (9, 0)]
    assert _tried(Series([*vain * 2, Moves(4), *vain * 9], 25)) == expected


def test_a_series_ends_when_nothing_stands():
    assert _tried(Series([Moves(0), Moves()]), 1) == [(1, 1)]


def test_a_climb_towards_a_rank_says_so_and_one_towards_the_class_asked_for_does_not():
    """A rank is the class of a number in no table: it is another class from row to row."""
    assert _targets(_stages("full", 4)) == [
        "APGD-DLR towards the likeliest wrong class",
        "APGD-DLR towards the 2nd likeliest wrong class",
        "APGD-DLR towards the 3rd likeliest wrong class",
    ]
    assert "APGD-DLR" in _stages("full", 4, 1) and not _targets(_stages("full", 4, 1))
    ranks = {11: "11th", 21: "21st", 22: "22nd", 112: "112th"}
    for rank, said in ranks.items():
        assert AutoPGD(rank=rank).name == f"APGD-CE towards the {said} likeliest wrong class"


def test_steps_and_starts_take_the_place_of_the_efforts():
    """As many climbs away from the right class as starts are asked for, on each of both losses."""
    climbs = [
        stage
        for stage in cascade("quick", classes=2, steps=7, restarts=2).stages
        if isinstance(stage, AutoPGD)
    ]
    names = [stage.name for stage in climbs]
    assert names[:4] == ["APGD-PMA", "APGD-CE", "APGD-PMA, start 1", "APGD-CE, start 1"]
    assert {stage.steps for stage in climbs} == {7}
    rows = table_cascade("standard", steps=3, restarts=0).stages
    assert [stage.name for stage in rows] == ["constrained APGD", "column search, 300 queries"]

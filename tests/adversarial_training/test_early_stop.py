"""Climbs that end where a row is answered wrongly, beside the algorithm taken row by row."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nacre.adversarial_training import PGD, Ball, Madry, Mart, Trades
from nacre.adversarial_training.attacks.ascent import slopes
from nacre.adversarial_training.attacks.judged import JudgedDivergences, JudgedLosses
from nacre.adversarial_training.objectives import without_stopped_rows
from nacre.core import rows
from nacre.core.errors import Incompatible
from nacre.core.random import Source
from nacre.core.types import FeatureSpace
from nacre.recipe.load import loads
from nacre.training import pieces
from tests.laws.zoo import MLP, snapshot
from tests.training.tiny import CENTRAL, changed, text

SOURCE = Source(bytes(32))
SPACE = FeatureSpace((6,))
BALL = Ball(radius=0.4)
FRIENDLY = PGD(ball=BALL, steps=6, keep="last", early_stop=1)
LOSSES = JudgedLosses(MLP.task)


def _right(model, features, label):
    with torch.no_grad():
        return MLP.task.correct(model(features), label)


def _by_the_paper(option, model, batch, losses):
    """Algorithm 1 of Zhang et al. 2020, a row at a time, and the points that each row was at."""
    region, ends, ways = option.ball.region(SPACE), [], []
    step = option.step_size or 2.5 / option.steps
    for i in range(len(batch["unit"])):
        one = rows.select(batch, slice(i, i + 1))
        clean, tau = one["features"], option.early_stop
        stream = SOURCE.child("start", 0).stream()
        x = region.start(clean, stream.rows(one["unit"], region.draws))
        way = [x]
        for _ in range(option.steps):
            if not bool(_right(model, x, one["label"])):
                if tau == 0:
                    break
                tau -= 1
            _, gradient = slopes(model, {**one, "features": x}, losses)
            x = region.project(x + region.steepest(gradient, step), clean)
            way.append(x)
        ends.append(x)
        ways.append(way)
    return torch.cat(ends), ways


@given(
    steps=st.integers(1, 8),
    tau=st.integers(0, 7),
    kind=st.sampled_from(["linf", "l2", "l1"]),
    radius=st.floats(0.05, 2.0),
    seed=st.integers(0, 50),
)
@settings(max_examples=60, deadline=None)
def test_each_row_stops_where_the_paper_stops_it(steps, tau, kind, radius, seed):
    model, batch = MLP.model(), MLP.batch(7, seed)
    option = PGD(
        ball=Ball(kind=kind, radius=radius),
        steps=steps,
        early_stop=min(tau, steps - 1),
        keep="last",
    )
    expected, _ = _by_the_paper(option, model, batch, LOSSES)
    for attack in (option.build(SPACE), option.build(SPACE).packing()):
        found = attack(model, batch, LOSSES, SOURCE)["features"]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tau", [0, 1, 2])
def test_the_worst_point_is_one_of_those_on_the_shortened_way(tau):
    model, batch = MLP.model(), MLP.batch(12)
    option = dataclasses.replace(FRIENDLY, early_stop=tau, keep="worst")
    _, ways = _by_the_paper(option, model, batch, LOSSES)
    for attack in (option.build(SPACE), option.build(SPACE).packing()):
        found = attack(model, batch, LOSSES, SOURCE)["features"]
        for i, way in enumerate(ways):
            points = torch.cat([batch["features"][i : i + 1], *way])
            label = batch["label"][i].expand(len(points))
            with torch.no_grad():
                worst = MLP.task.row_losses(model(points), label).argmax()
            torch.testing.assert_close(found[i], points[worst], rtol=1e-4, atol=1e-5)


def test_with_no_step_to_spend_a_row_that_starts_wrong_stays_at_its_start():
    model, batch = MLP.model(), MLP.batch(40)
    option = dataclasses.replace(FRIENDLY, early_stop=0)
    _, ways = _by_the_paper(option, model, batch, LOSSES)
    starts = torch.cat([way[0] for way in ways])
    wrong = ~_right(model, starts, batch["label"])
    found = option.build(SPACE)(model, batch, LOSSES, SOURCE)["features"]
    assert 0 < int(wrong.sum()) < 40
    torch.testing.assert_close(found[wrong], starts[wrong])
    moved = (found[~wrong] != starts[~wrong]).any(1)
    assert int((~moved).sum()) <= 1  # one lies where no ReLU lets a gradient through


class _Counted(nn.Module):
    """A model that notes how many rows pass through it each time."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.passed = inner, []

    def forward(self, x):
        self.passed.append(len(x))
        return self.inner(x)


def test_packed_climbs_pass_no_row_that_has_stopped_and_masked_ones_end_with_the_last():
    batch = MLP.batch(40)
    option = dataclasses.replace(FRIENDLY, early_stop=0)
    _, ways = _by_the_paper(option, MLP.model(), batch, LOSSES)
    ended = [len(way) - 1 for way in ways]
    masked, packed_rows = _Counted(MLP.model()), _Counted(MLP.model())
    option.build(SPACE)(masked, batch, LOSSES, SOURCE)
    option.build(SPACE).packing()(packed_rows, batch, LOSSES, SOURCE)
    assert masked.passed == [40] * option.steps
    assert sum(packed_rows.passed) < 0.9 * sum(masked.passed)
    assert packed_rows.passed == sorted(packed_rows.passed, reverse=True)
    climbing = [sum(end >= step for end in ended) for step in range(option.steps)]
    assert all(a >= b for a, b in zip(packed_rows.passed, climbing, strict=True))

    wrong = {**batch, "label": (MLP.model()(batch["features"]).argmax(1) + 1) % 3}
    near = dataclasses.replace(option, ball=Ball(radius=1e-6))
    for attack in (near.build(SPACE), near.build(SPACE).packing()):
        all_wrong = _Counted(MLP.model())
        attack(all_wrong, wrong, LOSSES, SOURCE)
        assert all_wrong.passed == [40]


@pytest.mark.parametrize("kind", [Madry, Mart, Trades])
def test_every_objective_with_a_climb_can_pack_it(kind):
    model, batch = MLP.model().train(), MLP.batch(30)
    before = snapshot(model)
    plain = kind(attack=FRIENDLY).build(MLP.task, SPACE)
    whole = kind(attack=dataclasses.replace(FRIENDLY, early_stop=None)).build(MLP.task, SPACE)
    masked = plain.perturb(model, batch, SOURCE)["adversarial"]
    faster = without_stopped_rows(plain).perturb(model, batch, SOURCE)["adversarial"]
    torch.testing.assert_close(faster, masked, rtol=1e-4, atol=1e-5)
    assert not torch.equal(masked, whole.perturb(model, batch, SOURCE)["adversarial"])
    assert snapshot(model) == before


def test_losses_that_know_no_answer_are_refused():
    with pytest.raises(Incompatible, match="these losses do not say"):
        FRIENDLY.build(SPACE)(MLP.model(), MLP.batch(2), MLP.task.losses, SOURCE)


def test_losses_and_answers_are_of_the_same_pass():
    model, batch = MLP.model(), MLP.batch(9)
    known = {**batch, "reference": model(batch["features"] + 0.1).detach()}
    for losses in (LOSSES, JudgedDivergences(MLP.task)):
        values, right = losses.judged(model, known)
        torch.testing.assert_close(values, losses(model, known))
        assert torch.equal(right, _right(model, batch["features"], batch["label"]))


@pytest.mark.parametrize("early_stop", [-1, 6, 7])
def test_a_stop_that_no_climb_reaches_is_refused(early_stop):
    with pytest.raises(ValueError, match=f"early_stop={early_stop} must be (at least 0|below)"):
        dataclasses.replace(FRIENDLY, early_stop=early_stop)


def test_a_shorter_climb_stops_within_its_steps():
    short, longer = dataclasses.replace(FRIENDLY, early_stop=5).shortened(3)
    assert (short.steps, short.early_stop) == (3, 2)
    assert longer == (1 + 6) / (1 + 3)


def test_rows_that_have_stopped_stay_in_the_batch_where_a_units_gradient_is_clipped():
    batch = MLP.batch(40)
    option = {
        "kind": "madry",
        "attack": {"kind": "pgd", "ball": {"radius": 0.4}, "steps": 6, "early_stop": 0},
    }
    passed = []
    for removed in ({}, {"differential_privacy": None, "gradient_clipping": None, "ledger": None}):
        base = changed(CENTRAL, removed)
        objective = pieces.objective(
            loads(text(base, adversarial_training=option)), MLP.task, SPACE
        )
        counted = _Counted(MLP.model())
        objective.perturb(counted, batch, SOURCE)
        passed.append(counted.passed)
    assert set(passed[0]) == {40}
    assert sum(passed[1]) < sum(passed[0])

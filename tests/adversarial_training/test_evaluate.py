import math

import pytest
import torch

from nacre.adversarial_training import PGD, Ball, attacked
from nacre.core.random import Source
from nacre.core.types import FeatureSpace
from tests.laws.zoo import MLP, snapshot

SOURCE = Source(bytes(32))
SPACE = FeatureSpace((6,))
REGION = Ball(radius=0.2).region(SPACE)


class Liar:
    """An attack that returns whatever it likes."""

    def __init__(self, change):
        self.change = change

    def __call__(self, model, batch, losses, source):
        return {**batch, "features": self.change(batch["features"])}


def _attacked(attack, batch, chunk=512, model=None):
    model = model or MLP.model()
    return attacked(model, batch, MLP.task.losses, attack, REGION, SOURCE, chunk=chunk)


def _scores(batch):
    with torch.no_grad():
        return MLP.task.losses(MLP.model(), batch)


@pytest.mark.parametrize(
    "change",
    [lambda x: x + 100, lambda x: -x, lambda x: x * math.nan, lambda x: x.clone().requires_grad_()],
)
def test_an_answer_out_of_reach_is_brought_back(change):
    batch = MLP.batch(8)
    judged = _attacked(Liar(change), batch)
    assert REGION.contains(judged["features"], batch["features"]).all()
    assert (_scores(judged) >= _scores(batch)).all()
    assert not judged["features"].requires_grad


def test_rows_whose_loss_fell_keep_their_clean_features():
    batch = MLP.batch(16)
    judged = _attacked(Liar(lambda x: x + 0.1), batch)
    moved = (judged["features"] != batch["features"]).any(1)
    fell = _scores({**batch, "features": batch["features"] + 0.1}) < _scores(batch)
    assert torch.equal(moved, ~fell)
    assert fell.any()
    assert moved.any()


def test_an_answer_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape=\(7, 6\) for \(8, 6\)"):
        _attacked(Liar(lambda x: x[1:]), MLP.batch(8))


def test_portions_cover_every_row_and_starts_stay_keyed_by_unit():
    batch, attack = MLP.batch(7), PGD(ball=Ball(radius=0.2), steps=2).build(SPACE)
    whole = _attacked(attack, batch)["features"]
    for chunk in (1, 3, 7):
        portions = _attacked(attack, batch, chunk)["features"]
        torch.testing.assert_close(portions, whole, rtol=1e-3, atol=1e-3)


def test_an_empty_batch_and_the_model_are_left_alone():
    model = MLP.model().train()
    before = snapshot(model)
    attack = PGD(ball=Ball(radius=0.2), steps=2).build(SPACE)
    assert _attacked(attack, MLP.batch(0), model=model)["features"].shape == (0, 6)
    _attacked(attack, MLP.batch(3), model=model)
    assert snapshot(model) == before


def test_a_portion_holds_at_least_one_row():
    with pytest.raises(ValueError, match="chunk=0"):
        _attacked(Liar(lambda x: x), MLP.batch(1), chunk=0)

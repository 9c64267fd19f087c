import math

import pytest
import torch

from nacre.adversarial_training import FGSM, PGD, Ball, Madry, Trades
from nacre.core.random import Source
from nacre.core.types import FeatureSpace
from tests.laws.zoo import GROUPS, MLP

SOURCE = Source(bytes(32))
PGD_5 = PGD(ball=Ball(radius=0.3), steps=5)
SPACE = FeatureSpace((6,))


def _losses(option, batch, animal=MLP):
    objective, model = option.build(animal.task, SPACE), animal.model()
    moved = objective.perturb(model, batch, SOURCE)
    return objective.losses(model, moved), moved


@pytest.mark.parametrize("attack", [PGD_5, FGSM(ball=Ball(radius=0.3))])
def test_the_worst_case_loss_is_the_loss_at_the_attacked_rows(attack):
    batch = MLP.batch(6)
    losses, moved = _losses(Madry(attack=attack), batch)
    expected = MLP.task.losses(MLP.model(), {**batch, "features": moved["adversarial"]})
    assert torch.equal(losses, expected)
    assert (losses > MLP.task.losses(MLP.model(), batch)).all()


def test_a_clean_share_mixes_the_two_losses_of_each_row():
    batch = MLP.batch(6)
    attacked_losses, _ = _losses(Madry(attack=PGD_5), batch)
    mixed, _ = _losses(Madry(attack=PGD_5, clean_share=0.25), batch)
    clean = MLP.task.losses(MLP.model(), batch)
    torch.testing.assert_close(mixed, 0.25 * clean + 0.75 * attacked_losses)


def test_trades_adds_the_divergence_of_the_moved_outputs():
    batch, model, task = MLP.batch(6), MLP.model(), MLP.task
    losses, moved = _losses(Trades(attack=PGD_5, beta=2.0), batch)
    clean = task.predict(model, batch["features"])
    divergence = task.divergence(clean, task.predict(model, moved["adversarial"]))
    torch.testing.assert_close(losses, task.row_losses(clean, batch["label"]) + 2.0 * divergence)
    assert (divergence > 0).all()


def test_the_trades_search_does_not_look_at_labels():
    batch = MLP.batch(6)
    other = {**batch, "label": (batch["label"] + 1) % 3}
    _, moved = _losses(Trades(attack=PGD_5), batch)
    _, again = _losses(Trades(attack=PGD_5), other)
    assert torch.equal(moved["adversarial"], again["adversarial"])


def test_the_trades_search_starts_from_outputs_without_dropout():
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(6, 3)).train()
    objective, batch = Trades(attack=PGD_5).build(MLP.task, SPACE), MLP.batch(6)
    first = objective.perturb(model, batch, SOURCE)["adversarial"]
    assert torch.equal(objective.perturb(model, batch, SOURCE)["adversarial"], first)


def test_trades_gradients_flow_through_both_outputs():
    batch, model, task = MLP.batch(4), MLP.model(), MLP.task
    objective = Trades(attack=PGD_5, beta=1.0).build(task, SPACE)
    moved = objective.perturb(model, batch, SOURCE)
    objective.losses(model, moved).sum().backward()
    full = model[0].weight.grad.clone()
    model.zero_grad()
    with torch.no_grad():
        held = task.predict(model, batch["features"])
    divergence = task.divergence(held, task.predict(model, moved["adversarial"]))
    (task.losses(model, batch) + divergence).sum().backward()
    assert not torch.allclose(full, model[0].weight.grad)


def test_each_row_of_a_group_is_attacked_by_itself():
    batch = GROUPS.batch(4)
    for option in (Madry(attack=PGD_5), Trades(attack=PGD_5)):
        losses, moved = _losses(option, batch, GROUPS)
        assert moved["adversarial"].shape == (4, 3, 6)
        assert losses.shape == (4,)
        assert losses[0] == 0.0  # a unit without rows


def test_a_search_that_could_not_move_is_refused():
    with pytest.raises(ValueError, match="random_start"):
        Trades(attack=PGD(ball=Ball(radius=0.1), random_start=False))


@pytest.mark.parametrize("beta", [-1.0, math.inf, math.nan])
def test_a_beta_that_weighs_nothing_is_refused(beta):
    with pytest.raises(ValueError, match=f"beta={beta} must be at least 0"):
        Trades(attack=PGD_5, beta=beta)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_outside_its_range_is_refused(share):
    with pytest.raises(ValueError, match=f"clean_share={share} must lie between 0 and 1"):
        Madry(attack=PGD_5, clean_share=share)

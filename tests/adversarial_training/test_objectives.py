import math

import pytest
import torch

from nacre.adversarial_training import FGSM, PGD, Ball, Fast, Madry, Mart, Ramp, Trades
from nacre.adversarial_training.objectives.mart import margin_loss
from nacre.core.errors import Incompatible
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
    with pytest.raises(ValueError, match=f"clean_share={share} must lie from 0 to 1"):
        Madry(attack=PGD_5, clean_share=share)


def test_mart_is_the_loss_of_its_paper():
    batch, model = MLP.batch(6), MLP.model().requires_grad_(False)
    losses, moved = _losses(Mart(attack=PGD_5, beta=4.0), batch)
    losses = losses.detach()
    clean = torch.softmax(model(batch["features"]), 1)
    attacked = torch.softmax(model(moved["adversarial"]), 1)
    for row, label in enumerate(batch["label"].tolist()):
        wrong = max(float(p) for k, p in enumerate(attacked[row]) if k != label)
        boosted = -math.log(float(attacked[row, label])) - math.log(1 - wrong)
        kl = float((clean[row] * (clean[row] / attacked[row]).log()).sum())
        expected = boosted + 4.0 * kl * (1 - float(clean[row, label]))
        assert float(losses[row]) == pytest.approx(expected, rel=1e-4)


def test_marts_margin_is_finite_where_a_wrong_class_is_certain():
    outputs = torch.tensor([[0.0, 1000.0, 0.0]], requires_grad=True)
    loss = margin_loss(outputs, torch.tensor([0]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(1000 - math.log(2))
    assert torch.isfinite(outputs.grad).all()


def test_mart_needs_classes():
    class Numbers:
        kind = "regression"

    with pytest.raises(Incompatible, match="the task is regression; use `kind: trades`"):
        Mart(attack=PGD_5).build(Numbers(), SPACE)


def test_fast_on_a_linear_model_reaches_the_closed_form():
    """The gradient is the same everywhere: from a start s the step ends at clip(s + 1.25 r sign)
    inside the ball, and at s + r sign, unclipped, from the noise of N-FGSM."""
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 2)
    batch = MLP.batch(200) | {"label": torch.zeros(200, dtype=torch.int64)}
    up = (model.weight[1] - model.weight[0]).detach().sign()
    for start, low, high in (("uniform", 0.25, 1.0), ("noise", -1.0, 3.0)):
        option = Fast(ball=Ball(radius=0.3), start=start)
        _, moved = _losses_of(option, model, batch)
        share = (moved["adversarial"] - batch["features"]) * up / 0.3
        assert share.min() >= low - 1e-4
        assert share.max() <= high + 1e-4
        assert share.min() < low + 0.3
        assert share.max() > high - 0.3


def _losses_of(option, model, batch):
    objective = option.build(MLP.task, SPACE)
    moved = objective.perturb(model, batch, SOURCE)
    return objective.losses(model, moved), moved


def test_fast_takes_one_pass_and_a_kept_last_point_as_many_as_it_has_steps():
    passes = []
    model = MLP.model()
    model.register_forward_hook(lambda *_: passes.append(1))
    for option, expected in (
        (Fast(ball=Ball(radius=0.3)), 1),
        (Madry(attack=PGD(ball=Ball(radius=0.3), steps=7, keep="last")), 7),
        (Madry(attack=PGD(ball=Ball(radius=0.3), steps=7)), 9),
        (Trades(attack=PGD(ball=Ball(radius=0.3), steps=7, keep="last")), 8),
    ):
        passes.clear()
        option.build(MLP.task, SPACE).perturb(model, MLP.batch(4), SOURCE)
        assert len(passes) == expected


def test_a_kept_last_point_is_where_the_climb_ends():
    """On a model that is linear every climb that is long enough ends at the far corner."""
    model = torch.nn.Linear(6, 2)
    batch = MLP.batch(5) | {"label": torch.zeros(5, dtype=torch.int64)}
    option = Madry(attack=PGD(ball=Ball(radius=0.3), steps=5, keep="last"))
    _, moved = _losses_of(option, model, batch)
    corner = batch["features"] + 0.3 * (model.weight[1] - model.weight[0]).detach().sign()
    torch.testing.assert_close(moved["adversarial"], corner)


def test_restarts_have_nothing_to_choose_from_where_the_last_point_is_kept():
    with pytest.raises(ValueError, match=r"restarts=2 are of no use .* set `keep: worst`"):
        PGD(ball=Ball(radius=0.1), restarts=2, keep="last")


def test_a_ramp_grows_in_a_straight_line():
    ramp = Ramp(share=0.4, radius=0.5, steps=1)
    assert [ramp.radius_at(done) for done in (0.0, 0.2, 0.4, 1.0)] == [0.5, 0.75, 1.0, 1.0]
    assert [ramp.steps_at(done, 7) for done in (0.0, 0.2, 0.4)] == [1, 4, 7]
    assert Ramp(share=0.0).radius_at(0.0) == 1.0
    assert Ramp(steps=9).steps_at(0.0, 7) == 7
    with pytest.raises(ValueError, match="share=nan must lie from 0 to 1"):
        Ramp(share=math.nan)
    with pytest.raises(ValueError, match="steps=0 must be at least 1"):
        Ramp(steps=0)

"""What holds for objectives that move embeddings: rows keep to themselves under every gradient sum,
and shared passes give what separate ones give."""

import pytest
import torch
from torch import nn
from torch.func import grad, vmap

from nacre.adversarial_training import Embedding, EmbeddingPGD, FreeLB
from nacre.adversarial_training.text.freelb import TEXT_OBJECTIVES
from nacre.adversarial_training.text.table import moved_embeddings, token_table
from nacre.core import rows
from nacre.core.errors import BadArgument, Incompatible
from nacre.core.random import Source
from nacre.core.tensors import trainable
from nacre.core.types import FeatureSpace
from nacre.gradient_clipping import GRADIENT_SUMS, Flat, Looped, Unclipped, Whole
from nacre.models.gpt import GPT, gpt
from nacre.models.tasks import CausalLM, Classification
from tests.laws.zoo import distance, snapshot

SOURCE = Source(bytes(32))
TOKENS, LENGTH = 11, 6


class Reader(nn.Module):
    """Attention over embedded tokens, padding masked; answers by the mean of the real tokens."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.tokens = TOKENS
        self.table = nn.Embedding(TOKENS, 8)
        self.mix = nn.Linear(8, 24)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(8, 3)

    def forward(self, features):
        real = (features >= 0).unsqueeze(-1).float()
        x = self.table(features.clamp(min=0))
        query, key, value = self.mix(x).chunk(3, -1)
        scores = (query @ key.mT) / 8**0.5 - 1e4 * (1 - real.mT)
        x = self.drop(x + scores.softmax(-1) @ value)
        return self.head((x * real).sum(1) / real.sum(1).clamp(min=1))


def _reader():
    torch.manual_seed(3)
    return Reader(), Classification(3)


def _decoder():
    torch.manual_seed(3)
    return gpt(GPT(layers=1, width=8, heads=2), (LENGTH,), TOKENS), CausalLM(TOKENS)


MODELS = {"reader": (_reader, None), "decoder": (_decoder, None), "groups": (_reader, 3)}
models = pytest.mark.parametrize("name", MODELS)
options = pytest.mark.parametrize("option", TEXT_OBJECTIVES)


def _batch(name, count):
    """Rows of several lengths, one of them without any token."""
    generator = torch.Generator().manual_seed(4)
    width = MODELS[name][1]
    lead = (count,) if width is None else (count, width)
    features = torch.randint(TOKENS, (*lead, LENGTH), generator=generator)
    for number, row in enumerate(features.view(-1, LENGTH)):
        row[LENGTH - number % LENGTH :] = -1
    label = torch.randint(3, lead, generator=generator)
    if name == "decoder":
        label = features.masked_fill(features < 0, -100)
    batch = {"features": features, "label": label, "present": torch.ones(count, dtype=torch.bool)}
    batch["unit"] = torch.arange(count)
    if width is not None:
        batch["rows"] = torch.arange(width)[None] < torch.arange(count)[:, None] % (width + 1)
    return batch


def _variants(option):
    for around in ("sequence", "token"):
        yield option(threat=Embedding(radius=0.7, around=around))
    yield option(threat=Embedding(radius=0.7), steps=1)
    yield option(threat=Embedding(radius=0.7), steps=4, step_size=0.3)


def _built(variant, task):
    return variant.build(task, FeatureSpace((LENGTH,)))


def _losses(objective, model, batch):
    return objective.losses(model, objective.perturb(model, batch, SOURCE))


@models
@options
def test_changing_one_unit_moves_no_other_units_loss_or_points(name, option):
    model, task = MODELS[name][0]()
    batch, other = _batch(name, 5), _batch(name, 5)
    other["features"][2] = (other["features"][2] + 3).clamp(max=TOKENS - 1)
    other["unit"][2] = 77
    rest = [0, 1, 3, 4]
    for variant in _variants(option):
        objective = _built(variant, task)
        one, two = (objective.perturb(model, b, SOURCE) for b in (batch, other))
        torch.testing.assert_close(one["adversarial"][rest], two["adversarial"][rest])
        before, after = objective.losses(model, one), objective.losses(model, two)
        torch.testing.assert_close(before[rest], after[rest], rtol=1e-5, atol=1e-6)
        assert before[2] != after[2]


@models
@options
def test_points_lie_in_the_ball_and_padding_stays(name, option):
    model, task = MODELS[name][0]()
    model.train()
    batch, before = _batch(name, 6), snapshot(model)
    for variant in _variants(option):
        moved = _built(variant, task).perturb(model, batch, SOURCE)
        assert snapshot(model) == before
        assert moved.keys() - batch.keys() == {"adversarial"}
        points = rows.flatten(moved)["adversarial"]
        real = rows.flatten(batch)["features"] >= 0
        assert points.shape[1] == (variant.steps if option is FreeLB else 1)
        assert not points.requires_grad
        assert bool((points[(~real)[:, None].expand(points.shape[:3])] == 0).all())
        each = points.norm(dim=3)
        whole = points.flatten(2).norm(dim=2)
        longest = each if variant.threat.around == "token" else whole
        assert float(longest.max()) <= 0.7 * (1 + 1e-6)
        assert float(longest.max()) > 0.3


@models
@pytest.mark.parametrize("around", ["sequence", "token"])
def test_the_climb_is_that_of_the_slow_obvious_loop(name, around):
    """Row by row, by the formulas of the paper, from the same start."""
    model, task = MODELS[name][0]()
    batch = rows.flatten(_batch(name, 5))
    option = FreeLB(threat=Embedding(radius=0.7, around=around), steps=3, step_size=0.4)
    points = _built(option, task).perturb(model, batch, SOURCE)["adversarial"]
    for row in range(len(batch["unit"])):
        alone = rows.select(batch, slice(row, row + 1))
        length = int((alone["features"] >= 0).sum())
        at = points[row, 0]
        for number in range(2):
            move = at.clone().requires_grad_()
            with moved_embeddings(token_table(model), move[None]):
                loss = task.row_losses(model(alone["features"]), alone["label"]).sum()
            (slope,) = torch.autograd.grad(loss, move, allow_unused=True, materialize_grads=True)
            new = torch.zeros_like(at)
            if around == "sequence":
                new[:length] = at[:length] + 0.4 * 0.7 * _unit(slope[:length])
                new = new * min(1.0, 0.7 / max(float(new.norm()), 1e-30))
            else:
                for token in range(length):
                    step = at[token] + 0.4 * 0.7 * _unit(slope[token])
                    new[token] = step * min(1.0, 0.7 / max(float(step.norm()), 1e-30))
            torch.testing.assert_close(points[row, number + 1], new, rtol=1e-4, atol=1e-6)
            at = new


def _unit(vector):
    length = vector.norm()
    return vector / length if float(length) > 0 else vector


@models
def test_freelb_is_the_mean_over_its_points(name):
    model, task = MODELS[name][0]()
    batch = _batch(name, 5)
    objective = _built(FreeLB(threat=Embedding(radius=0.7)), task)
    moved = objective.perturb(model, batch, SOURCE)
    flat = rows.flatten(moved)
    each = []
    for point in flat["adversarial"].unbind(1):
        with moved_embeddings(token_table(model), point):
            each.append(task.row_losses(model(flat["features"]), flat["label"]))
    expected = rows.per_unit(torch.stack(each).mean(0), batch)
    torch.testing.assert_close(objective.losses(model, moved), expected)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap over attention
@models
@options
@pytest.mark.parametrize("kind", GRADIENT_SUMS)
def test_every_gradient_sum_clips_what_the_loop_over_units_clips(name, option, kind):
    model, task = MODELS[name][0]()
    batch = _batch(name, 4)
    for variant in _variants(option):
        objective = _built(variant, task)
        clip = Flat(norm=0.3) if kind.per_unit else Unclipped()
        seen = kind(objective)(model, batch, clip, SOURCE)
        slow = Looped(objective)(model, batch, clip, SOURCE)
        assert distance(seen.total, slow.total) < 1e-5 * max(1, len(batch["unit"]))
        assert any(bool(value.any()) for value in seen.total.values())


@models
def test_shared_passes_give_what_separate_ones_give(name):
    """The gradient that `descend` takes on the way, against `perturb` and the gradient after it."""
    model, task = MODELS[name][0]()
    batch = _batch(name, 5)
    for variant in _variants(FreeLB):
        objective = _built(variant, task)
        loss = _losses(objective, model, batch).sum()
        weights = trainable(model)
        slow = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        slow = {n: torch.zeros_like(w) if g is None else g
                for (n, w), g in zip(weights.items(), slow, strict=True)}  # fmt: skip
        assert distance(Whole(objective)(model, batch, Unclipped(), SOURCE).total, slow) < 1e-5


def test_shared_passes_see_one_dropout_mask():
    """With radius 0 all points are one, so the step is the plain one under the same dropout."""
    torch.manual_seed(3)
    model, task = Reader(dropout=0.5).train(), Classification(3)
    batch = _batch("reader", 5)
    objective = _built(FreeLB(threat=Embedding(radius=0.0)), task)
    torch.manual_seed(9)
    total = Whole(objective)(model, batch, Unclipped(), SOURCE).total
    after = torch.get_rng_state()
    torch.manual_seed(9)
    loss = task.losses(model, batch).sum()
    slow = dict(zip(total, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    assert torch.equal(torch.get_rng_state(), after)
    assert distance(total, slow) < 1e-5


@options
def test_losses_can_be_differentiated_for_all_units_at_once(option):
    model, task = _reader()
    for variant in _variants(option):
        objective = _built(variant, task)
        batch = objective.perturb(model, _batch("reader", 3), SOURCE)

        def loss(points, unit, objective=objective):
            alone = {name: value[None] for name, value in {**unit, "adversarial": points}.items()}
            return objective.losses(model, alone)[0]

        slopes = vmap(grad(loss), randomness="different")(batch["adversarial"], batch)
        assert slopes.shape == batch["adversarial"].shape


@models
@options
def test_an_empty_batch_has_no_losses(name, option):
    model, task = MODELS[name][0]()
    for variant in _variants(option):
        objective = _built(variant, task)
        assert _losses(objective, model, _batch(name, 0)).shape == (0,)
        total = Whole(objective)(model, _batch(name, 0), Unclipped(), SOURCE).total
        assert not any(bool(value.any()) for value in total.values())


@options
def test_starts_follow_the_unit_and_not_the_place(option):
    model, task = _reader()
    batch = _batch("reader", 5)
    turned = rows.select(batch, torch.arange(4, -1, -1))
    objective = _built(option(threat=Embedding(radius=0.7)), task)
    here = objective.perturb(model, batch, SOURCE)["adversarial"]
    there = objective.perturb(model, turned, SOURCE)["adversarial"]
    torch.testing.assert_close(here, there.flip(0))
    assert not torch.equal(here, objective.perturb(model, batch, Source(b"1" * 32))["adversarial"])


def test_a_model_without_one_table_is_refused():
    with pytest.raises(Incompatible, match="no tables of embeddings"):
        token_table(nn.Linear(3, 3))
    two = nn.ModuleList([nn.Embedding(4, 2), nn.Embedding(4, 2)])
    with pytest.raises(Incompatible, match="2 tables of embeddings"):
        token_table(two)


def test_moves_that_reach_no_token_are_refused():
    model, _ = _reader()
    table = token_table(model)
    batch = _batch("reader", 2)["features"]
    with pytest.raises(Incompatible, match="shape"), moved_embeddings(table, torch.zeros(1, 6, 8)):
        model(batch)
    with pytest.raises(Incompatible, match="without looking"), moved_embeddings(table, batch):
        pass
    assert not table._forward_hooks


@options
@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"steps": 0}, "steps=0"), ({"step_size": 0.0}, "step_size"), ({"step_size": 3.0}, "width"),
     ({"step_size": float("nan")}, "step_size")],
)  # fmt: skip
def test_steps_out_of_range_are_refused(option, wrong, said):
    with pytest.raises(BadArgument, match=said):
        option(threat=Embedding(radius=1.0), **wrong)


@pytest.mark.parametrize("radius", [-1.0, float("nan"), float("inf")])
def test_a_radius_that_is_no_length_is_refused(radius):
    with pytest.raises(BadArgument, match="radius"):
        Embedding(radius=radius)


def test_gradients_that_are_no_numbers_move_nothing():
    threat, real = Embedding(radius=1.0), torch.tensor([[True, True]])
    start = torch.full((1, 2, 3), 0.1)
    for bad in (0.0, float("nan"), float("inf")):
        assert torch.equal(threat.climb(start, torch.full((1, 2, 3), bad), 0.5, real), start)
    tiny = threat.climb(start, torch.full((1, 2, 3), 1e-38), 0.5, real)
    assert float((tiny - start).norm()) == pytest.approx(0.5)


def test_a_mean_over_a_longer_climb_is_of_other_points():
    """FreeLB learns the start as well; embedding PGD the end alone."""
    model, task = _reader()
    batch = _batch("reader", 5)
    free = _built(FreeLB(threat=Embedding(radius=0.7), steps=3, step_size=0.4), task)
    last = _built(EmbeddingPGD(threat=Embedding(radius=0.7), steps=2, step_size=0.4), task)
    points = free.perturb(model, batch, SOURCE)["adversarial"]
    torch.testing.assert_close(points[:, -1:], last.perturb(model, batch, SOURCE)["adversarial"])

"""Experts and other rows that values move: their owners are carried by each call's own indices."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from nacre.core.errors import UnsupportedLayer
from nacre.core.random import Source
from nacre.core.tensors import norm
from nacre.gradient_clipping import BookKeeping, Flat, Ghost, Grouped, Looped, choose_sum
from tests.laws.networks import Computed, Objective
from tests.laws.zoo import distance

B, T, D, E, K = 5, 4, 8, 3, 2
OBJECTIVE = Objective(lambda m, b: m(b["x"]).square().flatten(1).sum(1))


def _routed(s, x):
    flat = s.enter(x).tanh().reshape(-1, D)
    weights, chosen = s.gate(flat).softmax(-1).topk(K, -1)
    return flat, weights, chosen


def _in_groups(s, x):
    """Tokens sorted by expert, one matrix product for each group, and back."""
    flat, weights, chosen = _routed(s, x)
    keys, order = chosen.reshape(-1).sort()
    ends = torch.histc(keys.float(), bins=E, min=0, max=E - 1).cumsum(0).int()
    rows = functional.grouped_mm(flat[order // K], s.stack, offs=ends)
    rows.add_(s.shift[keys])
    rows = rows.relu() * weights.reshape(-1)[order][:, None]
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    return rows[back].view(-1, K, D).sum(1).reshape(x.shape)


def _one_each(s, x):
    """The matrix of its own expert for each token."""
    flat, weights, chosen = _routed(s, x)
    rows = flat.repeat_interleave(K, dim=0)
    rows = torch.bmm(rows.unsqueeze(1), s.stack[chosen.reshape(-1)]).squeeze(1)
    rows = (rows + s.shift[chosen.reshape(-1)]).relu() * weights.reshape(-1)[:, None]
    return rows.view(-1, K, D).sum(1).reshape(x.shape)


def _over_hits(s, x):
    """A loop over the experts that anybody chose."""
    flat, weights, chosen = _routed(s, x)
    total = torch.zeros_like(flat)
    mask = functional.one_hot(chosen, E).permute(2, 1, 0)
    for expert in mask.sum((-1, -2)).greater(0).nonzero():
        place, token = torch.where(mask[expert[0]])
        rows = functional.linear(flat[token], s.stack[expert[0]]).relu()
        total.index_add_(0, token, rows * weights[token, place, None])
    return total.reshape(x.shape)


def _over_all(s, x):
    """A loop over all experts, some of them idle."""
    flat, weights, chosen = _routed(s, x)
    total = torch.zeros_like(flat)
    for expert in range(E):
        token, place = torch.where(chosen == expert)
        rows = functional.linear(flat[token], s.stack[expert], s.shift[expert]).relu()
        total.index_add_(0, token, rows * weights[token, place, None])
    return total.reshape(x.shape)


def _last_marked(s, x):
    """One row a unit, where a mask holds."""
    hidden = s.enter(x).tanh()
    kept = functional.one_hot(x[..., 0].argmax(1), T).bool()
    return s.leave(hidden[kept, :].view(len(x), -1, D)[:, -1])


FOLLOWED = {
    "groups": _in_groups, "one each": _one_each, "over hits": _over_hits, "over all": _over_all,
    "last marked": _last_marked,
}  # fmt: skip


def _of_limited_room(s, x):
    """Whoever comes late is dropped: others decide about a unit's rows."""
    flat, weights, chosen = _routed(s, x)
    hot = functional.one_hot(chosen[:, 0], E)
    held = (hot.cumsum(0) * hot).sum(1) <= s.room
    rows = functional.linear(flat, s.stack[0]) * (weights[:, 0] * held)[:, None]
    return s.leave(rows + flat[chosen[:, 0].argsort(stable=True)].sum(0)).reshape(len(x), T, -1)


def _most_wanted(s, x):
    """Of the experts, only the two that most units want."""
    flat, weights, chosen = _routed(s, x)
    total = torch.zeros_like(flat)
    mask = functional.one_hot(chosen, E).permute(2, 1, 0)
    for expert in mask.sum((-1, -2)).topk(2).indices:
        place, token = torch.where(mask[expert])
        rows = functional.linear(flat[token], s.stack[expert]).relu()
        total.index_add_(0, token, rows * weights[token, place, None])
    return total.reshape(x.shape)


def _first_sorted(s, x):
    """The first half of an order that all units make together."""
    flat, weights, _ = _routed(s, x)
    order = weights[:, 0].argsort()[: len(flat) // 2]
    return torch.zeros_like(flat).index_add(0, order, s.leave(flat[order]).sin()).reshape(x.shape)


def _wrong_groups(s, x):
    """Groups that end elsewhere than the keys do."""
    flat, _, chosen = _routed(s, x)
    keys, order = chosen.reshape(-1).sort()
    ends = torch.histc(keys.float(), bins=E, min=0, max=E - 1).cumsum(0).int()
    ends[0] = ends[0] // 2
    rows = functional.grouped_mm(flat[order // K], s.stack, offs=ends)
    back = order.argsort()
    return rows[back].view(-1, K, D).sum(1).reshape(x.shape)


REFUSED = {
    "limited room": _of_limited_room, "most wanted": _most_wanted,
    "first of an order": _first_sorted, "wrong groups": _wrong_groups,
}  # fmt: skip


def _model(function):
    torch.manual_seed(0)
    parts = {"enter": nn.Linear(D, D), "gate": nn.Linear(D, E), "leave": nn.Linear(D, D)}
    weights = {"stack": nn.Parameter(torch.randn(E, D, D) * 0.3)}
    weights |= {"shift": nn.Parameter(torch.randn(E, D) * 0.3)}
    model = Computed(function, **parts, **weights)
    model.room = 4
    used = set(function.__code__.co_names) | {"enter"}
    used |= {"gate"} if "_routed" in used else set()
    for name, part in {**parts, **weights}.items():
        part.requires_grad_(name in used)
    return model.train()


def _batch(step, units=B):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(units, T, D, generator=generator) * (1 + step % 3)
    return {"x": x, "present": torch.ones(units, dtype=torch.bool), "unit": torch.arange(units)}


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLLOWED)
@pytest.mark.parametrize("kind", [BookKeeping, Ghost, Grouped])
def test_rows_that_values_move_are_followed_exactly(kind, name):
    """No step is like the trial: other experts, idle ones, other sizes of batches."""
    model, clip = _model(FOLLOWED[name]), Flat(norm=1.0)
    taken = kind(OBJECTIVE, verify="never")
    taken.learn(model, _batch(0), Source(bytes(32)))
    for step in range(1, 13):
        batch, source = _batch(step, units=2 + step % 7), Source(step.to_bytes(32, "big"))
        expected = Looped(OBJECTIVE)(model, batch, clip, source)
        found = taken(model, batch, clip, source)
        assert distance(found.total, expected.total) <= 1e-4 * norm(expected.total)
        assert torch.allclose(found.local.norms, expected.local.norms, rtol=1e-4)


@pytest.mark.parametrize("name", FOLLOWED)
def test_auto_takes_the_tape_for_experts(name):
    model, clip = _model(FOLLOWED[name]), Flat(norm=1.0)
    chosen, why = choose_sum("auto", model=model, objective=OBJECTIVE, clip=clip, sample=_batch(0))
    assert isinstance(chosen, BookKeeping), why


@pytest.mark.parametrize("name", REFUSED)
def test_what_lets_one_unit_decide_about_the_rows_of_another_is_refused(name):
    """On some of these the norms of a batch and of single units agree by chance: even then."""
    model, clip = _model(REFUSED[name]), Flat(norm=1.0)
    taken = BookKeeping(OBJECTIVE, verify="never")
    with pytest.raises(UnsupportedLayer):
        taken.learn(model, _batch(0), Source(bytes(32)))
        for step in range(1, 6):
            taken(model, _batch(step), clip, Source(bytes(32)))


def test_numbers_that_steer_the_model_are_those_of_the_trial():
    """Equal for each unit alone and for all of them they tell nothing; another one is refused."""

    def forward(s, x):
        return s.leave(s.enter(x) * (2.0 if (x > 9).any().item() else 1.0))

    model, clip, source = _model(forward), Flat(norm=1.0), Source(bytes(32))
    taken = BookKeeping(OBJECTIVE, verify="never")
    taken.learn(model, _batch(0), source)
    batch = _batch(3)
    expected = Looped(OBJECTIVE)(model, batch, clip, source).total
    assert distance(taken(model, batch, clip, source).total, expected) <= 1e-5 * norm(expected)
    batch["x"][0] = 10.0
    with pytest.raises(UnsupportedLayer, match="steer the program"):
        taken(model, batch, clip, source)


@pytest.mark.parametrize("kind", [BookKeeping, Ghost])
def test_padding_of_a_lookup_that_is_the_same_for_all_units_has_no_gradient(kind):
    def forward(s, x):
        ids = torch.arange(T) % 3
        return s.leave(s.enter(x) + s.table(ids))

    torch.manual_seed(0)
    parts = {"enter": nn.Linear(D, D), "leave": nn.Linear(D, 3)}
    model = Computed(forward, **parts, table=nn.Embedding(4, D, padding_idx=0)).train()
    batch, source = _batch(1), Source(bytes(32))
    expected = Looped(OBJECTIVE)(model, batch, Flat(norm=1.0), source).total
    found = kind(OBJECTIVE, verify="never")(model, batch, Flat(norm=1.0), source).total
    assert distance(found, expected) <= 1e-5 * norm(expected)

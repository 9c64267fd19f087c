"""Rows that a model hands to its layers one by one: each call's share is its own unit's, whatever
order values of the batch put the rows in, and the sum is that of single units, or refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from nacre.core import rows
from nacre.core.errors import UnsupportedLayer
from nacre.core.random import Source
from nacre.core.tensors import norm
from nacre.gradient_clipping import BookKeeping, Flat, Ghost, Grouped, Looped, choose_sum
from nacre.gradient_clipping.tape.carried_rows.single import Single, side_by_side
from nacre.gradient_clipping.tape.contributions import Instances, Lookups, Products
from tests.laws.networks import Computed, Objective
from tests.laws.test_ownership import flagged_batch
from tests.laws.zoo import distance

pytestmark = pytest.mark.slow

SOURCE, CLIP = Source(bytes(32)), Flat(norm=0.5)


def _tokens(x):
    return (4 * x[..., 0]).long().abs() % 9


def _weight(*shape):
    return nn.Parameter(torch.randn(shape))


def _bag(**more):
    """Bags of the odd places, told by where they start, and of all places as a matrix."""

    def forward(s, x):
        ids = _tokens(x)
        flat, starts = ids[:, ::2].flatten(), torch.arange(0, 3 * len(ids), 3)
        scaled = x[:, ::2, 1].flatten() if more.get("mode") == "sum" else None
        apart = functional.embedding_bag(
            flat, s.t.weight, starts, per_sample_weights=scaled, **more
        )
        return s.t(ids) + apart.tanh()

    return forward, {"t": nn.EmbeddingBag(9, 4, **more)}


def _recurrent(s, x):
    hidden = x.new_zeros(len(x), 4), x.new_zeros(len(x), 4)
    other = hidden[0]
    for t in range(x.shape[1]):
        hidden, other = s.cell(x[:, t], hidden), s.other(x[:, t], other)
    return hidden[1] + other


def _ended(s, x):
    """Bags whose last offset is their end."""
    ids = _tokens(x).flatten()
    ends = torch.arange(0, len(ids), 5)
    return functional.embedding_bag(
        ids, s.w, torch.cat([ends, ends[-1:] + 5]), include_last_offset=True
    )


def _own_ends(s, x):
    """Bags of as many numbers as each unit has, scaled by its own."""
    kept, ids = ~_flag(x), _tokens(x)
    counts = kept.sum(1)
    return functional.embedding_bag(
        ids[kept], s.w, counts.cumsum(0) - counts, mode="sum", per_sample_weights=x[..., 1][kept]
    )


FOLLOWED = {
    "linear": (lambda s, x: torch.stack([s.l(r) for r in x[:, 0]]), {"l": nn.Linear(8, 4)}),
    "linear of positions": (lambda s, x: torch.stack([s.l(r) for r in x]), {"l": nn.Linear(8, 4)}),
    "convolution": (lambda s, x: torch.stack([s.l(r) for r in x]), {"l": nn.Conv1d(5, 4, 3)}),
    "mv": (lambda s, x: torch.stack([s.w.mv(r) for r in x[:, 0]]), {"w": _weight(4, 8)}),
    "addmv": (lambda s, x: torch.stack([torch.addmv(s.b, s.w, r) for r in x[:, 0]]),
              {"w": _weight(4, 8), "b": _weight(4)}),
    "dot": (lambda s, x: torch.stack([s.w.dot(r) * s.b for r in x[:, 0]]),
            {"w": _weight(8), "b": _weight()}),
    "outer": (lambda s, x: torch.stack([torch.outer(s.w, r) for r in x[:, 0]]), {"w": _weight(4)}),
    "kron": (lambda s, x: torch.stack([torch.kron(s.w, r) for r in x]), {"w": _weight(2, 2)}),
    "nested": (lambda s, x: torch.stack([torch.stack([r @ s.w for r in u]) for u in x]),
               {"w": _weight(8, 4)}),
    "norm": (lambda s, x: torch.stack([s.n(s.l(r)) for r in x]),
             {"l": nn.Linear(8, 4), "n": nn.LayerNorm(4)}),
    "table": (lambda s, x: torch.stack([s.t(i).tanh() for i in _tokens(x)]),
              {"t": nn.Embedding(9, 4, padding_idx=2)}),
    "one table, two ways": (lambda s, x: torch.stack([s.t(i) @ s.t.weight.T for i in _tokens(x)]),
                            {"t": nn.Embedding(9, 4)}),
    "ragged": (lambda s, x: torch.cat([s.l(r[r[:, 0] < 2]).sum(0)[None] for r in x]),
               {"l": nn.Linear(8, 4)}),
    "all at once and alone": (lambda s, x: s.l(x)[:, 0] + torch.stack([s.l(r[0]) for r in x]),
                              {"l": nn.Linear(8, 4)}),
    "counted": (lambda s, x: s.t(_tokens(x)), {"t": nn.Embedding(9, 4, scale_grad_by_freq=True)}),
    "counted positions": (
        lambda s, x: x[..., :4] * s.t(torch.tensor([0, 3, 3, 3, 1])),
        {"t": nn.Embedding(9, 4, scale_grad_by_freq=True)}),
    "bag": _bag(mode="sum"),
    "bag of means": _bag(mode="mean", padding_idx=1),
    "bag, sparse": _bag(mode="mean", sparse=True),
    "bag, counted": _bag(mode="sum", scale_grad_by_freq=True),
    "bag of means, counted": _bag(mode="mean", scale_grad_by_freq=True, padding_idx=3),
    "bag with an end": (_ended, {"w": _weight(9, 4)}),
    "bag of a unit's own": (_own_ends, {"w": _weight(9, 4)}),
    "cells": (_recurrent, {"cell": nn.LSTMCell(8, 4), "other": nn.GRUCell(8, 4, bias=False)}),
    "spectral norm": (lambda s, x: s.l(x), {"l": parametrizations.spectral_norm(nn.Linear(8, 4))}),
    "spectral norm by hooks": (lambda s, x: s.l(x), {"l": nn.utils.spectral_norm(nn.Linear(8, 4))}),
}  # fmt: skip
"""Models that go by the tape: a function, and its parts."""


def _flag(x):
    """Never set on the sample, and for some units of a real batch."""
    return x[..., 0] > 2


def _order(x):
    return _flag(x).any(1).long().argsort(stable=True)


def _sorted_list(s, x):
    """Python puts the rows in order, by what they hold."""
    found = sorted(enumerate(x), key=lambda pair: bool(_flag(pair[1]).any()))
    results = {place: s.enter(row) for place, row in found}
    return torch.stack([results[place] for place in range(len(x))])


def _by_index(s, x):
    order = _order(x)
    found = torch.stack([s.enter(x[i]) for i in order])
    return found[order.argsort()]


def _unbound(s, x):
    order = _order(x)
    return torch.stack([s.enter(r) for r in x[order]])[order.argsort()]


def _by_matrix(s, x):
    turn = functional.one_hot(_order(x), len(x)).to(x.dtype)
    moved = (turn @ x.flatten(1)).unflatten(1, x.shape[1:])
    found = torch.stack([s.enter(r) for r in moved])
    return (turn.T @ found.flatten(1)).unflatten(1, found.shape[1:])


def _by_choice(s, x):
    if len(x) == 1:
        return torch.stack([s.enter(r) for r in x])
    swap = _flag(x).any()
    first, second = torch.where(swap, x[1], x[0]), torch.where(swap, x[0], x[1])
    found = [s.enter(first), s.enter(second), *(s.enter(r) for r in x[2:])]
    found[:2] = [torch.where(swap, found[1], found[0]), torch.where(swap, found[0], found[1])]
    return torch.stack(found)


def _by_view(s, x):
    """Rows are exchanged by a write through a view of a copy, and back."""
    moved, order = x.clone(), _order(x)
    moved.view(len(x), -1)[:] = x.flatten(1)[order]
    return torch.stack([s.enter(r) for r in moved])[order.argsort()]


def _in_place(s, x):
    """Each row's result is written where it belongs, in an order of its own."""
    out = x.new_zeros(len(x), 5, 4)
    for i in _order(x).tolist():
        out[i] = s.enter(x[i])
    return out


def _another_place(s, x):
    """Two units exchange their results: the loss of one is made of the rows of another."""
    found = [s.enter(r) for r in x]
    if len(x) > 1 and _flag(x).any():
        found[0], found[1] = found[1], found[0]
    return torch.stack(found)


def _two_in_one(s, x):
    """A row that is made of two units' where one is flagged."""
    before = torch.cat([x[:1], x[:-1]]) * _flag(x).any().to(x.dtype)
    return torch.stack([s.enter(r + 0.5 * b) for r, b in zip(x, before, strict=True)])


def _padded_parts(s, x):
    """Flagged positions drop out, the rest stands in one long table that is cut up again."""
    parts = [r[~_flag(r)] for r in x]
    found = s.enter(torch.cat(parts)).split([len(p) for p in parts])
    return torch.stack([f.sum(0) for f in found])


MOVED = (_sorted_list, _by_index, _unbound, _by_matrix, _by_choice, _by_view, _in_place,
         _another_place, _two_in_one, _padded_parts)  # fmt: skip
"""Models whose values move rows between the calls; the last but two are no model of single rows."""


def _objective(model, batch):
    found = model(batch["x"]).reshape(len(batch["unit"]), -1)
    return (found + 0.3).sin().sum(1) + 0.1 * found.square().sum(1)


OBJECTIVE = Objective(_objective)


def _by_hand(model, batch):
    return Looped(OBJECTIVE, verify="never")(model, batch, CLIP, SOURCE).total


def _model(forward, parts, kind=torch.float64):
    torch.manual_seed(0)
    return Computed(forward, **parts).train().to(kind)


def _batch(step, *, flagged):
    batch = flagged_batch(step, flagged=flagged)
    return batch | {"x": batch["x"].double()}


@pytest.mark.parametrize("name", FOLLOWED)
def test_the_tape_takes_rows_one_by_one(name):
    """The same as single units, on a batch that is larger than the one that the model was tried
    on; a unit that is not finite takes no other with it, and one alone is summed too."""
    model = _model(*FOLLOWED[name])
    sample = rows.select(_batch(0, flagged=False), slice(4))
    chosen, _ = choose_sum("auto", model=model, objective=OBJECTIVE, clip=CLIP, sample=sample)
    assert isinstance(chosen, BookKeeping)
    batch = _batch(1, flagged=True)
    for kind, some in ((BookKeeping, slice(6)), (Ghost, slice(6)), (Grouped, slice(1, 2))):
        taken = kind(OBJECTIVE, "always", owners=chosen.owners)
        part = rows.select(batch, some)
        expected = _by_hand(model, part)
        assert distance(taken(model, part, CLIP, SOURCE).total, expected) <= 1e-6 * norm(expected)
    batch["x"][2, :, 1:] = torch.nan
    without = _by_hand(model, rows.select(batch, torch.arange(6) != 2))
    found = chosen(model, batch, CLIP, SOURCE)
    if found.local.dropped:  # a table of numbers knows no NaN
        assert distance(found.total, without) <= 1e-6 * norm(without)


@pytest.mark.parametrize("forward", MOVED)
@pytest.mark.parametrize("verify", ["first", "never"])
def test_values_that_move_rows_give_the_exact_sum_or_none(forward, verify):
    """Without any check but the owners that each row carries, too."""
    model = _model(forward, {"enter": nn.Linear(8, 4)})
    for kind in (BookKeeping, Ghost):
        for step in range(1, 4):
            taken = kind(OBJECTIVE, verify=verify)
            taken.armed.done = 10**6
            batch = _batch(step, flagged=True)
            try:
                taken.learn(model, _batch(0, flagged=False), SOURCE)
                found = taken(model, batch, CLIP, SOURCE).total
            except UnsupportedLayer:
                continue
            assert distance(found, _by_hand(model, batch)) <= 1e-6 * norm(found)


def test_a_recurrent_layer_that_reads_one_unit_at_a_time_is_left_to_the_loop():
    """Step by step on the tape it would take longer than in the loop."""
    model = _model(lambda s, x: torch.stack([s.cells(r)[0] for r in x]), {"cells": nn.LSTM(8, 4)})
    with pytest.raises(UnsupportedLayer, match="pass the rows of all units at once"):
        BookKeeping(OBJECTIVE)(model, _batch(1, flagged=True), CLIP, SOURCE)
    chosen, why = choose_sum(
        "auto", model=model, objective=OBJECTIVE, clip=CLIP, sample=_batch(0, flagged=False)
    )
    assert isinstance(chosen, Looped) and "lstm reads the rows of one unit" in why


def test_shares_of_single_units_lie_side_by_side():
    """Missing units have zeros, shorter ones are filled up, and each form is one contribution."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(shape, generator=generator)

    ids = torch.tensor([[0, 2]])
    parts = [
        Single(Products(drawn(1, 2, 3), drawn(1, 2, 4), (4, 3)), 2, 4),
        Single(Products(drawn(1, 1, 3), drawn(1, 1, 4), (4, 3)), 0, 4),
        Single(Products(drawn(1, 1, 3), drawn(1, 1, 4), (4, 3)), 2, 4),
        Single(Instances(drawn(1, 4, 3)), 3, 4),
        Single(Lookups(ids, drawn(1, 2, 3), (4, 3)), 0, 4),
        Instances(drawn(4, 4, 3)),
    ]
    factors = torch.tensor([0.5, 2.0, 1.0, 0.25])
    expected = sum(part.weighted(factors) for part in parts)
    found = side_by_side(parts)
    assert len(found) == 4
    assert torch.allclose(sum(part.weighted(factors) for part in found), expected, atol=1e-6)
    each = sum(part.instances() for part in found)
    assert torch.allclose(torch.einsum("b,bij->ij", factors, each), expected, atol=1e-6)

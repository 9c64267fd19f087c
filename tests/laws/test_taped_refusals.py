"""What no sum of the tape can follow is refused in words, before a sum leaves."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from nacre.core.errors import UnsupportedLayer
from nacre.core.random import Source
from nacre.gradient_clipping import BookKeeping, Flat, Ghost, Grouped, Looped
from tests.laws.networks import Objective, network
from tests.laws.zoo import computing

pytestmark = pytest.mark.slow

TAPED = (BookKeeping, Ghost, Grouped)
SOURCE = Source(bytes(range(32)))

sums = pytest.mark.parametrize("kind", TAPED)


@sums
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_regions_are_refused(kind, reentrant):
    """A square weight: recomputed outside the tape it would give a silently wrong gradient."""

    def forward(s, x):
        return s.head(checkpoint(s.square, s.enter(x), use_reentrant=reentrant).tanh())

    parts = {name: nn.Linear(6, 6) for name in ("enter", "square", "head")}
    model, batch, objective = computing(forward, **parts)
    with pytest.raises(UnsupportedLayer, match="checkpointing"):
        kind(objective)(model, batch, Flat(norm=1.0), SOURCE)


@sums
def test_a_function_that_hides_a_weight_is_refused(kind):
    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.save_for_backward(x, weight)
            return x @ weight

        @staticmethod
        def backward(ctx, gradient):
            x, weight = ctx.saved_tensors
            return gradient @ weight.T, x.T @ gradient

    model, batch, objective = computing(
        lambda s, x: Hidden.apply(s.enter(x), s.weight),
        enter=nn.Linear(6, 6),
        weight=nn.Parameter(torch.randn(6, 6)),
    )
    with pytest.raises(UnsupportedLayer):
        kind(objective)(model, batch, Flat(norm=1.0), SOURCE)


@sums
def test_an_input_that_is_written_into_later_is_refused(kind):
    def forward(s, x):
        hidden = x * 1.0
        out = s.head(hidden)
        hidden.mul_(2.0)
        return out + hidden

    model, batch, objective = computing(forward, head=nn.Linear(6, 6))
    with pytest.raises(UnsupportedLayer, match="changed in place"):
        kind(objective)(model, batch, Flat(norm=1.0), SOURCE)


@sums
def test_gradient_penalties_are_refused(kind):
    model, batch, _ = computing(lambda s, x: s.head(x.tanh()), head=nn.Linear(6, 6))

    def penalty(model, batch):
        x = batch["x"].clone().requires_grad_()
        outputs = model(x).square().sum(1)
        (slope,) = torch.autograd.grad(outputs.sum(), x, create_graph=True)
        return outputs + slope.square().sum(1)

    with pytest.raises(UnsupportedLayer):
        kind(Objective(penalty))(model, batch, Flat(norm=1.0), SOURCE)


def test_embeddings_that_look_at_other_units_are_refused():
    table = nn.Embedding(9, 3, max_norm=1.0)
    model, batch, objective = computing(lambda s, x: s.table(x.long()).sum(1), table=table)
    batch["x"] = torch.arange(24).reshape(4, 6) % 9
    with pytest.raises(UnsupportedLayer, match="max_norm"):
        BookKeeping(objective)(model, batch, Flat(norm=1.0), SOURCE)


def test_the_armed_check_raises_where_the_tape_is_wrong(monkeypatch):
    from nacre.gradient_clipping import operations

    model, batch, objective = network("shared output gradients")
    right = operations.RULES[nn.functional.linear]

    def wrong(call):
        answer = right(call)
        return lambda gradient: answer(0.5 * gradient)

    monkeypatch.setitem(operations.RULES, nn.functional.linear, wrong)
    with pytest.raises(UnsupportedLayer, match="whose own loss has one of"):
        BookKeeping(objective)(model, batch, Flat(norm=1.0), SOURCE)
    BookKeeping(objective, verify="never")(model, batch, Flat(norm=1.0), SOURCE)


def _mixed(s, x):
    """Units along one axis before the dropout for some of their rows, and behind it for others."""
    inner, count = s.inner(x), len(x)
    rows_of = torch.cat([inner[:, :2].reshape(-1, 6), inner[:, 2:].reshape(-1, 6)])
    dropped = functional.dropout(rows_of, 0.5, True)
    parts = (
        dropped[: 2 * count].reshape(count, 2, 6),
        dropped[2 * count :].reshape(count, -1, 6),
    )
    return s.head(torch.cat(parts, 1).sum(1))


@pytest.mark.parametrize("kind", [Looped, *TAPED])
def test_dropout_of_entries_whose_owner_cannot_be_told_is_refused(kind):
    """One mask for the whole batch would follow the units' places: 5 C were measured."""
    parts = {"inner": nn.Linear(6, 6), "head": nn.Linear(6, 3)}
    model, batch, objective = computing(_mixed, **parts)
    batch["x"] = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
    with pytest.raises(UnsupportedLayer, match="cannot be told whose"):
        sums = kind(objective)
        sums.learn(model, batch, SOURCE)
        sums(model, batch, Flat(norm=1.0), SOURCE)


@pytest.mark.parametrize("kind", [Looped, *TAPED])
def test_a_dropout_that_answers_later_is_refused(kind):
    """On trial nothing depended on it, so nobody knows whose its entries are."""

    def forward(s, x):
        return s.head(x) + s.scale * functional.dropout(s.side(x), 0.5, True)

    parts = {"head": nn.Linear(6, 3), "side": nn.Linear(6, 3)}
    model, batch, objective = computing(forward, **parts)
    model.scale = 0.0
    sums = kind(objective)
    sums.learn(model, batch, SOURCE)
    model.scale = 1.0
    with pytest.raises(UnsupportedLayer, match="answers to a loss now"):
        sums(model, batch, Flat(norm=1.0), SOURCE)


def test_dropout_inside_a_checkpointed_region_is_refused_in_the_loop_too():
    """Recomputed, it would draw by place from PyTorch's own generator."""

    def forward(s, x):
        inner = checkpoint(lambda x: functional.dropout(s.enter(x), 0.5, True), x,
                           use_reentrant=False)  # fmt: skip
        return s.head(inner)

    parts = {"enter": nn.Linear(6, 6), "head": nn.Linear(6, 3)}
    model, batch, objective = computing(forward, **parts)
    looped = Looped(objective)
    looped.learn(model, batch, SOURCE)
    with pytest.raises(UnsupportedLayer, match="checkpointing"):
        looped(model, batch, Flat(norm=1.0), SOURCE)

"""What no rule follows is verified: every sum of the tape is exact, or refused before it leaves.

The armed check is off but for one sum in a hundred, so that what refuses is the doubt itself.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional

from nacre.core.errors import UnsupportedLayer
from nacre.core.random import Source
from nacre.core.tensors import norm
from nacre.gradient_clipping import BookKeeping, Flat, Ghost, Grouped, Looped
from nacre.gradient_clipping.clipped_sum import UnitLosses
from nacre.gradient_clipping.tape.layout import Layout
from nacre.gradient_clipping.tape.verified import begin_verification
from tests.laws.networks import NETWORKS, Computed, Objective, network
from tests.laws.test_ownership import OBJECTIVE, B, D, T, flagged_batch
from tests.laws.zoo import distance

pytestmark = pytest.mark.slow


def _flagged(x):
    """Never set on the sample, and for some units of a real batch."""
    return (x[..., 0] > 2).any(1)


def _by_matrix(product):
    """Rows go through a permutation matrix and back; the matrix is the identity on the sample."""

    def forward(s, x):
        turn = functional.one_hot(_flagged(x).long().argsort(stable=True), len(x)).to(x.dtype)
        hidden = product(turn, s.enter(x).tanh().flatten(1)).unflatten(1, (T, D))
        return product(turn.T.contiguous(), s.leave(hidden).flatten(1)).unflatten(1, (T, 3))

    return forward


def _by_choice(permute, how):
    """A fixed order or another one, as the batch says."""

    def forward(s, x):
        hidden = s.enter(x).tanh()
        if len(x) == 1:
            return s.leave(hidden)
        swap = _flagged(x).any()
        if how == "if":
            return permute(s.leave(permute(hidden))) if swap else s.leave(hidden)
        share = swap.to(x.dtype)
        mix = {
            "where": lambda a, b: torch.where(swap, a, b),
            "product": lambda a, b: share * a + (1 - share) * b,
            "lerp": lambda a, b: torch.lerp(b, a, share),
        }[how]
        result = s.leave(mix(permute(hidden), hidden))
        return mix(permute(result), result)

    return forward


def _by_shape(s, x):
    """The number of flagged rows reaches Python as a size."""
    hidden, count = s.enter(x).tanh(), _flagged(x).nonzero().shape[0]
    result = s.leave(torch.cat([hidden[count:], hidden[:count]]))
    rest = len(x) - count
    return torch.cat([result[rest:], result[:rest]])


def _by_branch(s, x):
    """Both branches make the same calls: only the answer to `if` tells them apart."""
    order = list(range(len(x)))
    if _flagged(x).any():
        order = order[::-1]
    return s.leave(s.enter(x).tanh()[order])[order]


def _by_parts(s, x):
    hidden, count = s.enter(x).tanh(), _flagged(x).sum()[None]
    first, second = torch.tensor_split(hidden, count)
    result = s.leave(torch.cat([second, first]))
    first, second = torch.tensor_split(result, len(x) - count)
    return torch.cat([second, first])


def _by_view(write):
    """Sorted rows, into which is written by way of a view: their owners are no longer noted."""

    def forward(s, x):
        order = _flagged(x).long().argsort(stable=True)
        hidden = s.enter(x).tanh()[order]
        write(hidden)
        return s.leave(hidden)[order.argsort()]

    return forward


def _by_place(s, x):
    """put: entries go to numbers of the batch."""
    order, hidden = _flagged(x).long().argsort(stable=True), s.enter(x).tanh().flatten(1)
    width = hidden.shape[1]
    places = order[:, None] * width + torch.arange(width)
    return s.leave(torch.zeros_like(hidden).put(places, hidden).unflatten(1, (T, D)))[order]


def _neighbours(rows):
    """Two and two exchanged where their number is even, as it is not on a trial of three."""
    place = torch.arange(len(rows))
    swapped = torch.where(place % 2 == 0, place + 1, place - 1)
    return rows[swapped] if len(rows) % 2 == 0 else rows


def _masked_sum(turn, rows):
    spread = rows[None].expand(len(turn), *rows.shape)
    return spread.masked_fill(~turn.bool()[:, :, None], 0).sum(1)


def _by_attention(turn, rows):
    nothing = torch.zeros(1, len(turn), 4)
    mask = turn.bool()[None]
    return functional.scaled_dot_product_attention(nothing, nothing, rows[None], mask)[0]


MODELS = {
    "einsum": _by_matrix(lambda turn, rows: torch.einsum("ij,jk->ik", turn, rows)),
    "linear": _by_matrix(lambda turn, rows: functional.linear(rows.T, turn).T),
    "addmm": _by_matrix(lambda turn, rows: torch.addmm(torch.zeros(1), turn, rows)),
    "tensordot": _by_matrix(lambda turn, rows: torch.tensordot(turn, rows, 1)),
    "solve": _by_matrix(lambda turn, rows: torch.linalg.solve(turn, rows)),
    "sum": _by_matrix(lambda turn, rows: (turn[:, :, None] * rows[None]).sum(1)),
    "masked sum": _by_matrix(_masked_sum),
    "convolution": _by_matrix(lambda turn, rows: functional.conv1d(rows[None], turn[..., None])[0]),
    "attention": _by_matrix(_by_attention),
    "reversed, where": _by_choice(lambda r: torch.stack(r.unbind()[::-1]), "where"),
    "reversed, product": _by_choice(lambda r: torch.stack(r.unbind()[::-1]), "product"),
    "reversed, lerp": _by_choice(lambda r: r.rot90(2, (0, 1)), "lerp"),
    "reversed, if": _by_choice(lambda r: torch.stack(r.unbind()[::-1]), "if"),
    "neighbours, where": _by_choice(_neighbours, "where"),
    "neighbours, product": _by_choice(_neighbours, "product"),
    "by branch": _by_branch, "by shape": _by_shape, "by parts": _by_parts, "put": _by_place,
    "view, added": _by_view(lambda h: h[:, 0].add_(0.5)),
    "view, multiplied": _by_view(lambda h: h.view(-1).mul_(2.0)),
    "view, transposed": _by_view(lambda h: h.transpose(0, 1).mul_(2.0)),
}  # fmt: skip


def _model(name):
    torch.manual_seed(0)
    return Computed(MODELS[name], enter=nn.Linear(D, D), leave=nn.Linear(D, 3)).train()


def _learnt(kind, model, verify="first"):
    taken = kind(OBJECTIVE, verify=verify)
    taken.learn(model, flagged_batch(0, flagged=False), Source(bytes(32)))
    taken.armed.done = 10**6
    return taken


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", [BookKeeping, Ghost, Grouped])
def test_a_sum_that_leaves_is_exact(kind, name):
    model, clip = _model(name), Flat(norm=1.0)
    try:
        taken = _learnt(kind, model)
    except UnsupportedLayer:
        return
    for step in range(1, 6):
        batch, source = flagged_batch(step, flagged=True), Source(bytes([step]) * 32)
        try:
            found = taken(model, batch, clip, source).total
        except UnsupportedLayer:
            return
        expected = Looped(OBJECTIVE)(model, batch, clip, source).total
        assert distance(found, expected) <= 1e-4 * norm(expected)


def test_without_it_they_would_be_wrong():
    """The models above are no strawmen: most give a wrong sum where nothing is verified."""
    wrong, clip, source = [], Flat(norm=1.0), Source(bytes(32))
    for name in MODELS:
        model, batch = _model(name), flagged_batch(1, flagged=True)
        try:
            found = _learnt(BookKeeping, model, verify="never")(model, batch, clip, source).total
        except UnsupportedLayer:
            continue
        expected = Looped(OBJECTIVE)(model, batch, clip, source).total
        if distance(found, expected) > 1e-2 * norm(expected):
            wrong.append(name)
    assert len(wrong) >= 14, wrong


FOLLOWED = {
    "bert", "roberta", "distilbert", "gpt2, tied", "gpt2, untied", "bert, lora", "gpt2, lora",
    "attention", "encoder layer", "convolutions of images",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # of peft
@pytest.mark.parametrize("name", sorted(FOLLOWED))
def test_ordinary_networks_leave_no_doubt(name, monkeypatch):
    """They pay for no second backward pass: each of their calls has its reason."""
    model, batch, objective = network(name)[:3]
    taken = BookKeeping(objective if hasattr(objective, "losses") else Objective(objective))
    taken.learn(model, batch, Source(bytes(32)))
    assert taken.owners.doubt is None
    taken.armed.done = 10**6
    monkeypatch.setattr(
        "nacre.gradient_clipping.taped_sum.begin_verification",
        lambda *given: pytest.fail("a sum was verified without a doubt"),
    )
    taken(model, batch, Flat(norm=1.0), Source(bytes(32)))


def test_two_exchanged_rows_are_seen():
    """At one operation of a linear network, in nearly every draw of the powers."""
    model = nn.Sequential(nn.Linear(D, D), nn.Linear(D, 3))
    taken = BookKeeping(OBJECTIVE, verify="never")
    taken.learn(model, flagged_batch(0, flagged=False), Source(bytes(32)))
    seen = 0
    for draw in range(40):
        batch = taken.objective.perturb(
            model, flagged_batch(draw, flagged=False), Source(bytes(32))
        )
        forward = taken._forward(UnitLosses(model, OBJECTIVE), batch, Source(bytes(32)))
        shown = begin_verification(
            forward.tape, forward.losses, Source(bytes([draw]) * 32).stream()
        )
        powers = shown.powers.clone()
        forward.tape.backward(forward.losses)
        shown.compare()  # as it is, it is right
        shown.powers = powers[[1, 0, *range(2, B)]]  # as if the first two rows were exchanged
        try:
            shown.compare()
        except UnsupportedLayer:
            seen += 1
    assert seen >= 36, seen


def test_what_answers_to_nobody_is_not_compared():
    """A layout is needed to say whose an entry is; without one its gradient has to be zero."""
    model = nn.Sequential(nn.Linear(D, D), nn.Linear(D, 3))
    taken = BookKeeping(OBJECTIVE, verify="always")
    taken.learn(model, flagged_batch(0, flagged=False), Source(bytes(32)))
    for key in taken.owners.operations:
        assert taken.owners.operations[key] == Layout(0)
        taken.owners.operations[key] = "unanswered"
    with pytest.raises(UnsupportedLayer, match="did not when the model was tried"):
        taken(model, flagged_batch(1, flagged=False), Flat(norm=1.0), Source(bytes(32)))


def test_the_lists_name_networks_that_there_are():
    assert set(NETWORKS) >= FOLLOWED

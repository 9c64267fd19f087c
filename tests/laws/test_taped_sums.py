"""What holds for the sums of the tape on every network: equal to single units, bounded, closed."""

import functools
import gc

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import orthogonal

from nacre.core import rows
from nacre.core.random import Source
from nacre.core.tensors import norm, trainable
from nacre.gradient_clipping import BookKeeping, Flat, Ghost, Grouped, Looped
from nacre.gradient_clipping.tape.dropout_masks import Masking, Masks
from nacre.gradient_clipping.tape.owners import Owners
from nacre.gradient_clipping.tape.tape import Tape
from tests.conftest import ALL
from tests.laws.networks import NETWORKS, Objective, network
from tests.laws.zoo import computing, distance, snapshot

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning"),
]

TAPED = (BookKeeping, Ghost, Grouped)
SOURCE = Source(bytes(range(32)))

networks = pytest.mark.parametrize("name", NETWORKS)
sums = pytest.mark.parametrize("kind", TAPED)


def _singles(model, batch, objective):
    """The gradient of each unit's loss by plain autograd, under the masks of the unit's number."""
    looped = Looped(objective)
    looped.learn(model, batch, SOURCE)
    found = []
    for unit in range(len(batch["unit"])):
        alone = rows.select(batch, slice(unit, unit + 1))
        with Masking(Masks(looped.owners.masks, alone["unit"], SOURCE)):
            loss = objective.losses(model, alone).sum()
        weights = trainable(model)
        gradients = torch.autograd.grad(
            loss, list(weights.values()), allow_unused=True, materialize_grads=True
        )
        found.append(dict(zip(weights, gradients, strict=True)))
    return found


def _norms(singles):
    return torch.tensor([norm(single) for single in singles], dtype=torch.float64)


@functools.cache
def _shortest(name):
    """The norm of the shortest gradient of a unit, taken once for all kinds of sums."""
    return float(_norms(_singles(*network(name))).min())


@functools.cache
def _owners(name):
    """What the first kind of sum finds out about a network serves the others, in each process."""
    return Owners()


def _expected(singles, clip):
    factors = clip.factors(_norms(singles)[:, None])[:, 0]
    return {
        name: sum(f * single[name].double() for f, single in zip(factors, singles, strict=True))
        for name in singles[0]
    }


@networks
@pytest.mark.parametrize(
    ("precision", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)]
)
def test_every_sum_is_that_of_single_units(name, precision, tolerance):
    model, batch, objective = network(name, precision)
    singles = _singles(model, batch, objective)
    clip = Flat(norm=float(_norms(singles).median()))
    expected = _expected(singles, clip)
    before = snapshot(model)
    # Twice the precision is for the rules of operations, which all kinds share: one kind has them.
    turned = TAPED[list(NETWORKS).index(name) % 3]
    owners = Owners()  # all kinds find out the same by the same trial
    for kind in TAPED if precision == torch.float32 else (turned,):
        taken = kind(objective, verify="always", owners=owners)
        total = taken(model, batch, clip, SOURCE)
        assert distance(total.total, expected) <= tolerance * norm(expected)
        relative = total.local.norms[:, 0].double() / _norms(singles) - 1
        assert float(relative.abs().max()) <= max(tolerance, 2e-5 * (precision == torch.float32))
    assert snapshot(model) == before


@networks
def test_a_unit_alone_is_no_longer_than_the_bound(name):
    """One of the units where parameters are taken by groups, and every unit where they are not."""
    model, batch, objective = network(name)
    bound, count = _shortest(name) / 3, len(batch["unit"])
    turn = list(NETWORKS).index(name) % count
    for kind in TAPED:
        chosen = kind(objective, verify="never")  # which learns on the first of them
        for unit in range(count) if ALL or kind is not Grouped else (turn,):
            alone = rows.select(batch, slice(unit, unit + 1))
            total = chosen(model, alone, Flat(norm=bound), SOURCE)
            assert norm(total.total) <= bound * (1 + 1e-5)


@pytest.mark.diagonal(always=(BookKeeping, Ghost))
@networks
@sums
def test_taking_a_unit_away_moves_the_sum_by_at_most_the_bound(kind, name):
    """With dropout too: the masks of the others stay. Each of the four units by one kind or two."""
    model, batch, objective = network(name)
    clip = Flat(norm=_shortest(name) / 2)
    chosen = kind(objective, verify="never", owners=_owners(name))  # no check but this one
    whole = chosen(model, batch, clip, SOURCE)
    for unit in (TAPED.index(kind), 3):
        others = rows.select(batch, torch.arange(len(batch["unit"])) != unit)
        without = chosen(model, others, clip, SOURCE)
        slack = 1e-5 * norm(whole.total)
        assert distance(whole.total, without.total) <= whole.bound + slack


@sums
def test_a_unit_that_is_not_finite_is_left_out_under_dropout(kind):
    model, batch, objective = network("convolutions of images")
    clip = Flat(norm=0.5)
    chosen = kind(objective)
    good = chosen(model, rows.select(batch, slice(1, 4)), clip, SOURCE)
    batch["x"][0] = float("nan")
    both = chosen(model, batch, clip, SOURCE)
    assert both.local.dropped == 1
    assert distance(both.total, good.total) <= 1e-5 * norm(good.total)


@pytest.mark.parametrize(
    "name", ["bert", "t5, without padding", "swin", "bias by distance, causal", "learnt slopes"]
)
def test_half_precision_keeps_the_bound(name):
    model, batch, objective = network(name)
    loop = Looped(objective)(model, batch, Flat(norm=0.1), SOURCE)
    for kind in TAPED:
        chosen = kind(objective, precision="bfloat16")
        total = chosen(model, batch, Flat(norm=0.1), SOURCE)
        assert distance(total.total, loop.total) <= 0.05 * norm(loop.total)
        assert all(value.dtype == torch.float32 for value in total.total.values())
        for unit in range(4):
            alone = rows.select(batch, slice(unit, unit + 1))
            single = chosen(model, alone, Flat(norm=0.1), SOURCE)
            assert norm(single.total) <= 0.1 * (1 + 1e-5)


@sums
def test_half_precision_reaches_operations_without_a_rule(kind):
    """A learnt bias in `baddbmm`, whose halves and float32 autocast made one type."""
    bias, mix = nn.Parameter(torch.ones(1, 2, 2) / 3), nn.Linear(6, 6)

    def attended(s, x):
        rows = s.mix(x).unflatten(1, (2, 3))
        return torch.baddbmm(s.bias, rows, rows.mT).softmax(2).matmul(rows).flatten(1)

    model, batch, objective = computing(attended, bias=bias, mix=mix)
    loop = Looped(objective)(model, batch, Flat(norm=0.1), SOURCE)
    total = kind(objective, precision="bfloat16")(model, batch, Flat(norm=0.1), SOURCE)
    assert distance(total.total, loop.total) <= 0.05 * norm(loop.total)


@sums
def test_a_compiled_model_gives_the_same_sum(kind):
    """The tape looks at operations, so it takes the model as it was before it was compiled."""
    plain = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).train()
    _, batch, objective = computing(lambda s, x: x)
    compiled = torch.compile(plain, backend="eager")
    expected = Looped(objective)(plain, batch, Flat(norm=1.0), SOURCE).total
    found = kind(objective)(compiled, batch, Flat(norm=1.0), SOURCE).total
    assert distance(expected, {k.removeprefix("_orig_mod."): v for k, v in found.items()}) < 1e-5


@sums
def test_nothing_of_a_sum_is_left_when_it_has_been_taken(kind):
    """A circle would keep the tape, and with it the activations, until the collector comes by."""
    plain = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).train()
    _, batch, objective = computing(lambda s, x: x)
    taken = kind(objective)
    taken.learn(plain, batch, SOURCE)
    gc.collect()
    gc.disable()
    try:
        before = sum(type(thing) is Tape for thing in gc.get_objects())
        taken(plain, batch, Flat(norm=1.0), SOURCE)
        after = sum(type(thing) is Tape for thing in gc.get_objects())
    finally:
        gc.enable()
    assert after == before


@pytest.mark.parametrize(
    ("forward", "parts"),
    [
        (lambda s, x: torch.einsum("bi,ij,bj->b", x, s.w, x)[:, None], {"w": (6, 6)}),
        (lambda s, x: (s.w @ x.T).T, {"w": (3, 6)}),
        (lambda s, x: functional.prelu(x, s.w), {"w": (6,)}),
        (lambda s, x: functional.bilinear(x, x, s.w), {"w": (3, 6, 6)}),
    ],
    ids=["einsum", "turned", "prelu", "bilinear"],
)
@pytest.mark.parametrize("kind", [Looped, *TAPED])
def test_a_unit_that_is_not_finite_takes_no_other_with_it(kind, forward, parts):
    """Mapped over the units, an operation multiplies its NaN by the zeros of the others."""
    generator = torch.Generator().manual_seed(3)
    weights = {n: nn.Parameter(torch.randn(*s, generator=generator)) for n, s in parts.items()}
    model, batch, objective = computing(forward, **weights)
    chosen = kind(objective)
    chosen.learn(model, batch, SOURCE)
    others = chosen(model, rows.select(batch, slice(1, 4)), Flat(norm=0.5), SOURCE)
    for bad in (float("nan"), -float("inf"), -1e30):
        batch["x"][0] = bad
        total = chosen(model, batch, Flat(norm=0.5), SOURCE)
        assert total.local.dropped == 1
        assert bool(total.local.norms[1:].isfinite().all())
        assert distance(total.total, others.total) <= 1e-5 * norm(others.total)


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e8])
@pytest.mark.parametrize("width", [8, 64])
@sums
def test_rounding_of_addends_that_cancel_keeps_the_bound(kind, width, scale):
    """The norm is known exactly; what float32 leaves of the addends may be as long."""

    def forward(s, x):
        rows = x[:, :1].repeat(1, width)[:, None] * torch.linspace(0.5, 1.5, width)
        return (s.head(rows) - s.head(rows * (1 + 1e-6))).tanh()

    model, batch, objective = computing(forward, head=nn.Linear(width, width))
    batch["x"] = batch["x"] * scale
    objective = Objective(lambda model, batch: model(batch["x"]).flatten(1).sum(1))
    chosen = kind(objective, verify="never")
    chosen.learn(model, batch, SOURCE)
    for unit in range(4):
        alone = rows.select(batch, slice(unit, unit + 1))
        total = chosen(model, alone, Flat(norm=1e-3), SOURCE)
        assert norm(total.total) <= 1e-3 * (1 + 1e-5)


@pytest.mark.parametrize("how", ["matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("scale", [1e6, 1e7])
@sums
def test_weights_computed_by_a_backward_that_cancels_keep_the_bound(kind, how, scale):
    """The length of what an orthogonal matrix turns does not depend on it: all that is left of its
    gradient is rounding, which is another one for each unit and for the sum."""
    torch.manual_seed(0)
    turned = orthogonal(nn.Linear(6, 6, bias=False), orthogonal_map=how)
    model = nn.ModuleDict({"turned": turned}).train()
    inputs = torch.randn(12, 6) * scale
    _, batch, _ = computing(lambda s, x: x)
    batch = {name: value[:1].repeat(12, *[1] * (value.ndim - 1)) for name, value in batch.items()}
    batch |= {"x": inputs, "unit": torch.arange(12)}
    objective = Objective(lambda model, batch: model["turned"](batch["x"]).norm(dim=1))
    chosen = kind(objective, verify="never")
    chosen.learn(model, batch, SOURCE)
    for unit in range(12):
        alone = rows.select(batch, slice(unit, unit + 1))
        total = chosen(model, alone, Flat(norm=0.1), SOURCE)
        assert norm(total.total) <= 0.1 * (1 + 1e-5)

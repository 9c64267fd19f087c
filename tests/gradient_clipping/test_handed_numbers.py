"""Numbers of the batch that torch reads in C: where one moves rows, a sum is exact or refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from nacre.core.errors import NacreError
from nacre.core.random import Source
from nacre.core.tensors import norm
from nacre.gradient_clipping import Flat, Looped
from nacre.integrations.trial import tried
from tests.laws.networks import Computed
from tests.laws.zoo import distance

CLIP = Flat(norm=0.5)
UNITS = 24


def _flagged(x):
    return x[..., 0] > 2


def _order(x):
    return _flagged(x).any(1).long().argsort(stable=True)


def _rolled(s, x, by):
    """Rows one place further and back, where the number says so."""
    hidden, count = s.enter(x).tanh(), len(x)
    found = s.leave(torch.cat([hidden, hidden])[by : by + count])
    return torch.cat([found, found])[count - by : 2 * count - by]


def _slice(s, x):
    return _rolled(s, x, _flagged(x).any().long() * (len(x) > 1))


def _is_nonzero(s, x):
    return _rolled(s, x, int(torch.is_nonzero(_flagged(x).any())) * (len(x) > 1))


def _contains(s, x):
    return _rolled(s, x, int(3.0 in x) * (len(x) > 1))


def _full_like(s, x):
    places, count = torch.arange(len(x)), len(x)
    order = (places + torch.full_like(places, _flagged(x).any().long() * (count > 1))) % count
    return s.leave(s.enter(x).tanh()[order])[order.argsort()]


def _full_like_by_name(s, x):
    places, count = torch.arange(len(x)), len(x)
    more = _flagged(x).any().long() * (count > 1)
    order = (places + torch.full_like(input=places, fill_value=more)) % count
    return s.leave(s.enter(x).tanh()[order])[order.argsort()]


def _cut(s, x):
    """A few units read as many steps as anybody has, the others their own first three."""
    last = 3 + 2 * _flagged(x).any().long()
    hidden = s.enter(x).tanh()[:, :last]
    few = (x[:, 0, 1] > 1.5)[:, None]
    return s.leave(torch.where(few, hidden.mean(1), hidden[:, :3].mean(1)))


_COMPILED = torch.jit.CompilationUnit("""
def anybody(x) -> int:
    return int((x[..., 0] > 2).any())
""")


def _script(s, x):
    """A number that is made in compiled code."""
    return _rolled(s, x, _COMPILED.anybody(x) * (len(x) > 1))


def _tokens(x):
    return (4 * x[..., 0]).long().abs() % 9


def _ends(s, x):
    """A flagged unit's bag begins one later: its first number is the bag's before it."""
    starts = torch.arange(len(x)) * 5 + _flagged(x).any(1)
    starts[0] = 0
    ids = _tokens(x).flatten()
    return s.leave(functional.embedding_bag(ids, s.table.weight, starts, mode="sum"))


def _scales(s, x):
    """Whether anybody is flagged scales everybody's numbers."""
    scales = x[..., 1] * (1 + _flagged(x).any())
    found = functional.embedding_bag(
        _tokens(x), s.table.weight, mode="sum", per_sample_weights=scales
    )
    return s.leave(found)


def _dropped(s, x):
    order = _order(x)
    return s.leave(s.enter(s.drop(x[order])[order.argsort()].expm1()).tanh())


def _operation(s, x):
    """A function of `torch.ops`, which goes by the name of one that is looked at."""
    order, hidden = _order(x), s.enter(x).tanh()
    moved = torch.ops.aten.index_put_(torch.zeros_like(hidden) * hidden, [order], hidden)
    found = s.leave(moved)
    return torch.ops.aten.index_put_(0 * found, [order.argsort()], found)


MODELS = [
    _slice, _is_nonzero, _contains, _full_like, _full_like_by_name, _cut, _script, _ends, _scales,
    _dropped, _operation,
]  # fmt: skip


def _batch(seed, units=UNITS):
    x = torch.randn(units, 5, 8, generator=torch.Generator().manual_seed(seed)).clamp(-1.9, 1.9)
    present = torch.ones(units, dtype=torch.bool)
    return {"x": x.double(), "present": present, "unit": torch.arange(units)}


def _losses(model, batch):
    found = model(batch["x"]).reshape(len(batch["unit"]), -1)
    return (found + 0.3).sin().sum(1) + 0.1 * found.square().sum(1)


@pytest.mark.parametrize("forward", MODELS)
def test_a_sum_is_exact_or_refused(forward):
    torch.manual_seed(0)
    parts = {"enter": nn.Linear(8, 8), "leave": nn.Linear(8, 3), "drop": nn.Dropout(0.3)}
    table = {"table": nn.Embedding(9, 8)} if forward in (_ends, _scales) else {}
    model = Computed(forward, **parts, **table).double().train()
    if table:
        del model.enter
    chosen = tried(model, _losses, CLIP, _batch(0, units=6), "auto")
    single = Looped(chosen.objective, owners=getattr(chosen, "owners", None), verify="never")
    for step in range(10):  # the flagged ones come where the armed check looks at one in a hundred
        batch = _batch(100 + step)
        if step > 4:
            batch["x"][step, 0, 0] = 3.0
        source = Source(bytes([step]) * 32)
        try:
            seen = chosen(model, batch, CLIP, source).total
        except NacreError:
            continue
        alone = single(model, batch, CLIP, source).total
        assert distance(seen, alone) <= 1e-9 * norm(alone)

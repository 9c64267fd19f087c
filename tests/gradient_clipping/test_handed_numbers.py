"""Numbers of the batch that torch reads in C: where one moves rows, a sum is exact or refused."""

import pytest
import torch
from torch import nn

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


def _dropped(s, x):
    order = _order(x)
    return s.leave(s.enter(s.drop(x[order])[order.argsort()].expm1()).tanh())


def _operation(s, x):
    """A function of `torch.ops`, which goes by the name of one that is looked at."""
    order, hidden = _order(x), s.enter(x).tanh()
    moved = torch.ops.aten.index_put_(torch.zeros_like(hidden) * hidden, [order], hidden)
    found = s.leave(moved)
    return torch.ops.aten.index_put_(0 * found, [order.argsort()], found)


MODELS = [_slice, _is_nonzero, _contains, _full_like, _dropped, _operation]


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
    model = Computed(forward, **parts).double().train()
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

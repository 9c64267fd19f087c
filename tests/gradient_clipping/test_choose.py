from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from nacre.adversarial_training import Standard
from nacre.core.errors import BadArgument, Incompatible, UnsupportedLayer
from nacre.core.random import Source
from nacre.gradient_clipping import (
    BookKeeping,
    Flat,
    Ghost,
    Grouped,
    Looped,
    Unclipped,
    Vmapped,
    Whole,
    choose_sum,
)
from nacre.gradient_clipping.rules import PerLayer
from tests.laws.zoo import MLP

FLAT = Flat(norm=1.0)


class Curious(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x) if x.sum() > 0 else self.head(-x)


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(checkpoint(self.inner, x, use_reentrant=False).tanh())


def _choose(name, clip, model=None, **options):
    objective, sample = Standard(MLP.task), MLP.batch(3)
    model = model or MLP.model()
    return choose_sum(name, model=model, objective=objective, clip=clip, sample=sample, **options)


@pytest.mark.parametrize(
    ("name", "clip", "kind", "why"),
    [
        ("auto", Unclipped(), Whole, "no unit is clipped"),
        ("auto", FLAT, BookKeeping, "one backward pass"),
        ("bookkeeping", FLAT, BookKeeping, "asked for"),
        ("ghost", FLAT, Ghost, "asked for"),
        ("grouped", FLAT, Grouped, "asked for"),
        ("whole", Unclipped(), Whole, "asked for"),
        ("vmapped", FLAT, Vmapped, "asked for"),
        ("looped", FLAT, Looped, "asked for"),
        ("looped", Unclipped(), Looped, "asked for"),
    ],
)
def test_the_choice_and_its_reason(name, clip, kind, why):
    chosen, reason = _choose(name, clip)
    assert type(chosen) is kind
    assert reason.startswith(why)


def test_auto_falls_back_to_the_loop_and_says_why():
    chosen, why = _choose("auto", FLAT, Checkpointed())
    assert type(chosen) is Looped
    assert why.startswith("one unit at a time, since activation checkpointing")


def test_auto_saves_memory_where_the_tape_would_not_fit():
    kept = BookKeeping(Standard(MLP.task)).kept(MLP.model(), MLP.batch(3), Source(bytes(32)))
    assert kept == 4 * (5 + 3)  # two linear layers
    chosen, why = _choose("auto", FLAT, units=1000, memory=1000 * kept)
    assert type(chosen) is Ghost and "two backward passes" in why
    assert type(_choose("auto", FLAT, units=1000, memory=3000 * kept)[0]) is BookKeeping


def test_what_was_asked_for_is_refused_rather_than_replaced():
    with pytest.raises(UnsupportedLayer, match="Curious cannot be differentiated"):
        _choose("vmapped", FLAT, Curious())
    with pytest.raises(Incompatible, match="gradients: auto"):
        _choose("whole", FLAT)


def test_trying_the_model_draws_no_global_random_numbers():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3)).train()
    before = torch.get_rng_state()
    _choose("auto", FLAT, model)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["looped", "vmapped", "whole"])
def test_half_precision_is_refused_where_no_tape_is(name):
    clip = Unclipped() if name == "whole" else FLAT
    with pytest.raises(Incompatible, match=rf"bfloat16 is for the sums of the tape.*{name}"):
        _choose(name, clip, precision="bfloat16")


def test_a_sum_with_right_norms_and_a_wrong_total_is_not_taken(monkeypatch):
    """Norms alone would let a joined weight's transposed gradient pass."""
    right = BookKeeping.__call__

    def wrong(self, *args):
        found = right(self, *args)
        return replace(found, total={k: v.flip(0) for k, v in found.total.items()})

    monkeypatch.setattr(BookKeeping, "__call__", wrong)
    with pytest.raises(UnsupportedLayer, match="their sum by"):
        _choose("bookkeeping", FLAT)
    chosen, why = _choose("auto", FLAT)
    assert type(chosen) is Looped and "disagree" in why


class Idle(nn.Module):
    """A layer that is declared and never called, as an adapter that was left out."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.left_out = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x)


@pytest.mark.parametrize("name", ["auto", "bookkeeping", "ghost", "vmapped", "looped"])
def test_a_weight_that_no_loss_depends_on_is_refused(name):
    """Noise alone would move it, and epsilon would be paid for it."""
    with pytest.raises(Incompatible, match=r"trainable weight 'left_out\.weight' and 1 more"):
        _choose(name, FLAT, Idle())
    fixed = Idle()
    fixed.left_out.requires_grad_(False)
    assert _choose(name, FLAT, fixed)
    assert _choose("auto", Unclipped(), Idle())  # without privacy it only costs memory


def test_losses_without_any_weight_are_refused():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            return self.head(x).detach()

    with pytest.raises(Incompatible, match="depend on no trainable weight"):
        _choose("auto", FLAT, Constant())


class Mapped(nn.Module):
    """Computes by a transform of `torch.func`, which no probe of the tape can enter."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 6, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        return torch.func.vmap(torch.func.jacrev(lambda row: (self.weight @ row).tanh()))(x).sum(2)


def test_transforms_of_torch_func_are_taken_one_unit_at_a_time():
    with pytest.raises(UnsupportedLayer, match=r"transform of torch.func"):
        _choose("bookkeeping", FLAT, Mapped())
    chosen, why = _choose("auto", FLAT, Mapped())
    assert type(chosen) is Looped and "torch.func" in why


@pytest.mark.parametrize("given", [{}, {"norm": 1.0, "norms": {"a": 1.0}}])
def test_a_rule_that_cannot_be_is_refused_as_every_argument_is(given):
    with pytest.raises(BadArgument):
        PerLayer(**given)

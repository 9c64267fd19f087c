"""Replies are read, checked, clipped and summed; what a party sends is never trusted."""

import math

import pytest
import torch
from torch import nn

from nacre.core.errors import PartyError
from nacre.core.random import Source
from nacre.core.tensors import norm, subtract
from nacre.core.types import Inherited, Noised, Release, Unprotected
from nacre.federated_learning import (
    Federation,
    InProcess,
    MeanAggregate,
    Median,
    Party,
    Plain,
    Reply,
)
from nacre.federated_learning.messages import RoundRequest
from nacre.gradient_clipping import Adaptive, Flat, PerLayer, Unclipped

SOURCE = Source(bytes(32))
FREE = Unprotected("a test")


def _model():
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
    return model


def _change(*values):
    return {"weight": torch.tensor([values[:2]]), "bias": torch.tensor(values[2:])}


def _reply(party, *values, number=0, kind="train", how=FREE):
    return Reply(kind, number, party, _change(*values), how).to_bytes()


class Wire:
    """A transport that gives prepared bytes; an absent key is an absent party."""

    def __init__(self, **replies):
        self.replies, self.parties, self.asked = replies, tuple(replies), {}

    def ask(self, requests):
        self.asked = dict(requests)
        return self.replies


def _total(wire, cohort, clip=None, aggregate=None, expected=None, private=False):
    gather = Plain(aggregate or MeanAggregate(), len(cohort) if expected is None else expected)
    federation = Federation(wire, gather, "ab", private)
    return federation(_model(), tuple(cohort), clip or Unclipped(), SOURCE)


FLAT = Flat(norm=1.0)
BAD = {
    "unreadable": b"hello",
    "another party": _reply("z", 1.0, 1.0, 1.0),
    "another round": _reply("b", 1.0, 1.0, 1.0, number=7),
    "another kind": _reply("b", 1.0, 1.0, 1.0, kind="evaluate"),
    "other names": Reply("train", 0, "b", {"w": torch.ones(1)}, FREE).to_bytes(),
    "other shapes": Reply(
        "train", 0, "b", {**_change(1, 1, 1), "bias": torch.ones(2)}, FREE
    ).to_bytes(),
    "not a number": _reply("b", 1.0, math.nan, 1.0),
    "infinite": _reply("b", 1.0, math.inf, 1.0),
}
bad = pytest.mark.parametrize("data", BAD.values(), ids=BAD)


def test_every_party_is_asked_the_same_bytes():
    wire = Wire(a=_reply("a", 0.0, 0.0, 0.0), b=_reply("b", 0.0, 0.0, 0.0))
    _total(wire, "ab")
    request = RoundRequest.from_bytes(wire.asked["a"])
    assert wire.asked["a"] == wire.asked["b"]
    assert (request.kind, request.round, request.recipe) == ("train", 0, "ab")
    assert set(request.tensors) == {"bias", "weight"}


def test_the_total_is_minus_the_sum_of_the_changes():
    wire = Wire(a=_reply("a", 1.0, 2.0, 3.0), b=_reply("b", 10.0, 20.0, 30.0))
    total = _total(wire, "ab")
    assert torch.equal(total.total["weight"], torch.tensor([[-11.0, -22.0]]))
    assert torch.equal(total.total["bias"], torch.tensor([-33.0]))
    assert list(total.total) == ["weight", "bias"]
    assert total.bound == math.inf


def test_each_reply_is_clipped_by_its_joint_norm():
    wire = Wire(a=_reply("a", 3.0, 0.0, 4.0), b=_reply("b", 0.3, 0.0, 0.0))
    total = _total(wire, "ab", FLAT)
    assert total.bound == 1.0
    assert torch.allclose(total.total["weight"], torch.tensor([[-0.9, 0.0]]))
    assert torch.allclose(total.total["bias"], torch.tensor([-0.8]))
    assert torch.allclose(total.local.norms, torch.tensor([[5.0], [0.3]]))
    assert total.local.dropped == 0


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e5, 3e38])
def test_no_party_is_longer_than_the_bound(size):
    stream = torch.Generator().manual_seed(1)
    for _ in range(20):
        values = (torch.randn(3, generator=stream) * size).nan_to_num().tolist()
        assert norm(_total(Wire(a=_reply("a", *values)), "a", FLAT).total) <= 1.0


def test_a_rule_with_groups_scales_each_by_its_own_factor():
    total = _total(
        Wire(a=_reply("a", 3.0, 4.0, 0.5)), "a", PerLayer(norm=math.sqrt(2), by="parameter")
    )
    assert total.bound == math.sqrt(2)
    assert torch.allclose(total.total["weight"], torch.tensor([[-0.6, -0.8]]))
    assert torch.allclose(total.total["bias"], torch.tensor([-0.5]))
    assert total.local.norms.shape == (1, 2)


def test_the_order_of_the_cohort_does_not_change_a_bit():
    stream = torch.Generator().manual_seed(2)
    wire = Wire(**{n: _reply(n, *torch.randn(3, generator=stream).tolist()) for n in "abcde"})
    one, other = _total(wire, "abcde", FLAT), _total(wire, "edbca", FLAT)
    assert all(torch.equal(one.total[name], other.total[name]) for name in one.total)


@bad
def test_under_a_bound_a_bad_reply_contributes_exactly_zero(data):
    good = _reply("a", 0.1, 0.2, 0.3)
    with_bad = _total(Wire(a=good, b=data), "ab", FLAT)
    without = _total(Wire(a=good), "ab", FLAT)
    assert norm(subtract(with_bad.total, without.total)) == 0.0
    assert (with_bad.local.dropped, without.local.dropped) == (1, 0)


@bad
def test_without_a_bound_a_bad_reply_is_named(data):
    with pytest.raises(PartyError) as caught:
        _total(Wire(a=_reply("a", 0.1, 0.2, 0.3), b=data), "ab")
    assert "'b'" in str(caught.value)


@bad
def test_a_robust_aggregate_leaves_a_bad_reply_out(data):
    wire = Wire(a=_reply("a", 1.0, 2.0, 3.0), b=data, c=_reply("c", 1.0, 2.0, 3.0))
    total = _total(wire, "abc", aggregate=Median())
    assert torch.equal(total.total["weight"], torch.tensor([[-3.0, -6.0]]))
    assert total.local.dropped == 1


def test_the_median_of_clipped_changes_has_no_bound():
    wire = Wire(**{name: _reply(name, 3.0, 4.0, 0.0) for name in "abc"})
    total = _total(wire, "abc", FLAT, Median())
    assert total.bound == math.inf
    assert torch.allclose(total.total["weight"], torch.tensor([[-1.8, -2.4]]))


def test_a_silent_party_counts_as_no_change_and_the_divisor_stays():
    total = _total(Wire(a=_reply("a", 1.0, 2.0, 3.0)), "ab")
    assert torch.equal(total.total["weight"], torch.tensor([[-1.0, -2.0]]))
    assert total.local.dropped == 0


def test_where_nobody_answers_a_bounded_sum_is_zero_and_another_an_error():
    total = _total(Wire(), "ab", FLAT)
    assert (norm(total.total), total.bound, total.local.norms.numel()) == (0.0, 1.0, 0)
    for aggregate in (MeanAggregate(), Median()):
        with pytest.raises(PartyError, match="none of 2 parties answered in round 0"):
            _total(Wire(), "ab", aggregate=aggregate)
    with pytest.raises(PartyError, match="'b'"):
        _total(Wire(b=BAD["infinite"]), "ab", aggregate=Median())


def test_an_empty_cohort_asks_nobody():
    wire = Wire(a=b"")
    for clip, bound in ((FLAT, 1.0), (Unclipped(), math.inf)):
        total = _total(wire, (), clip, expected=2.0)
        assert (norm(total.total), total.bound, wire.asked) == (0.0, bound, {})


def test_replies_that_were_not_asked_for_are_not_used():
    wire = Wire(a=_reply("a", 1.0, 0.0, 0.0), b=_reply("b", 9.0, 9.0, 9.0))
    assert torch.equal(_total(wire, "a").total["weight"], torch.tensor([[-1.0, 0.0]]))


def test_where_parties_promise_privacy_an_unprotected_change_is_refused():
    noised = _reply("a", 1.0, 0.0, 0.0, how=Noised(0.5))
    inherited = _reply("b", 1.0, 0.0, 0.0, how=Inherited(("a step",)))
    assert _total(Wire(a=noised, b=inherited), "ab", private=True).local.dropped == 0
    with pytest.raises(PartyError, match=r"'b'.*unprotected"):
        _total(Wire(a=noised, b=_reply("b", 1.0, 0.0, 0.0)), "ab", private=True)


def test_a_bounded_sum_does_not_depend_on_how_replies_say_they_left():
    wire = Wire(a=_reply("a", 1.0, 0.0, 0.0), b=_reply("b", 1.0, 0.0, 0.0, how=Noised(1.0)))
    assert _total(wire, "ab", FLAT).local.dropped == 0


def _parties():
    def train(weights, number):
        return Release({n: v + 1 + number for n, v in weights.items()}, FREE)

    like = dict(_model().named_parameters())
    return [Party(name, train, recipe="ab", rounds=9, like=like) for name in "ab"]


def test_in_process_is_the_direct_call_through_bytes():
    transport = InProcess({party.name: party.handle for party in _parties()})
    assert transport.parties == ("a", "b")
    request = RoundRequest("train", 4, "ab", dict(_model().named_parameters())).to_bytes()
    asked = transport.ask({party.name: request for party in _parties()})
    assert asked == {party.name: party.handle(request) for party in _parties()}


def test_in_process_knows_its_parties_and_hides_no_error():
    transport = InProcess({party.name: party.handle for party in _parties()})
    with pytest.raises(PartyError, match="no party 'c'"):
        transport.ask({"c": b""})
    with pytest.raises(PartyError, match="cannot be read"):
        transport.ask({"a": b""})


def test_rounds_are_asked_by_number():
    transport = InProcess({party.name: party.handle for party in _parties()})
    federation = Federation(transport, Plain(MeanAggregate(), 2.0), "ab")
    for number in (0, 1):
        total = federation.at(number)(_model(), ("a", "b"), Unclipped(), SOURCE)
        assert torch.equal(total.total["bias"], torch.tensor([-2.0 * (1 + number)]))
    with pytest.raises(PartyError, match="answered for other weights"):
        federation.at(1)(nn.Linear(2, 1), ("a", "b"), Unclipped(), SOURCE)


def test_frozen_parameters_do_not_travel():
    model = _model()
    model.bias.requires_grad_(False)
    wire = Wire(a=Reply("train", 0, "a", {"weight": torch.ones(1, 2)}, FREE).to_bytes())
    total = Federation(wire, Plain(MeanAggregate(), 1.0), "ab")(model, ("a",), Unclipped(), SOURCE)
    assert list(total.total) == ["weight"]
    assert list(RoundRequest.from_bytes(wire.asked["a"]).tensors) == ["weight"]


def test_what_rides_along_with_a_change_is_summed_and_silent_parties_answer_zero():
    rule = Adaptive(norm=1.0, share=0.5)
    wire = Wire(a=_reply("a", 0.1, 0.1, 0.1), b=_reply("b", 3.0, 3.0, 3.0), c=b"nonsense")
    total = _total(wire, ("a", "b", "c", "silent"), rule)
    assert total.total[":below"].item() == pytest.approx(0.0, abs=1e-6)
    alone = _total(Wire(a=_reply("a", 0.1, 0.1, 0.1)), ("a",), rule)
    assert alone.total[":below"].item() == pytest.approx(0.5, rel=1e-6)
    assert norm(alone.total) <= alone.bound == rule.bound(1)
    for nobody in (_total(Wire(), ("a",), rule), _total(Wire(), (), rule)):
        assert nobody.total[":below"] == 0
        assert nobody.total.keys() == alone.total.keys()

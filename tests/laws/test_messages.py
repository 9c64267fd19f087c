"""Messages: there and back for every message, and one sentence for all bytes that are none."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from nacre.core.errors import PartyError
from nacre.core.types import Inherited, Noised, Unprotected
from nacre.federated_learning import Reply, RoundRequest

quick = settings(max_examples=60, deadline=None)
names = st.text(st.characters(codec="utf-8"), max_size=12).filter(lambda s: s != "__metadata__")
values = st.lists(st.floats(width=32), max_size=4)
shapes = st.sampled_from([(-1,), (1, -1), (-1, 1, 1)])
tensors = st.dictionaries(
    names, st.tuples(values, shapes).map(lambda v: torch.tensor(v[0]).reshape(v[1])), max_size=3
)
kinds = st.sampled_from(["train", "evaluate"])
rounds = st.integers(0, 2**31 - 1)
hows = st.one_of(
    st.floats(1e-300, 1e300).map(Noised),
    st.lists(st.text(max_size=8), max_size=3).map(lambda s: Inherited(tuple(s))),
    st.text(max_size=8).map(Unprotected),
)
requests = st.builds(RoundRequest, kinds, rounds, st.text(max_size=9), tensors)
replies = st.builds(Reply, kinds, rounds, st.text(max_size=9), tensors, hows)
messages = pytest.mark.parametrize("kind", [RoundRequest, Reply])

REQUEST = RoundRequest("train", 3, "ab", {"w": torch.ones(2)})
REPLY = Reply("train", 3, "east", {"w": torch.ones(2)}, Noised(0.5))


def _same(a, b):
    assert a.tensors.keys() == b.tensors.keys()
    for name, value in a.tensors.items():
        assert value.shape == b.tensors[name].shape
        assert torch.equal(value.nan_to_num(), b.tensors[name].nan_to_num())


@pytest.mark.slow
@given(requests)
@quick
def test_a_request_goes_there_and_back(request):
    data = request.to_bytes()
    back = RoundRequest.from_bytes(data)
    assert (back.kind, back.round, back.recipe) == (request.kind, request.round, request.recipe)
    _same(back, request)
    assert back.to_bytes() == data == request.to_bytes()
    assert back.digest() == request.digest()


@pytest.mark.slow
@given(replies)
@quick
def test_a_reply_goes_there_and_back(reply):
    data = reply.to_bytes()
    back = Reply.from_bytes(data)
    assert (back.kind, back.round, back.party, back.how) == (
        reply.kind,
        reply.round,
        reply.party,
        reply.how,
    )
    _same(back, reply)
    assert back.to_bytes() == data


@messages
@given(st.binary(max_size=200))
@quick
def test_any_bytes_are_refused_in_a_sentence(kind, data):
    with pytest.raises(PartyError, match="cannot be read"):
        kind.from_bytes(data)


@pytest.mark.slow
@messages
@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_gives_a_message_or_a_refusal(kind, data):
    good = bytearray((REQUEST if kind is RoundRequest else REPLY).to_bytes())
    place = data.draw(st.integers(0, len(good) - 1))
    good[place] = data.draw(st.integers(0, 255))
    try:
        message = kind.from_bytes(bytes(good))
    except PartyError:
        return
    assert kind.from_bytes(message.to_bytes()).round == message.round


@messages
@given(st.integers(0, 400))
@quick
def test_a_message_cut_short_is_refused(kind, length):
    good = (REQUEST if kind is RoundRequest else REPLY).to_bytes()
    with pytest.raises(PartyError):
        kind.from_bytes(good[: min(length, len(good) - 1)])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def _forged(original, facts=None):
    """The bytes of a message with other facts in place."""
    data = original.to_bytes()
    size = int.from_bytes(data[:8], "little")
    known = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["nacre"])
    return save({"w": torch.ones(2)}, {"nacre": json.dumps({**known, **(facts or {})})})


@pytest.mark.slow
@pytest.mark.parametrize("message", [REQUEST, REPLY])
@given(
    st.sampled_from(["format", "message", "kind", "round", "recipe", "party", "how", "rows"]),
    json_values,
)
@settings(max_examples=150, deadline=None)
def test_a_fact_of_another_type_never_gets_through(message, field, value):
    try:
        back = type(message).from_bytes(_forged(message, {field: value}))
    except PartyError:
        return
    assert back.kind in ("train", "evaluate")
    assert type(back.round) is int
    assert field != "rows"


@pytest.mark.parametrize(
    "facts",
    [
        {"rows": 17},  # the schema is closed: a count has no place
        {"loss": 0.3},
        {"seconds": 1.5},
        {"format": 1},
        {"encoding": "float16"},
        {"encoding": "int8"},
        {"encoding": "sparse"},
        {"encoding": ["int8"]},
        {"exponents": {}},
        {"message": "request"},
        {"kind": "score"},
        {"kind": ["train"]},
        {"round": -1},
        {"round": True},
        {"round": 2**31},
        {"round": 1.0},
        {"party": 5},
        {"how": None},
        {"how": {"kind": "free"}},
        {"how": {"kind": "noised", "deviation": 0.0}},
        {"how": {"kind": "noised", "deviation": float("inf")}},
        {"how": {"kind": "noised", "deviation": float("nan")}},
        {"how": {"kind": "noised", "deviation": 10**400}},
        {"how": {"kind": "noised", "deviation": 1.0, "rows": 17}},
        {"how": {"kind": "inherited", "sources": "all"}},
        {"how": {"kind": "inherited", "sources": [3]}},
        {"how": {"kind": "unprotected", "reason": 3}},
    ],
)
def test_a_reply_with_anything_else_is_refused(facts):
    with pytest.raises(PartyError, match="a reply arrived that cannot be read"):
        Reply.from_bytes(_forged(REPLY, facts))


@messages
@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"nacre": "{}", "more": "x"},
        {"other": "{}"},
        {"nacre": "not json"},
        {"nacre": "[" * 100_000},
        {"nacre": "9" * 5000},
    ],
)
def test_metadata_of_another_make_is_refused(kind, metadata):
    with pytest.raises(PartyError):
        kind.from_bytes(save({"w": torch.ones(2)}, metadata))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float64, torch.complex64])
def test_only_float32_travels(dtype):
    text = _forged(REPLY)
    size = int.from_bytes(text[:8], "little")
    metadata = json.loads(text[8 : 8 + size])["__metadata__"]
    with pytest.raises(PartyError, match="not float32"):
        Reply.from_bytes(save({"w": torch.ones(2, dtype=dtype)}, metadata))


def test_a_request_is_no_reply():
    with pytest.raises(PartyError):
        Reply.from_bytes(REQUEST.to_bytes())
    with pytest.raises(PartyError):
        RoundRequest.from_bytes(REPLY.to_bytes())


def test_everything_that_is_asked_is_in_the_digest():
    others = [
        RoundRequest("evaluate", 3, "ab", {"w": torch.ones(2)}),
        RoundRequest("train", 4, "ab", {"w": torch.ones(2)}),
        RoundRequest("train", 3, "ac", {"w": torch.ones(2)}),
        RoundRequest("train", 3, "ab", {"v": torch.ones(2)}),
        RoundRequest("train", 3, "ab", {"w": torch.tensor([1.0, 1.0000001])}),
    ]
    assert len({REQUEST.digest(), *(other.digest() for other in others)}) == 6


def test_weights_in_double_precision_travel_as_float32():
    sent = RoundRequest("train", 0, "", {"w": torch.ones(2, dtype=torch.float64)})
    assert RoundRequest.from_bytes(sent.to_bytes()).tensors["w"].dtype == torch.float32

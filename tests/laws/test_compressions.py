"""Every compression: shapes, bytes without loss, errors within their bounds, error feedback."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.core.errors import PartyError
from nacre.core.random import Source
from nacre.core.tensors import finite
from nacre.core.types import Inherited
from nacre.data.partition import Uniform
from nacre.federated_learning import FederatedLearning, Reply
from nacre.federated_learning.encodings import decoded, exponent_of, in_encoding
from nacre.federated_learning.local.between_rounds import BetweenRounds
from nacre.federated_learning.local.compression import COMPRESSIONS, EightBits, TopK
from nacre.federated_learning.local.kept import InMemory
from nacre.federated_learning.messages import with_control
from nacre.federated_learning.options import Local

ROOT = Source(bytes(32))
numbers = st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-(2.0**-10), 2.0**-10, width=32)
changes = st.lists(st.lists(numbers, max_size=7), min_size=1, max_size=3).map(
    lambda found: {f"w{i}": torch.tensor(values) for i, values in enumerate(found)}
)
every = pytest.mark.parametrize("option", [kind() for kind in COMPRESSIONS], ids=lambda o: o.kind)


def _change():
    stream = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn(30, 20, generator=stream),
        "bias": 1e-4 * torch.randn(20, generator=stream),
    }


@every
@given(change=changes)
@settings(max_examples=60, deadline=None)
def test_what_is_compressed_comes_back_from_its_bytes_bit_for_bit(option, change):
    sent = option.compressed(change, ROOT)
    assert {n: t.shape for n, t in sent.items()} == {n: t.shape for n, t in change.items()}
    reply = Reply("train", 1, "east", sent, Inherited(()), option.encoding)
    back = Reply.from_bytes(reply.to_bytes(), change).tensors
    assert back.keys() == sent.keys()
    assert all(torch.equal(back[name], sent[name]) for name in sent)
    assert reply.to_bytes() == reply.to_bytes()


@every
def test_the_same_change_and_source_give_the_same_bytes(option):
    one, two = (option.compressed(_change(), ROOT) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@every
def test_a_message_is_smaller(option):
    plain = Reply("train", 1, "east", _change(), Inherited(()))
    sent = option.compressed(_change(), ROOT)
    packed = Reply("train", 1, "east", sent, Inherited(()), option.encoding)
    assert len(packed.to_bytes()) < 0.5 * len(plain.to_bytes())


@every
def test_with_error_feedback_nothing_is_lost(option):
    """Stich et al. 2018: what was sent and what is remembered add up to all changes so far."""
    remainder = {name: torch.zeros_like(value) for name, value in _change().items()}
    sent_so_far = {name: torch.zeros_like(value).double() for name, value in _change().items()}
    for number in range(20):
        due = {name: value + remainder[name] for name, value in _change().items()}
        sent = option.compressed(due, ROOT.child(number))
        remainder = {name: due[name] - sent[name] for name in due}
        for name in sent:
            sent_so_far[name] += sent[name]
    for name, value in _change().items():
        assert torch.allclose(sent_so_far[name] + remainder[name], 20 * value.double(), atol=1e-4)
        assert remainder[name].norm() < 40 * value.norm() + 1e-3


def test_eight_bits_err_by_less_than_a_step_and_are_right_on_average():
    change = {"w": torch.linspace(-1, 1, 1001)}
    unit = 2.0 ** exponent_of(change["w"])
    drawn = torch.stack(
        [EightBits().compressed(change, ROOT.child(i))["w"] for i in range(2000)]
    ).double()
    assert (drawn - change["w"]).abs().max() < unit
    # The mean of 2000 draws lies within 5 standard errors in all of 1001 places: false alarm 6e-4.
    assert (drawn.mean(0) - change["w"]).abs().max() < 5 * unit / 2 / 2000**0.5


@pytest.mark.parametrize("largest", [3.4e38, 1.0, 127.0, 127.00001, 1e-44, 2.0**-149])
def test_eight_bits_hold_the_largest_and_the_smallest_numbers(largest):
    change = {"w": torch.tensor([largest, -largest, 0.0])}
    sent = EightBits().compressed(change, ROOT)["w"]
    exponent = exponent_of(change["w"])
    assert (sent.double() - change["w"].double()).abs().max() <= 2.0**exponent
    assert 127 * 2.0**exponent >= change["w"].abs().max().double()
    assert exponent == -149 or 127 * 2.0 ** (exponent - 1) < change["w"].abs().max().double()


def test_top_k_sends_the_largest_entries_of_all_tensors_together():
    change = {"a": torch.tensor([3.0, -0.1, 0.2]), "b": torch.tensor([[-5.0], [0.3]])}
    sent = TopK(share=0.4).compressed(change, ROOT)
    assert sent["a"].tolist() == [3.0, 0.0, 0.0]
    assert sent["b"].tolist() == [[-5.0], [0.0]]
    assert TopK(share=1e-9).compressed(change, ROOT)["b"].tolist() == [[-5.0], [0.0]]
    whole = TopK(share=1.0).compressed(change, ROOT)
    assert all(torch.equal(whole[name], change[name]) for name in change)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan"), float("inf")])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match="must be"):
        TopK(share=share)


LIKE = {"w": torch.zeros(2, 2)}


@pytest.mark.parametrize("option", [None, *(kind(error_feedback=True) for kind in COMPRESSIONS)])
def test_a_party_whose_change_was_too_large_once_takes_part_again(option):
    """Of the largest numbers of float32 the remainder and the control are not finite any more."""
    parties, local = Uniform(names=("east", "west")), Local(steps=2, controls=True)
    recipe = FederatedLearning(parties=parties, local=local, compression=option)
    between = BetweenRounds(recipe, 1e-3, InMemory(), ROOT)
    weights = {"w": torch.zeros(20)}
    asked = with_control(weights, weights)
    for round_number, size in enumerate([torch.finfo(torch.float32).max] * 3 + [1.0]):
        change = {"w": torch.full((20,), size)}
        sent, kept = between.before(asked, round_number).sent(change, {}, bytes([round_number]))
        between.keep(round_number, kept)
        assert finite(kept)
    assert finite(sent)


VALUES, PLACES = torch.tensor([1.0, 2.0]), torch.tensor([0, 3], dtype=torch.int32)


@pytest.mark.parametrize(
    ("tensors", "like"),
    [
        ({"values": VALUES, "places": PLACES}, None),
        ({"values": VALUES}, LIKE),
        ({"values": VALUES, "places": PLACES, "w": VALUES}, LIKE),
        ({"values": VALUES, "places": PLACES + 1}, LIKE),
        ({"values": VALUES, "places": PLACES - 1}, LIKE),
        ({"values": VALUES, "places": PLACES.flip(0)}, LIKE),
        ({"values": VALUES, "places": PLACES * 0}, LIKE),
        ({"values": VALUES, "places": PLACES.long()}, LIKE),
        ({"values": VALUES.double(), "places": PLACES}, LIKE),
        ({"values": VALUES[:1], "places": PLACES}, LIKE),
        ({"values": VALUES[None], "places": PLACES[None]}, LIKE),
    ],
)
def test_sparse_tensors_that_do_not_fit_are_refused(tensors, like):
    with pytest.raises(ValueError, match=r"sparse|place|values"):
        decoded(tensors, "sparse", None, like)


@pytest.mark.parametrize(
    "exponents", [None, {}, {"w": 0.0}, {"w": True}, {"w": 123}, {"w": -150}, {"v": 0}, [0]]
)
def test_exponents_that_do_not_fit_are_refused(exponents):
    with pytest.raises(ValueError, match="exponent"):
        decoded({"w": torch.ones(2, dtype=torch.int8)}, "int8", exponents, None)


def test_numbers_that_eight_bits_do_not_hold_are_refused():
    with pytest.raises(ValueError, match="8 bits"):
        in_encoding({"w": torch.tensor([1.0, 0.3])}, "int8")
    with pytest.raises(ValueError, match="not finite"):
        in_encoding({"w": torch.tensor([float("nan")])}, "int8")


def test_a_sparse_reply_of_other_shapes_is_refused_in_a_sentence():
    sent = TopK().compressed(_change(), ROOT)
    data = Reply("train", 1, "east", sent, Inherited(()), "sparse").to_bytes()
    with pytest.raises(PartyError, match="cannot be read"):
        Reply.from_bytes(data, {"weight": torch.zeros(2)})

"""Bodies are read in one way only, and anything else is refused."""

import pytest

from nacre.core.errors import PartyError
from nacre.core.strict import canonical
from nacre.federated_learning.secure import wire

KEY = "ab" * 32


def _body(text: bytes, data=b""):
    return len(text).to_bytes(4, "big") + text + data


def test_a_body_comes_back():
    body = wire.body_of({"epoch": 3, "dropped": ["a", "b"]}, b"da", b"ta")
    facts, data = wire.read_body(body, "epoch", "dropped")
    assert facts == {"epoch": 3, "dropped": ["a", "b"]}
    assert bytes(data) == b"data"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epoch", True),
        ("epoch", -1),
        ("epoch", wire.EPOCHS),
        ("epoch", 1.0),
        ("dropped", ["b", "a"]),
        ("dropped", ["a", "a"]),
        ("dropped", [1]),
        ("dropped", ["\ud800"]),
        ("dropped", ["a\n"]),
        ("dropped", "a"),
        ("nonce", KEY.upper()),
        ("nonce", KEY[:-2]),
        ("nonce", "ab " * 21 + "a"),
        ("nonce", 7),
        ("nonces", {"a": KEY + "00"}),
        ("nonces", []),
        ("signatures", {"a": KEY}),
        ("signature", "zz" * 64),
        ("members", {"a": [KEY]}),
        ("members", {"a": KEY}),
        ("members", {"a": [KEY, 5]}),
        ("how", {"kind": "noised", "deviation": 0.0, "bound": None}),
        ("how", {"kind": "free"}),
    ],
)
def test_a_value_of_another_form_is_refused(field, value):
    with pytest.raises(PartyError, match="cannot be read"):
        wire.read_body(wire.body_of({field: value}), field)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\x00",
        _body(b"[]"),
        _body(b"{}"),
        _body(b'{"epoch": 1}'),  # a blank: another written form
        _body(b'{"epoch":1,"epoch":1}'),
        _body(b'{"epoch":1,"more":1}'),
        _body(b'{"epoch":NaN}'),
        _body(b"\xff"),
        (1 << 31).to_bytes(4, "big") + b'{"epoch":1}',
        _body(b"[" * 100_000),
    ],
)
def test_other_bytes_are_refused(body):
    with pytest.raises(PartyError, match="cannot be read"):
        wire.read_body(body, "epoch")


def test_parts_have_to_fit_exactly():
    parts = {"b": b"two", "a": b"", "c": b"x"}
    data = wire.with_lengths(parts)
    assert wire.split_by(["a", "b", "c"], memoryview(data)) == parts
    for faulty in (data[:-1], data + b"\0", b"", data[4:]):
        with pytest.raises(PartyError, match="incomplete"):
            wire.split_by(["a", "b", "c"], memoryview(faulty))


def test_what_is_no_message_of_a_secure_sum_is_none():
    for data in (b"", b"hello", canonical({}).encode()):
        assert not wire.is_secure(data)
        assert not wire.carries_release(data)
        with pytest.raises(PartyError):
            wire.right_of(data)

"""An envelope is about one thing, and any other use or change of it is refused."""

import random
from dataclasses import fields, replace

import pytest

from nacre.core.errors import PartyError
from nacre.core.strict import canonical
from nacre.federated_learning.roster import Identity, Roster
from nacre.federated_learning.signed import About, addressed, signed_message, verified_body

SERVER, EAST, WEST = (Identity.generate(name) for name in ("server", "east", "west"))
ROSTER = Roster(SERVER.public, {"east": EAST.public, "west": WEST.public})
ABOUT = About(
    sender="east",
    receiver="server",
    run="r1",
    round=3,
    recipe="ab",
    direction="reply",
    kind="train",
)
OTHER = {
    "sender": "west",
    "receiver": "west",
    "run": "r2",
    "round": 4,
    "recipe": "ac",
    "direction": "request",
    "kind": "evaluate",
}


@pytest.mark.parametrize("body", [b"", b"x", bytes(1000)])
def test_what_was_sealed_is_opened(body):
    data = signed_message(body, ABOUT, EAST)
    assert verified_body(data, ABOUT, ROSTER) == body
    assert addressed(data) == ABOUT
    assert signed_message(body, ABOUT, EAST) == data


def test_a_message_to_all_reaches_each():
    about = replace(ABOUT, sender="server", receiver="all", direction="request")
    data = signed_message(b"x", about, SERVER)
    for name in ("east", "west"):
        assert verified_body(data, replace(about, receiver=name), ROSTER) == b"x"


def test_a_replay_in_any_respect_is_refused():
    assert set(OTHER) == {field.name for field in fields(About)}
    data = signed_message(b"x", ABOUT, EAST)
    for name, value in OTHER.items():
        with pytest.raises(PartyError, match=f"whose {name} is"):
            verified_body(data, replace(ABOUT, **{name: value}), ROSTER)


def test_each_field_is_signed():
    """A header that was changed to what the receiver expects still lacks the signature."""
    data = signed_message(b"x", ABOUT, EAST)
    for name, value in OTHER.items():
        about = replace(ABOUT, **{name: value})
        forged = signed_message(b"x", about, Identity.generate(about.sender))
        for signature in (data[-64:], forged[-64:]):
            with pytest.raises(PartyError, match="signature"):
                verified_body(forged[:-64] + signature, about, ROSTER)


def test_nobody_signs_as_another():
    with pytest.raises(ValueError, match="cannot sign as"):
        signed_message(b"x", ABOUT, WEST)
    stolen = signed_message(b"x", ABOUT, Identity.generate("east"))
    with pytest.raises(PartyError, match="signature"):
        verified_body(stolen, ABOUT, ROSTER)


def test_a_signature_of_the_bare_bytes_is_none_of_an_envelope():
    data = signed_message(b"x", ABOUT, EAST)
    with pytest.raises(PartyError, match="signature"):
        verified_body(data[:-64] + EAST.sign(data[:-64]), ABOUT, ROSTER)


def test_the_limit_is_of_the_whole_envelope():
    data = signed_message(bytes(100), ABOUT, EAST)
    assert verified_body(data, ABOUT, ROSTER, limit=len(data)) == bytes(100)
    with pytest.raises(PartyError, match="the limit"):
        verified_body(data, ABOUT, ROSTER, limit=len(data) - 1)


def test_headers_of_another_form_are_refused_even_if_signed():
    facts = {field.name: getattr(ABOUT, field.name) for field in fields(About)}
    faults = [
        {**facts, "more": 1},
        {n: v for n, v in facts.items() if n != "run"},
        {**facts, "round": -1},
        {**facts, "round": True},
        {**facts, "round": 2.0},
        {**facts, "round": 2**31},
        {**facts, "direction": "up"},
        {**facts, "run": ""},
        {**facts, "run": 5},
        [],
    ]
    headers = [canonical(fault).encode() for fault in faults]
    headers += [canonical(facts).encode() + b" ", b"\xff", b"", canonical(facts).encode() * 40]
    for header in headers:
        data = _with(header)
        with pytest.raises(PartyError, match="cannot be read"):
            verified_body(data, ABOUT, ROSTER)
    with pytest.raises(ValueError, match="header"):
        signed_message(b"", replace(ABOUT, run="x" * 5000), EAST)


def _with(header):
    start = len(b"nacre signed 1\n")
    return (
        signed_message(b"", ABOUT, EAST)[:start]
        + len(header).to_bytes(4, "big")
        + header
        + bytes(64)
    )


def test_a_thousand_mutated_envelopes_are_refused():
    """Bits flipped, bytes put in, taken out, cut off and repeated, at each place of a small one."""
    rng = random.Random(7)
    data = signed_message(b"the body", ABOUT, EAST)
    mutated = {data[:place] for place in range(len(data))}
    while len(mutated) < 1500:
        place, kind = rng.randrange(len(data)), rng.randrange(4)
        byte = bytes([rng.randrange(256)])
        if kind == 0:
            mutated.add(
                data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
            )
        elif kind == 1:
            mutated.add(data[:place] + byte + data[place:])
        elif kind == 2:
            mutated.add(data[:place] + data[place + rng.randrange(1, 9) :])
        else:
            mutated.add(data[:place] + data[place : place + 9] + data[place:])
    for other in mutated - {data}:
        with pytest.raises(PartyError):
            verified_body(other, ABOUT, ROSTER)

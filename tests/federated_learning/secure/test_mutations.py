"""Mutated, forged, replayed and reordered messages: refused, or the right sum; never a crash."""

import random

import pytest
import torch

from nacre.core.errors import PartyError
from nacre.federated_learning.roster import Identity
from nacre.federated_learning.secure import wire
from nacre.federated_learning.signed import addressed, enclosed, signed_message
from tests.federated_learning.secure.rounds import Federation

KINDS = (wire.ADVERTISE, wire.SHARE, wire.CONFIRM, wire.MASK, wire.SIGN, wire.UNMASK)


def mutated(data, rng):
    """Other bytes: flipped, put in, taken out, cut off, repeated, or all at random."""
    place, kind = rng.randrange(len(data)), rng.randrange(6)
    if kind == 0:
        return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
    if kind == 1:
        return data[:place] + rng.randbytes(rng.randrange(1, 40)) + data[place:]
    if kind == 2:
        return data[:place] + data[place + rng.randrange(1, 40) :]
    if kind == 3:
        return data[:place]
    if kind == 4:
        return data + data[place:]
    return rng.randbytes(rng.randrange(400))


def _right(made, total, number):
    """Whether a sum is the plain one over all, or over all but one."""
    wholes = [set(made.names), *(set(made.names) - {name} for name in made.names)]
    want = [made.expected(some, number) for some in wholes]
    return any(all(torch.equal(total.total[n], w[n]) for n in w) for w in want)


@pytest.mark.parametrize("way", ["request", "reply"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_message_gives_the_right_sum_or_a_refusal(way, kind):
    """One message of each round is another: 432 rounds over all kinds and both ways. A party in
    round 1 is away, so that every kind is sent."""
    rng = random.Random(f"{way} {kind}")
    hits = refused = 0
    for seed in range(36):
        made = Federation(5, 4 if kind != wire.SIGN else 3, rounds=1, seed=seed % 3, colluders=0)
        victim = rng.choice(made.names[:4])
        if kind == wire.SIGN:
            made.wire.gone[wire.MASK] = {"p004"}

        def change(w, k, name, data, victim=victim):
            nonlocal hits
            if (w, k, name) != (way, kind, victim):
                return data
            other = mutated(data, rng)
            while other == data:
                other = mutated(data, rng)
            hits += 1
            return other

        made.wire.change = change
        try:
            total = made.round()
        except PartyError:
            refused += 1
            continue
        assert _right(made, total, 0)
    assert hits >= 36
    assert refused < 36, "every round was refused, so nothing is seen of the sums"


def test_forged_replies_count_as_none():
    """A reply signed by another party or a stranger, by each in turn."""
    made = Federation(5, 4, rounds=4)
    made.round(0)
    signers = [made.keys.member(name)._identity for name in made.names]
    signers.append(Identity.generate("p001"))
    for number, kind in enumerate((wire.MASK, wire.UNMASK, wire.SIGN), 1):
        gone = {"p004"} if kind == wire.SIGN else set()
        made.wire.gone[wire.MASK] = gone
        signer = signers[(number * 2) % len(signers)]

        def forge(way, k, name, data, kind=kind, signer=signer):
            if (way, k, name) != ("reply", kind, "p001"):
                return data
            about = addressed(data)
            known = signer.name
            forged = Identity.__new__(Identity)
            forged.name, forged._key = about.sender, signer._key
            assert known != "p001" or signer is signers[-1]
            return signed_message(bytes(enclosed(data)), about, forged)

        made.wire.change = forge
        if kind == wire.SIGN:
            with pytest.raises(PartyError, match="no sum is opened"):
                made.round(number)
        else:
            assert _right(made, made.round(number), number)


def test_replayed_and_swapped_messages_give_the_right_sum_or_a_refusal():
    """Each message is put in the place of each other one: of another kind, round or party, in the
    same direction."""
    recorded = Federation(5, 4, rounds=2)
    recorded.wire.gone[wire.MASK] = {"p004"}
    recorded.round(0)
    recorded.round(1)
    messages = [entry for entry in recorded.wire.seen if entry[2] in ("p000", "p001")]
    rng = random.Random(5)
    pairs = [
        (place, other)
        for place in messages
        for other in messages
        if place[0] == other[0] and place[3] != other[3]
    ]
    assert len(pairs) > 300
    tried = 0
    for place, other in rng.sample(pairs, 150):
        made = Federation(5, 4, rounds=2)
        made.wire.gone[wire.MASK] = {"p004"}

        def swap(way, kind, name, data, place=place, other=other):
            nonlocal tried
            if data == place[3]:
                tried += 1
                return other[3]
            return data

        made.wire.change = swap
        for number in (0, 1):
            try:
                total = made.round(number)
            except PartyError:
                continue
            survivors = [set(made.names) - {"p004"}]
            want = [made.expected(some, number) for some in survivors]
            assert any(all(torch.equal(total.total[n], w[n]) for n in w) for w in want)
    assert tried >= 150


def _resigned(made, name, data, change):
    """The message of a party that does not follow the protocol, signed as it should be."""
    about, body = addressed(data), bytes(enclosed(data))
    return signed_message(change(body), about, made.keys.member(name)._identity)


def test_a_party_that_prepares_nonsense_and_drops_out_is_named():
    """What it made known at the start does not give its key, once it drops out."""
    made = Federation(5, 4, rounds=1)

    def change(way, kind, name, data):
        if (way, kind, name) != ("reply", wire.SHARE, "p001"):
            return data
        return _resigned(made, name, data, lambda body: body[:-1] + bytes([body[-1] ^ 1]))

    made.wire.change = change
    made.wire.gone[wire.MASK] = {"p001"}
    with pytest.raises(PartyError, match="secret of party 'p001' do not give that secret"):
        made.round()


@pytest.mark.parametrize("place", [0, 2])
def test_a_party_with_a_key_that_nobody_agrees_with_is_left_out(place):
    """A key of low order, of the channel or of round 1: the others would train and refuse."""
    made = Federation(5, 4, rounds=3)

    def change(way, kind, name, data):
        if (way, kind, name) != ("reply", wire.ADVERTISE, "p001"):
            return data
        end = -32 * (3 - place)
        return _resigned(made, name, data, lambda body: body[: end - 32] + bytes(32) + body[end:])

    made.wire.change = change
    for number in range(3):
        total = made.round(number).total
        expected = made.expected(set(made.names) - {"p001"}, number)
        assert all(torch.equal(total[name], expected[name]) for name in expected)
    assert not any(name == "p001" for name, _ in made.trained)


@pytest.mark.parametrize("kind", [wire.SHARE, wire.MASK, wire.SIGN, wire.UNMASK, wire.ADVERTISE])
@pytest.mark.parametrize("dropped", [False, True])
def test_a_party_that_signs_nonsense_spoils_no_sum_unseen(kind, dropped):
    """A wrong share, known value, commitment or key, in a message with a good signature: the sum is
    the right one or refused. (A wrong masked change is another change, which nobody can see.)"""
    rng, refused = random.Random(f"{kind} {dropped}"), 0
    for seed in range(12):
        made = Federation(5, 4 - dropped, rounds=1, seed=seed, colluders=0)
        if dropped:
            made.wire.gone[wire.MASK] = {"p004"}

        def change(way, k, name, data, made=made):
            if (way, k, name) != ("reply", kind, "p001"):
                return data

            def other(body):
                end = len(body) - (17 * 4 if kind == wire.MASK else 0)
                place = rng.randrange(end)
                return (
                    body[:place] + bytes([body[place] ^ 1 << rng.randrange(8)]) + body[place + 1 :]
                )

            return _resigned(made, name, data, other)

        made.wire.change = change
        try:
            total = made.round()
        except PartyError:
            refused += 1
            continue
        names = set(made.names) - ({"p004"} if dropped else set())
        wants = [made.expected(some, 0) for some in (names, names - {"p001"})]
        assert any(all(torch.equal(total.total[n], want[n]) for n in want) for want in wants)
    assert refused or kind in (wire.SIGN, wire.ADVERTISE, wire.SHARE)

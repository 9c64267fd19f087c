"""A server that does as it likes: it has its own key, every message, and `colluders` parties."""

import hashlib

import pytest

from nacre.core.errors import PartyError
from nacre.federated_learning.answers import Remembered
from nacre.federated_learning.messages import RoundRequest
from nacre.federated_learning.roster import ALL, Identity
from nacre.federated_learning.secure import wire
from nacre.federated_learning.secure.keys import pair_seed, round_key, self_seed
from nacre.federated_learning.secure.masks import add_masks, packed, unpacked
from nacre.federated_learning.secure.member import round_public
from nacre.federated_learning.secure.sharing import from_bytes, known_count, recovered
from nacre.federated_learning.secure.survivors import Members
from nacre.federated_learning.signed import enclosed, message_digest, signed_message
from tests.federated_learning.secure.rounds import LIKE, RECIPE, Federation, Wire

P = ["p000", "p001", "p002", "p003", "p004"]


class Server:
    """Signs what it likes with the server's key, and asks single parties."""

    def __init__(self, made):
        self.made, self.terms = made, made.keys.terms
        self.identity = made.gather._identity
        self.members = None

    def signed(self, kind, number, facts, *data, to=ALL):
        about = self.terms.about(kind, number, to, "request")
        return signed_message(wire.body_of(facts, *data), about, self.identity)

    def ask(self, name, kind, number, facts, *data):
        """The body of a party's reply."""
        self.last = self.signed(kind, number, facts, *data)
        reply = self.made.wire.handlers[name](self.last)
        return enclosed(reply)

    def mask(self, name, number, epoch=0):
        request = RoundRequest("train", number, RECIPE, LIKE).to_bytes()
        return self.ask(name, wire.MASK, number, {"epoch": epoch}, request)

    def sign(self, name, number, dropped):
        body = self.ask(name, wire.SIGN, number, {"epoch": 0, "dropped": dropped})
        return wire.read_body(body, "signature")[0]["signature"]

    def unmask(self, name, number, dropped=(), signatures=None):
        facts = {"epoch": 0, "dropped": list(dropped), "signatures": signatures or {}}
        return wire.read_body(self.ask(name, wire.UNMASK, number, facts))[1]


@pytest.fixture
def made():
    """Five parties that have exchanged keys; round 0 is done."""
    made = Federation(5, 4, rounds=4)
    made.round(0)
    made.server = Server(made)
    made.server.members = made.gather._session.members
    return made


def refused(match="refuses"):
    return pytest.raises(PartyError, match=match)


def _signatures(server, number, dropped, names):
    return {name: server.sign(name, number, dropped) for name in names}


def test_a_change_in_the_open_is_refused(made):
    for data in (RoundRequest("train", 1, RECIPE, LIKE).to_bytes(), b"", b"nacre signed 1\n"):
        with pytest.raises(PartyError):
            made.wire.handlers["p000"](data)
    with refused("no message of it"):
        made.server.ask("p000", "train", 1, {})
    assert all(number == 0 for _, number in made.trained)


def test_two_lists_of_survivors_are_refused_in_every_order(made):
    server = made.server
    for number, (one, other) in enumerate([((), ("p004",)), (("p004",), ("p003",))], 1):
        for name in P:
            server.mask(name, number)
        if one:
            signatures = _signatures(server, number, list(one), P[:4])
            server.unmask("p000", number, one, signatures)
        else:
            server.unmask("p000", number)
        with refused("another"):
            server.sign("p000", number, list(other))
        with refused("another"):
            server.unmask("p000", number, other, {})
        if one:
            with refused("another"):
                server.unmask("p001", number)  # it has signed a list


def test_who_signed_a_list_gives_no_shares_for_all(made):
    server = made.server
    server.mask("p000", 1)
    server.sign("p000", 1, ["p004"])
    with refused("another list"):
        server.unmask("p000", 1)
    with refused("another"):
        server.sign("p000", 1, ["p003"])


def test_a_list_takes_as_many_signatures_as_the_threshold(made):
    server = made.server
    for name in P[:4]:
        server.mask(name, 1)
    signatures = _signatures(server, 1, ["p004"], P[:4])
    for faulty in (
        {},
        dict(list(signatures.items())[:3]),
        {**dict(list(signatures.items())[:3]), "p004": signatures["p003"]},  # said to be gone
        {**dict(list(signatures.items())[:3]), "p003": signatures["p002"]},  # of somebody else
        {**dict(list(signatures.items())[:3]), "p009": signatures["p003"]},  # of nobody
    ):
        with refused("signed what it has seen|no survivor's|signature is not that"):
            server.unmask("p000", 1, ["p004"], faulty)
    server.unmask("p000", 1, ["p004"], signatures)


def test_signatures_of_another_round_or_list_count_as_none(made):
    server = made.server
    for number in (1, 2):
        for name in P[:4]:
            server.mask(name, number)
    old = _signatures(server, 1, ["p004"], P[:4])
    with refused("signature is not that"):
        server.unmask("p000", 2, ["p004"], old)


def test_the_threshold_is_the_parties_own(made):
    server = made.server
    for name in P[:3]:
        server.mask(name, 1)
    with refused("3 parties are left and the threshold is 4"):
        server.sign("p000", 1, ["p003", "p004"])
    with refused("3 parties are left and the threshold is 4"):
        server.unmask("p000", 1, ["p003", "p004"], {})


def test_nobody_helps_to_open_itself(made):
    with refused("dropped out itself"):
        made.server.sign("p000", 1, ["p000"])


def test_a_round_is_masked_once(made):
    """Neither for other weights nor in another epoch; the identical request gets the same bytes."""
    server = made.server
    first = bytes(server.mask("p000", 1))
    assert bytes(server.mask("p000", 1)) == first
    other = {name: value + 1 for name, value in LIKE.items()}
    request = RoundRequest("train", 1, RECIPE, other).to_bytes()
    with refused("another request under this number"):
        server.ask("p000", wire.MASK, 1, {"epoch": 0}, request)
    with refused("no part in this epoch"):
        server.mask("p000", 2, epoch=1)


@pytest.mark.parametrize(
    ("number", "inside"), [(1, ("train", 2)), (1, ("evaluate", 1)), (9, ("train", 9))]
)
def test_the_round_inside_is_that_of_the_envelope_and_was_agreed(made, number, inside):
    request = RoundRequest(*inside, RECIPE, LIKE).to_bytes()
    with refused("the round inside is another|rounds were agreed"):
        made.server.ask("p000", wire.MASK, number, {"epoch": 0}, request)
    with refused("cannot be read"):
        made.server.ask("p000", wire.MASK, number, {"epoch": 0}, b"no request")


def _advertised(made, epoch, names):
    server = made.server
    sent = {
        name: made.wire.handlers[name](server.signed(wire.ADVERTISE, epoch, {"epoch": epoch}))
        for name in names
    }
    entries = {
        name: [
            hashlib.sha256(data).hexdigest(),
            wire.read_body(enclosed(data), "commitment")[0]["commitment"],
        ]
        for name, data in sent.items()
    }
    return sent, entries


def _share(made, name, epoch, sent, entries, nonces=None):
    facts = {"epoch": epoch, "members": entries, "nonces": nonces or {}}
    return made.server.ask(name, wire.SHARE, epoch, facts, wire.with_lengths(sent))


def test_keys_that_a_party_did_not_sign_are_refused(made):
    """A server that puts its own keys in a party's place would know its masks."""
    sent, entries = _advertised(made, 1, P)
    forged = Identity.generate("p001")
    body = bytes(enclosed(sent["p001"]))
    fake = signed_message(body, made.keys.terms.about(wire.ADVERTISE, 1, "p001", "reply"), forged)
    other = {**entries, "p001": [hashlib.sha256(fake).hexdigest(), entries["p001"][1]]}
    with refused("signature is not that of 'p001'"):
        _share(made, "p000", 1, {**sent, "p001": fake}, other)


def test_keys_of_another_epoch_or_party_are_refused(made):
    old, old_entries = _advertised(made, 1, P)
    sent, entries = _advertised(made, 2, P)
    with refused("whose round is"):
        _share(
            made, "p000", 2, {**sent, "p001": old["p001"]},
            {**entries, "p001": old_entries["p001"]},
        )  # fmt: skip
    made.wire.handlers["p002"] = made.party("p002").handle
    with refused("whose sender is"):
        _share(made, "p003", 2, {**sent, "p001": sent["p002"]}, entries)


def test_a_partys_own_keys_cannot_be_replaced_or_left_out(made):
    sent, entries = _advertised(made, 1, P)
    swapped = {**entries, "p000": entries["p001"]}
    without = {name: entry for name, entry in entries.items() if name != "p000"}
    for faulty in (swapped, without):
        with refused("its own keys are shown as others"):
            _share(made, "p000", 1, {n: sent[n] for n in faulty}, faulty)


def test_too_few_members_or_strangers_are_refused(made):
    sent, entries = _advertised(made, 1, P)
    few = {name: entries[name] for name in P[:3]}
    with refused("3 parties take part, and the threshold is 4"):
        _share(made, "p000", 1, {n: sent[n] for n in few}, few)
    more = {**entries, "p900": entries["p001"]}
    with refused("outside the roster"):
        _share(made, "p000", 1, {**sent, "p900": sent["p001"]}, more)


def test_members_have_to_be_confirmed_by_as_many_as_the_threshold(made):
    sent, entries = _advertised(made, 1, P)
    signed = {}
    for name in P:
        body = _share(made, name, 1, sent, entries)
        signed[name] = wire.read_body(body, "signature")[0]["signature"]
    with refused("not confirmed"):
        made.server.mask("p000", 1, epoch=1)
    for kind, more in ((wire.SIGN, {}), (wire.UNMASK, {"signatures": {}})):
        with refused("not confirmed"):  # a list that it alone may have been shown
            made.server.ask("p000", kind, 1, {"epoch": 1, "dropped": [], **more})
    few = dict(list(signed.items())[:3])
    with refused("3 parties signed"):
        made.server.ask("p000", wire.CONFIRM, 1, {"epoch": 1, "signatures": few})
    with refused("signature is not that"):
        wrong = {**few, "p003": signed["p004"]}
        made.server.ask("p000", wire.CONFIRM, 1, {"epoch": 1, "signatures": wrong})
    made.server.ask("p000", wire.CONFIRM, 1, {"epoch": 1, "signatures": signed})
    made.server.mask("p000", 1, epoch=1)


def test_members_that_differ_between_parties_find_no_threshold_of_signatures(made):
    """Two lists of members: each has too few signatures, so no change is masked for either."""
    sent, entries = _advertised(made, 1, P)
    one = {name: entries[name] for name in P[:4]}
    other = {name: entries[name] for name in P[1:]}
    signed = {}
    for name, shown in (("p000", one), ("p001", one), ("p002", other), ("p003", other)):
        body = _share(made, name, 1, {n: sent[n] for n in shown}, shown)
        signed[name] = wire.read_body(body, "signature")[0]["signature"]
    with refused("another request|showed other members"):
        _share(made, "p001", 1, {n: sent[n] for n in other}, other)
    for name in ("p000", "p002"):
        with refused("no survivor's|signature is not that"):
            made.server.ask(name, wire.CONFIRM, 1, {"epoch": 1, "signatures": signed})


def test_the_seed_of_the_graph_is_what_all_committed_to():
    made = Federation(51, 45, rounds=1)
    made.server = Server(made)
    sent, entries = _advertised(made, 0, made.names)
    nonces = {}
    shown = {"epoch": 0, "members": entries}
    with refused("not asked for|nonce"):
        _share(made, "p000", 0, sent, entries, dict.fromkeys(made.names, "00" * 32))
    for name in made.names:
        body = made.server.ask(name, wire.REVEAL, 0, shown)
        nonces[name] = wire.read_body(body, "nonce")[0]["nonce"]
    with refused("a nonce is not the one committed to"):
        _share(made, "p000", 0, sent, entries, {**nonces, "p003": nonces["p004"]})
    fewer = {name: entries[name] for name in made.names[:50]}
    with refused("showed other members|another request|so few parties"):
        made.server.ask("p000", wire.REVEAL, 0, {"epoch": 0, "members": fewer})
    members = Members(made.keys.terms, 0, entries, nonces)
    near = members.neighbours["p000"]
    _share(made, "p000", 0, {n: sent[n] for n in near}, entries, nonces)


class Collected:
    """All that a lying server has of a round: masked changes, and shares by dealer and place."""

    def __init__(self, made, number):
        self.made, self.number = made, number
        self.session, self.terms = made.gather._session, made.keys.terms
        self.members = self.session.members
        self.asked = b""
        self.bodies, self.shares = {}, {("self", n): {} for n in P} | {("pair", n): {} for n in P}

    def mask(self, *names):
        for name in names:
            body = self.made.server.mask(name, self.number)
            self.asked = message_digest(self.made.server.last)
            self.bodies[name] = wire.read_body(body, "commitment", "how")[1]

    def unmask(self, name, dropped=(), signatures=None):
        data = self.made.server.unmask(name, self.number, dropped, signatures)
        dealers = self.members.holders(name)
        for dealer, value in zip(dealers, from_bytes(bytes(data)), strict=True):
            kind = "pair" if dealer in dropped else "self"
            self.shares[kind, dealer][self.members.holders(dealer).index(name) + 1] = value

    def opened(self, name):
        """A party's change, from its masked vector and secrets that are open; PartyError where the
        shares do not reach."""
        each = known_count(5, 4)
        body = self.bodies[name]
        known = from_bytes(bytes(body[: 32 * each]))
        vector = unpacked(body[32 * each :], self.terms.grid.bits)
        secret = recovered(self.shares["self", name], known, 5, 4)
        add_masks(vector, [(self_seed(secret), -1)])
        number = self.number
        kept = self.session._known[name][number * each : (number + 1) * each]
        key = round_key(recovered(self.shares["pair", name], kept, 5, 4))
        epoch = (self.terms.run, self.terms.recipe, 0)
        for other in self.members.neighbours[name]:
            public = round_public(self.session._advertised[other], number)
            seed = pair_seed(key, public, epoch, number, self.asked, name, other)
            add_masks(vector, [(seed, 1 if other < name else -1)])  # the smaller name adds it
        return vector


def test_a_server_that_says_of_a_party_that_it_dropped_out_does_not_open_it(made):
    """It has the masked change of p004, and opens the sum over the others. All parties give what
    they give; a colluder (one: 2 * 4 - 5 - 1 = 2) adds both kinds of its own shares."""
    found = Collected(made, 1)
    found.mask(*P)
    signatures = _signatures(made.server, 1, ["p004"], P[:4])
    for name in P[:4]:
        found.unmask(name, ["p004"], signatures)
    assert len(found.shares["pair", "p004"]) == 4
    assert found.shares["self", "p004"] == {}
    _colluding(found, "p000", 1)
    _colluding(found, "p001", 1)
    assert len(found.shares["self", "p004"]) == 2
    with pytest.raises(PartyError, match="takes 4"):
        found.opened("p004")
    for name in P[2:4]:
        with pytest.raises(PartyError, match="takes 4"):
            found.opened(name)


def _colluding(found, name, number):
    """Adds both kinds of the shares that a party on the server's side has."""
    from nacre.federated_learning.secure.keys import held_share

    member = found.made.wire.handlers[name].__self__._member
    epoch, keys = member._epochs[0], member._keys_of(0)
    for dealer in found.members.holders(name):
        place = found.members.holders(dealer).index(name) + 1
        key = member._share_key(epoch, keys, dealer)
        for kind in ("self", "pair"):
            found.shares[kind, dealer][place] = held_share(key, kind, number, dealer, name)


def test_two_views_and_two_colluders_open_nobody(made):
    """c = 2 t - n - 1 = 2. Views () and (p004) are shown to as many parties as the protocol lets
    the server. With shares of all four others p004 is open, and the same lines open it."""
    found = Collected(made, 1)
    found.mask(*P)
    found.unmask("p003")  # the view without dropouts: one honest party
    _colluding(found, "p000", 1)
    _colluding(found, "p001", 1)
    signatures = _signatures(made.server, 1, ["p004"], ["p000", "p001", "p002"])
    with refused("3 parties signed"):
        found.unmask("p002", ["p004"], signatures)
    with refused("another"):
        made.server.sign("p003", 1, ["p004"])
    with pytest.raises(PartyError, match="takes 4"):
        found.opened("p004")
    _colluding(found, "p002", 1)
    with pytest.raises(PartyError, match="takes 4"):
        found.opened("p004")
    _colluding(found, "p003", 1)
    vector = found.opened("p004")
    assert packed(vector, 32) == packed(made.encoded("p004", 1), 32)


def test_an_opened_key_of_a_round_opens_no_other_round(made):
    """p004 drops out in round 2, whose pair secret is put together. With every message of rounds 0
    to 3 and that secret, the masks of the other rounds are not those that it gives."""
    for number in (1, 2, 3):
        found = Collected(made, number)
        gone = ["p004"] if number == 2 else []
        found.mask(*[name for name in P if name not in gone])
        signatures = _signatures(made.server, number, gone, P[:4]) if gone else {}
        for name in P[:4]:
            found.unmask(name, gone, signatures)
        if gone:
            each = known_count(5, 4)
            known = found.session._known["p004"][2 * each : 3 * each]
            secret = recovered(found.shares["pair", "p004"], known, 5, 4)
            key = round_key(secret)
            own = found.session._advertised["p004"]
            assert key.public_key().public_bytes_raw() == round_public(own, 2)
        else:
            assert found.shares["pair", "p004"] == {}
    member = made.wire.handlers["p004"].__self__._member
    keys = member._keys_of(0)
    epoch = (made.keys.terms.run, RECIPE, 0)
    advertised = found.session._advertised["p000"]
    for number in range(4):
        public = round_public(advertised, number)
        real = keys.mask_seeds(number, {"p000": public}, b"asked")["p000"]
        found_out = pair_seed(key, public, epoch, number, b"asked", "p004", "p000")
        assert (found_out == real) == (number == 2)
    assert len({keys.secret(kind, n) for kind in ("self", "pair") for n in range(4)}) == 8


def test_parties_that_are_sent_other_weights_share_no_masks(made):
    """A server that sends weights to all but one that leave nothing to learn, to be left with the
    change of that one: with all shares given, what it has is masked still."""
    server = made.server
    for number, differ in ((1, False), (2, True)):
        found = Collected(made, number)
        found.mask(*P[1:])
        weights = {name: value + differ for name, value in LIKE.items()}
        request = RoundRequest("train", number, RECIPE, weights).to_bytes()
        body = server.ask("p000", wire.MASK, number, {"epoch": 0}, request)
        found.bodies["p000"] = wire.read_body(body, "commitment", "how")[1]
        total = 0
        for name in P:
            found.unmask(name)
        for name in P:
            data = found.bodies[name]
            vector = unpacked(data[64:], 32)
            secret = recovered(found.shares["self", name], from_bytes(bytes(data[:64])), 5, 4)
            add_masks(vector, [(self_seed(secret), -1)])
            total = total + vector
        want = sum(made.encoded(name, number) for name in P)
        assert (total != want).sum() == (17 if differ else 0)


def test_the_public_side_is_that_of_the_protocol(made):
    """A wire that only listens sees no shares before they are asked for, and no change."""
    kinds = {kind for _, kind, _, _ in made.wire.seen}
    assert kinds == {wire.ADVERTISE, wire.SHARE, wire.CONFIRM, wire.MASK, wire.UNMASK}
    assert isinstance(made.wire, Wire)
    plain = [packed(made.encoded(name, 0), 32) for name in P]
    assert not any(part in data for part in plain for _, _, _, data in made.wire.seen)


def test_an_unknown_run_recipe_or_sender_is_refused(made):
    terms = made.keys.terms
    body = wire.body_of({"epoch": 1})
    member = made.wire.handlers["p000"].__self__._member
    from dataclasses import replace

    right = terms.about(wire.ADVERTISE, 1, "p000", "request")
    for change in (
        {"run": "other"},
        {"recipe": "cd"},
        {"receiver": "p001"},
        {"direction": "reply"},
    ):
        data = signed_message(body, replace(right, **change), made.server.identity)
        with refused("whose"):
            member.handle(data, Remembered(), lambda asked: None)
    stranger = Identity.generate("server")
    with refused("signature"):
        member.handle(signed_message(body, right, stranger), Remembered(), lambda asked: None)
    with refused("not that of the envelope"):
        made.server.ask("p000", wire.ADVERTISE, 2, {"epoch": 1})

"""The server's side of a secure sum: exchanges keys once, then opens one sum a round.

A round asks once for masked changes and once for shares, and a third time, in between, for
signatures, where somebody dropped out. One ask would not do, whatever the protocol is: a server
that could open the sum over all from their first messages alone, and the sum over the others where
one dropped out, could say of any party that it dropped out and subtract.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from nacre.core.errors import PartyError
from nacre.core.parts import Transport
from nacre.core.types import Inherited, Noised
from nacre.federated_learning.messages import How, how_from_json
from nacre.federated_learning.roster import ALL, Identity
from nacre.federated_learning.secure import wire
from nacre.federated_learning.secure.derived import agreed_key
from nacre.federated_learning.secure.keys import commitment, pair_seed, round_key, self_seed
from nacre.federated_learning.secure.masks import RingVector, add_masks, unpacked
from nacre.federated_learning.secure.member import KEY, keys_of, round_public
from nacre.federated_learning.secure.sharing import BYTES, from_bytes, known_count, recovered
from nacre.federated_learning.secure.survivors import Members, SumTerms
from nacre.federated_learning.signed import message_digest, signed_message, verified_message

_ROOM = 1 << 16  # bytes of a reply beyond its data: envelope and facts


@dataclass(frozen=True)
class Masked:
    """What one party sent in a round."""

    commitment: str  # to its self secret; hex
    how: How
    known: list[int]  # values of its self secret
    vector: RingVector


@dataclass(frozen=True)
class Opened:
    """The sum of a round over those who answered."""

    total: RingVector
    survivors: list[str]
    dropped: list[str]
    faults: list[PartyError]  # of replies that could not be used, and count as none


@dataclass
class Asking:
    """Signs requests, verifies replies; a reply that does not fit counts as none."""

    transport: Transport
    identity: Identity
    terms: SumTerms
    faults: list[PartyError] = field(default_factory=list[PartyError])

    def ask(
        self,
        kind: str,
        number: int,
        bodies: Mapping[str, bytes] | bytes,
        names: Iterable[str] = (),
        data: int = 0,  # bytes that a reply has beyond its facts
    ) -> dict[str, tuple[bytes, memoryview]]:
        """The whole replies and their bodies, in the order of the names. One body for all is signed
        once."""
        if isinstance(bodies, bytes):
            return self.send(kind, number, self.signed(bodies, kind, number, ALL), names, data)
        requests = {n: self.signed(body, kind, number, n) for n, body in bodies.items()}
        return self._sent(kind, number, requests, data)

    def send(
        self, kind: str, number: int, message: bytes, names: Iterable[str], data: int
    ) -> dict[str, tuple[bytes, memoryview]]:
        """As `ask`, of one signed message for all."""
        return self._sent(kind, number, dict.fromkeys(names, message), data)

    def _sent(
        self, kind: str, number: int, requests: Mapping[str, bytes], data: int
    ) -> dict[str, tuple[bytes, memoryview]]:
        replies = self.transport.ask(requests)
        found: dict[str, tuple[bytes, memoryview]] = {}
        for name in sorted(requests.keys() & replies.keys()):
            expected = self.terms.about(kind, number, name, "reply")
            try:
                body, _ = verified_message(
                    replies[name], expected, self.terms.roster, limit=data + _ROOM
                )
            except PartyError as fault:
                self.fault(name, fault)
                continue
            found[name] = replies[name], body
        return found

    def fault(self, name: str, fault: Exception) -> None:
        """Remembers why a reply was not used."""
        self.faults.append(PartyError(f"party {name!r}: {fault}"))

    def signed(self, body: bytes, kind: str, number: int, receiver: str) -> bytes:
        """A request."""
        about = self.terms.about(kind, number, receiver, "request")
        return signed_message(body, about, self.identity)

    def require(self, count: int, what: str) -> None:
        """Raises `PartyError` where fewer parties than the threshold did something."""
        if count < self.terms.threshold:
            raise PartyError(
                f"{count} parties {what} and `threshold` is {self.terms.threshold}, so no sum is "
                "opened" + (f" ({self.faults[0]})" if self.faults else "") + "; see that they run "
                "and resume"
            ) from (self.faults[0] if self.faults else None)


class Session:
    """The rounds of one epoch, with the keys that its members exchanged."""

    def __init__(
        self,
        members: Members,
        advertised: Mapping[str, bytes],
        known: Mapping[str, Sequence[int]],  # values of pair secrets, round by round
        signatures: Mapping[str, str],  # of the members; hex
    ) -> None:
        self.members = members
        self._confirmation = wire.body_of({"epoch": members.epoch, "signatures": signatures})
        self._waiting = list(members.names)  # for the signatures of the others
        self._advertised, self._known = advertised, known

    @classmethod
    def begun(cls, asking: Asking, names: Iterable[str]) -> Session:
        """Keys exchanged among those of `names` who answer; anew, with an epoch of its own, where
        one stops answering half-way. Raises `PartyError` where too few do."""
        left = sorted(names)
        for epoch in range(wire.EPOCHS):
            asking.require(len(left), "answered while keys were exchanged")
            found = cls._exchanged(asking, epoch, left)
            if isinstance(found, Session):
                return found
            left = found
        raise PartyError(
            f"keys were exchanged {wire.EPOCHS} times and each time a party stopped answering; see "
            "that they run and start another run"
        )

    @classmethod
    def _exchanged(cls, asking: Asking, epoch: int, names: list[str]) -> Session | list[str]:
        """The session, or the names of those who answered to the end."""
        terms = asking.terms
        body, size = wire.body_of({"epoch": epoch}), KEY * (1 + terms.rounds)
        replies = asking.ask(wire.ADVERTISE, epoch, body, names, size)
        advertisements: dict[str, bytes] = {}
        entries: dict[str, list[str]] = {}
        probe = X25519PrivateKey.generate()
        for name, (whole, body) in replies.items():
            try:
                facts, data = wire.read_body(body, "commitment")
                if len(data) != size:
                    raise PartyError(f"it sent {len(data)} bytes of keys where {size} are needed")
                for place in range(0, size, KEY):  # one that no party agrees with stops them all
                    agreed_key(probe, bytes(data[place : place + KEY]))
            except PartyError as fault:
                asking.fault(name, fault)
                continue
            advertisements[name] = whole
            entries[name] = [hashlib.sha256(whole).hexdigest(), facts["commitment"]]
        asking.require(len(entries), "answered with their keys")
        members = Members(terms, epoch, entries, {})
        advertised = {n: keys_of(members, n, whole) for n, whole in advertisements.items()}
        if not members.complete:
            nonces = cls._nonces(asking, members)
            if nonces.keys() != entries.keys():
                return sorted(nonces)
            members = Members(terms, epoch, entries, nonces)
        known, signatures = cls._shared(asking, members, advertisements)
        if known.keys() != entries.keys():
            return sorted(known)
        return cls(members, advertised, known, signatures)

    @staticmethod
    def _nonces(asking: Asking, members: Members) -> dict[str, str]:
        entries = {name: list(entry) for name, entry in members.entries.items()}
        body = wire.body_of({"epoch": members.epoch, "members": entries})
        found: dict[str, str] = {}
        for name, (_, reply) in asking.ask(wire.REVEAL, members.epoch, body, entries).items():
            try:
                found[name] = str(wire.read_body(reply, "nonce")[0]["nonce"])
            except PartyError as fault:
                asking.fault(name, fault)
        return found

    @staticmethod
    def _shared(
        asking: Asking, members: Members, advertisements: Mapping[str, bytes]
    ) -> tuple[dict[str, list[int]], dict[str, str]]:
        """(values of pair secrets, signatures of the members) by name."""
        entries = {name: list(entry) for name, entry in members.entries.items()}
        facts = {"epoch": members.epoch, "members": entries, "nonces": dict(members.nonces)}
        size = BYTES * members.terms.rounds * _known_each(members)
        if members.complete:
            whole = wire.body_of(facts, wire.with_lengths(advertisements))
            replies = asking.ask(wire.SHARE, members.epoch, whole, members.names, size)
        else:
            bodies = {
                name: wire.body_of(facts, wire.with_lengths({n: advertisements[n] for n in near}))
                for name, near in members.neighbours.items()
            }
            replies = asking.ask(wire.SHARE, members.epoch, bodies, data=size)
        known: dict[str, list[int]] = {}
        signatures: dict[str, str] = {}
        for name, (_, body) in replies.items():
            try:
                facts, data = wire.read_body(body, "signature")
                values = _elements(data, members.terms.rounds * _known_each(members))
                signature = bytes.fromhex(facts["signature"])
                members.terms.roster.verify(name, members.confirmation(), signature)
            except PartyError as fault:
                asking.fault(name, fault)
                continue
            known[name], signatures[name] = values, facts["signature"]
        return known, signatures

    def opened(
        self, asking: Asking, number: int, request: bytes, size: int, *, private: bool
    ) -> Opened:
        """The sum of a round over those who answered `request`, of `size` entries.

        Raises `PartyError` where fewer than the threshold answered, signed or gave shares, and
        where shares do not give the secrets that they should. With `private` a change that says it
        is unprotected counts as none.
        """
        members = self.members
        if self._waiting:
            replies = asking.ask(wire.CONFIRM, members.epoch, self._confirmation, self._waiting)
            self._waiting = [name for name in self._waiting if name not in replies]
        body = wire.body_of({"epoch": members.epoch}, request)
        message = asking.signed(body, wire.MASK, number, ALL)
        masked = self._masked(asking, number, message, size, private)
        asking.require(len(masked), f"answered in round {number}")
        survivors = sorted(masked)
        dropped = [name for name in members.names if name not in masked]
        helpers, signatures = survivors, dict[str, str]()
        if dropped:
            signatures = self._signed(asking, number, survivors, dropped)
            asking.require(len(signatures), f"signed the list of survivors of round {number}")
            helpers = sorted(signatures)
        facts = {"epoch": members.epoch, "dropped": dropped, "signatures": signatures}
        shares = self._shares(asking, number, helpers, wire.body_of(facts))
        total = masked[survivors[0]].vector
        for name in survivors[1:]:
            total += masked[name].vector
        seeds = [self_seed(self._self_secret(n, masked[n], shares[n])) for n in survivors]
        left = [(seed, -1) for seed in seeds]
        asked = message_digest(message) if dropped else b""
        for name in dropped:
            left += self._left_masks(number, asked, name, shares[name], set(survivors))
        add_masks(total, left)
        return Opened(total, survivors, dropped, list(asking.faults))

    def _masked(
        self, asking: Asking, number: int, message: bytes, size: int, private: bool
    ) -> dict[str, Masked]:
        members, grid = self.members, self.members.terms.grid
        room = BYTES * _known_each(members)
        found: dict[str, Masked] = {}
        names = [name for name in members.names if name not in self._waiting]
        whole = room + size * grid.bits // 8
        for name, (_, reply) in asking.send(wire.MASK, number, message, names, whole).items():
            try:
                facts, data = wire.read_body(reply, "commitment", "how")
                if len(data) != whole:
                    raise PartyError("its masked change has another length than the model")
                how = how_from_json(facts["how"])
                if private and not isinstance(how, Noised | Inherited):
                    raise PartyError(
                        "its change is unprotected, and this run promises privacy at the parties"
                    )
                known = _elements(data[:room], _known_each(members))
                vector = unpacked(data[room:], grid.bits)
            except PartyError as fault:
                asking.fault(name, fault)
                continue
            found[name] = Masked(facts["commitment"], how, known, vector)
        return found

    def _signed(
        self, asking: Asking, number: int, survivors: list[str], dropped: list[str]
    ) -> dict[str, str]:
        """Name -> signature of the list of survivors."""
        members = self.members
        body = wire.body_of({"epoch": members.epoch, "dropped": dropped})
        statement, found = members.view(number, dropped), dict[str, str]()
        for name, (_, reply) in asking.ask(wire.SIGN, number, body, survivors).items():
            try:
                signature = str(wire.read_body(reply, "signature")[0]["signature"])
                members.terms.roster.verify(name, statement, bytes.fromhex(signature))
            except PartyError as fault:
                asking.fault(name, fault)
                continue
            found[name] = signature
        return found

    def _shares(
        self, asking: Asking, number: int, helpers: list[str], body: bytes
    ) -> dict[str, dict[int, int]]:
        """Dealer -> place of a holder -> its share."""
        members = self.members
        places = {n: {h: i + 1 for i, h in enumerate(members.holders(n))} for n in members.names}
        found: dict[str, dict[int, int]] = {name: {} for name in members.names}
        size = BYTES * len(members.holders(members.names[0]))
        for name, (_, reply) in asking.ask(wire.UNMASK, number, body, helpers, size).items():
            dealers = members.holders(name)
            try:
                values = _elements(wire.read_body(reply)[1], len(dealers))
            except PartyError as fault:
                asking.fault(name, fault)
                continue
            for dealer, value in zip(dealers, values, strict=True):
                found[dealer][places[dealer][name]] = value
        return found

    def _recovered(self, name: str, shares: Mapping[int, int], known: Sequence[int]) -> int:
        members = self.members
        if len(shares) < members.shape.threshold:
            raise PartyError(
                f"{len(shares)} parties gave shares of a secret of {name!r} and "
                f"{members.shape.threshold} are needed, so no sum is opened; see that they run and "
                "resume"
            )
        holders = len(members.holders(name))
        return recovered(shares, known, holders, members.shape.threshold)

    def _self_secret(self, name: str, masked: Masked, shares: Mapping[int, int]) -> int:
        secret = self._recovered(name, shares, masked.known)
        if commitment(secret).hex() != masked.commitment:
            raise _spoilt(name)
        return secret

    def _left_masks(
        self,
        number: int,
        asked: bytes,  # digest of the round's request
        name: str,  # who dropped out
        shares: Mapping[int, int],
        survivors: set[str],
    ) -> list[tuple[bytes, int]]:
        """The masks that survivors have in common with one who dropped out, to take them away."""
        members, each = self.members, _known_each(self.members)
        own = self._advertised[name]
        known = self._known[name][number * each : (number + 1) * each]
        key = round_key(self._recovered(name, shares, known))
        if key.public_key().public_bytes_raw() != round_public(own, number):
            raise _spoilt(name)
        epoch = (members.terms.run, members.terms.recipe, members.epoch)
        found: list[tuple[bytes, int]] = []
        for other in members.neighbours[name]:
            if other in survivors:
                public = round_public(self._advertised[other], number)
                seed = pair_seed(key, public, epoch, number, asked, name, other)
                found.append((seed, -1 if other < name else 1))
        return found


def _known_each(members: Members) -> int:
    return known_count(len(members.holders(members.names[0])), members.shape.threshold)


def _elements(data: memoryview, count: int) -> list[int]:
    """Exactly `count` elements of the field. Raises `PartyError`."""
    try:
        values = from_bytes(bytes(data))
    except ValueError as error:
        raise PartyError(f"its shares cannot be read: {error}") from error
    if len(values) != count:
        raise PartyError(f"it sent {len(values)} shares where {count} are needed")
    return values


def _spoilt(name: str) -> PartyError:
    return PartyError(
        f"the shares of a secret of party {name!r} do not give that secret: it, or a party that "
        "gave a share, does not follow the protocol, so no sum is opened; end the run, and find "
        "out which"
    )

"""A party's side of a secure sum: masks its own change, and gives shares for one view of a round.

*Guarantee:* what leaves is a vector that cannot be distinguished from uniform, and shares of
secrets of single rounds. Each message is answered once, its reply is kept before it leaves, and a
round is masked once, whatever the epoch; shares are given for one view of a round.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nacre.core.errors import PartyError
from nacre.core.parts import Clip
from nacre.core.random import Source
from nacre.core.types import Release, Tensors
from nacre.federated_learning.answers import Answers
from nacre.federated_learning.messages import RoundRequest, how_to_json
from nacre.federated_learning.roster import Identity
from nacre.federated_learning.secure import wire
from nacre.federated_learning.secure.change import NotFinite, encoded_change
from nacre.federated_learning.secure.keys import (
    EpochKeys,
    SecretKind,
    commitment,
    held_share,
    nonce_commitment,
    round_key,
    self_seed,
)
from nacre.federated_learning.secure.masks import RingVector, add_masks, packed
from nacre.federated_learning.secure.sharing import known_values, to_bytes
from nacre.federated_learning.secure.survivors import Members, SumTerms
from nacre.federated_learning.signed import addressed, signed_message, verified_message

KEY = 32  # bytes of a public key

TrainRound = Callable[[RoundRequest], Release]
"""What a party does with a round's weights, once it has checked them."""


@dataclass
class _Epoch:
    """What a party knows of an epoch that it has shared secrets in."""

    members: Members
    advertised: Mapping[str, bytes]  # neighbour -> channel key and round keys
    confirmed: bool = False
    share_keys: dict[str, bytes] = field(default_factory=dict[str, bytes])


class Member:
    """Answers the messages of the secure sum for one party.

    It keeps nothing but what `answers` keeps; all secrets are derived from `secret`.
    """

    def __init__(
        self,
        identity: Identity,
        terms: SumTerms,
        clip: Clip,  # of a party's change: honest parties clip it themselves
        secret: bytes,  # 32, this party's own; the same where a run is resumed
    ) -> None:
        self._identity, self._terms, self._clip, self._secret = identity, terms, clip, secret
        self._epochs: dict[int, _Epoch] = {}
        self._keys: dict[int, EpochKeys] = {}
        self._answers: dict[str, Callable[[Asked], bytes]] = {
            wire.ADVERTISE: self._advertise,
            wire.REVEAL: self._reveal,
            wire.SHARE: self._share,
            wire.CONFIRM: self._confirm,
            wire.MASK: self._mask,
            wire.SIGN: self._sign,
            wire.UNMASK: self._unmask,
        }

    def __repr__(self) -> str:
        return f"Member({self._identity!r})"

    @property
    def name(self) -> str:
        """The party's."""
        return self._identity.name

    def handle(self, request: bytes, answers: Answers, trained: TrainRound) -> bytes:
        """The signed reply to a signed request.

        Raises `PartyError` for whatever the protocol does not ask, and what `trained` raises; in
        both cases nothing was released.
        """
        about = addressed(request)
        if about.kind not in _FIELDS:
            raise PartyError(
                f"party {self.name!r} answers the secure sum alone, and {about.kind!r} is no "
                "message of it"
            )
        terms = self._terms
        expected = terms.about(about.kind, about.round, self.name, "request")
        body, digest = verified_message(request, expected, terms.roster)
        facts, data = wire.read_body(body, *_FIELDS[about.kind])
        if "epoch" in facts and about.kind in _SETUP and facts["epoch"] != about.round:
            raise self._refusal(about.kind, about.round, "its epoch is not that of the envelope")
        asked = Asked(about.kind, about.round, digest, facts, data, answers, trained)
        entered = self._entered(asked)
        step = f"{about.kind}-{about.round:010d}"
        known = answers.get(step)
        if known is not None:
            if known[0] != entered:
                raise self._refusal(
                    about.kind, about.round,
                    "it was answered to another request under this number, and a second answer "
                    "would tell one party's change from the difference; resume the run from its "
                    "own checkpoint",
                )  # fmt: skip
            return known[1]
        reply = terms.about(about.kind, about.round, self.name, "reply")
        found = signed_message(self._answers[about.kind](asked), reply, self._identity)
        answers.put(step, entered, found)
        return found

    def _entered(self, asked: Asked) -> bytes:
        """What tells one request under a number from another. A view of a round is one request,
        whichever signatures come with it."""
        if asked.kind not in (wire.SIGN, wire.UNMASK):
            return asked.digest
        members = self._epoch(asked).members
        view = members.view(asked.number, asked.facts["dropped"])
        return hashlib.sha256(view).digest()

    def _advertise(self, asked: Asked) -> bytes:
        keys = self._keys_of(asked.number)
        own = [keys.channel.public_key().public_bytes_raw()]
        own += [
            round_key(keys.secret("pair", number)).public_key().public_bytes_raw()
            for number in range(self._terms.rounds)
        ]
        facts = {"commitment": nonce_commitment(keys.nonce).hex()}
        return wire.body_of(facts, b"".join(own))

    def _reveal(self, asked: Asked) -> bytes:
        members = self._members(asked, {})
        if members.complete:
            raise self._refusal(asked.kind, asked.number, "so few parties need no seed")
        self._own_entry(asked, members)
        return wire.body_of({"nonce": self._keys_of(asked.number).nonce.hex()})

    def _share(self, asked: Asked) -> bytes:
        members, keys = self._members(asked, asked.facts["nonces"]), self._keys_of(asked.number)
        self._own_entry(asked, members)
        if not members.nonces_fit():
            raise self._refusal(asked.kind, asked.number, "a nonce is not the one committed to")
        if not members.complete and not asked.answers.get(f"{wire.REVEAL}-{asked.number:010d}"):
            raise self._refusal(asked.kind, asked.number, "its own nonce was not asked for")
        epoch = self._entered_epoch(members, asked.data)
        known = [self._known(epoch, keys, "pair", n) for n in range(self._terms.rounds)]
        kept = wire.body_of(asked.facts, bytes(asked.data))
        asked.answers.put(_record(asked.number), hashlib.sha256(members.digest).digest(), kept)
        self._epochs[asked.number] = epoch
        signature = self._identity.sign(members.confirmation())
        return wire.body_of({"signature": signature.hex()}, b"".join(known))

    def _confirm(self, asked: Asked) -> bytes:
        epoch = self._epoch(asked)
        self._require_signatures(asked, epoch.members, epoch.members.confirmation())
        epoch.confirmed = True
        return wire.body_of({})

    def _mask(self, asked: Asked) -> bytes:
        epoch, number = self._confirmed_epoch(asked), asked.number
        keys = self._keys_of(epoch.members.epoch)
        request = RoundRequest.from_bytes(bytes(asked.data))
        if request.kind != "train" or request.round != number:
            raise self._refusal(asked.kind, number, "the round inside is another")
        if number >= self._terms.rounds:
            raise self._refusal(asked.kind, number, f"{self._terms.rounds} rounds were agreed")
        release = asked.trained(request)
        vector = self._encoded(release.total, asked)
        secret = keys.secret("self", number)
        publics = {other: round_public(own, number) for other, own in epoch.advertised.items()}
        seeds = keys.mask_seeds(number, publics, asked.digest)
        pairs = [(seed, 1 if self.name < other else -1) for other, seed in seeds.items()]
        add_masks(vector, [(self_seed(secret), 1), *pairs])
        facts = {"commitment": commitment(secret).hex(), "how": how_to_json(release.how)}
        known = self._known(epoch, keys, "self", number)
        return wire.body_of(facts, known, packed(vector, self._terms.grid.bits))

    def _encoded(self, change: Tensors, asked: Asked) -> RingVector:
        keyed = Source(self._secret).child("noise", asked.number, asked.digest)
        try:
            return encoded_change(change, self._clip, self._terms.changes, keyed)
        except NotFinite as error:
            raise self._refusal(wire.MASK, asked.number, str(error)) from error

    def _sign(self, asked: Asked) -> bytes:
        members = self._surviving(asked)
        self._one_view(asked, members, wire.UNMASK)
        signature = self._identity.sign(members.view(asked.number, asked.facts["dropped"]))
        return wire.body_of({"signature": signature.hex()})

    def _unmask(self, asked: Asked) -> bytes:
        members, number = self._surviving(asked), asked.number
        self._one_view(asked, members, wire.SIGN)
        dropped: list[str] = asked.facts["dropped"]
        if dropped:
            self._require_signatures(asked, members, members.view(number, dropped))
        epoch, keys, gone = self._epoch(asked), self._keys_of(members.epoch), set(dropped)
        shares: list[int] = []
        for dealer in members.holders(self.name):
            kind: SecretKind = "pair" if dealer in gone else "self"
            key = self._share_key(epoch, keys, dealer)
            shares.append(held_share(key, kind, number, dealer, self.name))
        return wire.body_of({}, to_bytes(shares))

    def _surviving(self, asked: Asked) -> Members:
        """The members, where enough of them are left and this party is among them."""
        members = self._confirmed_epoch(asked).members
        dropped = set(asked.facts["dropped"])
        left = len(members.names) - len(dropped)
        if not dropped <= set(members.names):
            raise self._refusal(asked.kind, asked.number, "it names parties that are no members")
        if left < self._terms.threshold:
            raise self._refusal(
                asked.kind, asked.number,
                f"{left} parties are left and the threshold is {self._terms.threshold}",
            )  # fmt: skip
        if self.name in dropped:
            raise self._refusal(asked.kind, asked.number, "it is said to have dropped out itself")
        return members

    def _one_view(self, asked: Asked, members: Members, other: str) -> None:
        """Raises `PartyError` where the other message about this round had another view."""
        known = asked.answers.get(f"{other}-{asked.number:010d}")
        view = members.view(asked.number, asked.facts["dropped"])
        if known is not None and known[0] != hashlib.sha256(view).digest():
            raise self._refusal(
                asked.kind, asked.number,
                "it has seen another list of survivors, and shares for two would open one party's "
                "change; start another run, and ask why the server shows two lists",
            )  # fmt: skip

    def _require_signatures(self, asked: Asked, members: Members, statement: bytes) -> None:
        """Raises `PartyError` unless as many members as the threshold signed the statement."""
        signatures: dict[str, str] = asked.facts["signatures"]
        signers = set(members.names) - set(asked.facts.get("dropped", ()))
        if not signatures.keys() <= signers:
            raise self._refusal(asked.kind, asked.number, "a signature is no survivor's")
        if len(signatures) < self._terms.threshold:
            raise self._refusal(
                asked.kind, asked.number,
                f"{len(signatures)} parties signed what it has seen, and the threshold is "
                f"{self._terms.threshold}",
            )  # fmt: skip
        for name, signature in signatures.items():
            self._terms.roster.verify(name, statement, bytes.fromhex(signature))

    def _members(self, asked: Asked, nonces: Mapping[str, str]) -> Members:
        entries = asked.facts["members"]
        members = Members(self._terms, asked.number, entries, nonces)
        if not entries.keys() <= self._terms.roster.parties.keys():
            raise self._refusal(asked.kind, asked.number, "it names parties outside the roster")
        if len(entries) < self._terms.threshold:
            raise self._refusal(
                asked.kind, asked.number,
                f"{len(entries)} parties take part, and the threshold is {self._terms.threshold}",
            )  # fmt: skip
        return members

    def _own_entry(self, asked: Asked, members: Members) -> None:
        """Raises `PartyError` unless the server has this party's advertisement as it was sent, and
        shows the members that it showed before."""
        known = asked.answers.get(f"{wire.ADVERTISE}-{asked.number:010d}")
        own = members.entries.get(self.name)
        commitment = nonce_commitment(self._keys_of(asked.number).nonce).hex()
        sent = None if known is None else [hashlib.sha256(known[1]).hexdigest(), commitment]
        if own is None or sent is None or list(own) != sent:
            raise self._refusal(asked.kind, asked.number, "its own keys are shown as others")
        shown = hashlib.sha256(Members(members.terms, members.epoch, members.entries, {}).digest)
        seen = asked.answers.get(f"secure.seen-{asked.number:010d}")
        if seen is None:
            asked.answers.put(f"secure.seen-{asked.number:010d}", shown.digest(), b"")
        elif seen[0] != shown.digest():
            raise self._refusal(asked.kind, asked.number, "it showed other members before")

    def _entered_epoch(self, members: Members, data: memoryview) -> _Epoch:
        """Reads the neighbours' advertisements, each signed by its own party."""
        neighbours = members.neighbours[self.name]
        advertised: dict[str, bytes] = {}
        parts = wire.split_by(members.names if members.complete else list(neighbours), data)
        for name in neighbours:
            advertised[name] = keys_of(members, name, parts[name])
        return _Epoch(members, advertised)

    def _epoch(self, asked: Asked) -> _Epoch:
        """What was shared in the epoch of a request, also before this process began."""
        number: int = asked.facts["epoch"]
        if number not in self._epochs:
            kept = asked.answers.get(_record(number))
            if kept is None:
                raise self._refusal(asked.kind, asked.number, "it has no part in this epoch")
            facts, data = wire.read_body(kept[1], "epoch", "members", "nonces")
            members = Members(self._terms, number, facts["members"], facts["nonces"])
            self._epochs[number] = self._entered_epoch(members, data)
        return self._epochs[number]

    def _confirmed_epoch(self, asked: Asked) -> _Epoch:
        """The epoch of a round, once as many members as the threshold have signed their list."""
        epoch = self._epoch(asked)
        step = f"{wire.CONFIRM}-{epoch.members.epoch:010d}"
        if not epoch.confirmed and asked.answers.get(step) is None:
            raise self._refusal(asked.kind, asked.number, "its epoch's members are not confirmed")
        return epoch

    def _known(self, epoch: _Epoch, keys: EpochKeys, kind: SecretKind, number: int) -> bytes:
        """The values that this party makes known of one secret."""
        shares = [
            held_share(self._share_key(epoch, keys, holder), kind, number, self.name, holder)
            for holder in epoch.members.holders(self.name)
        ]
        secret = keys.secret(kind, number)
        return to_bytes(known_values(secret, shares, epoch.members.shape.threshold))

    def _share_key(self, epoch: _Epoch, keys: EpochKeys, other: str) -> bytes:
        if other not in epoch.share_keys:
            channel = epoch.advertised[other][:KEY] if other != self.name else b""
            epoch.share_keys[other] = keys.share_key(other, channel)
        return epoch.share_keys[other]

    def _keys_of(self, epoch: int) -> EpochKeys:
        if epoch not in self._keys:
            context = (self._terms.run, self._terms.recipe)
            self._keys[epoch] = EpochKeys(self.name, self._secret, context, epoch)
        return self._keys[epoch]

    def _refusal(self, kind: str, number: int, reason: str) -> PartyError:
        return PartyError(f"party {self.name!r} refuses {kind} in {number}: {reason}")


@dataclass(frozen=True)
class Asked:
    """A request that is signed and of its form."""

    kind: str
    number: int  # of the round, or of the epoch
    digest: bytes  # of the whole message
    facts: wire.Facts
    data: memoryview
    answers: Answers
    trained: TrainRound


def keys_of(members: Members, name: str, advertisement: bytes) -> bytes:
    """The channel key and the round keys in a party's advertisement, checked against the members.

    Raises `PartyError` for one that the party did not sign, or that is not the members'.
    """
    terms = members.terms
    expected = terms.about(wire.ADVERTISE, members.epoch, name, "reply")
    body, _ = verified_message(advertisement, expected, terms.roster)
    facts, data = wire.read_body(body, "commitment")
    entry = [hashlib.sha256(advertisement).hexdigest(), facts["commitment"]]
    if list(members.entries[name]) != entry or len(data) != KEY * (1 + terms.rounds):
        raise PartyError(f"the advertisement of {name!r} is not the one that the members have")
    return bytes(data)


def round_public(advertised: bytes, number: int) -> bytes:
    """The public key of a round in what a party advertised."""
    return advertised[KEY * (1 + number) : KEY * (2 + number)]


def _record(epoch: int) -> str:
    return f"secure.epoch-{epoch:010d}"


_SETUP = (wire.ADVERTISE, wire.REVEAL, wire.SHARE, wire.CONFIRM)
_FIELDS: dict[str, tuple[str, ...]] = {
    wire.ADVERTISE: ("epoch",),
    wire.REVEAL: ("epoch", "members"),
    wire.SHARE: ("epoch", "members", "nonces"),
    wire.CONFIRM: ("epoch", "signatures"),
    wire.MASK: ("epoch",),
    wire.SIGN: ("epoch", "dropped"),
    wire.UNMASK: ("epoch", "dropped", "signatures"),
}

"""Messages that were not what the other side signed: none is answered, none is summed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from nacre.core.errors import PartyError
from nacre.federated_learning.across.members import Meeting, RemoteParties
from nacre.federated_learning.across.speech import asked, round_of
from nacre.federated_learning.across.voice import Voice
from nacre.federated_learning.roster import SERVER, Identity, Roster
from nacre.federated_learning.signed import addressed, signed_message
from tests.across.houses import LocalChannel

RECIPE = "a" * 64


class Echo:
    """An attendance that answers its request turned round, and counts."""

    recipe = RECIPE

    def __init__(self) -> None:
        self.joined: list[str] = []
        self.asked: list[bytes] = []
        self.left = 0

    def join(self, run: str, frozen: str) -> None:
        self.joined.append(run)

    def handle(self, run: str, request: bytes) -> bytes:
        self.asked.append(request)
        return request[::-1]

    def leave(self, run: str, common: bytes) -> None:
        self.left += 1


SERVER_KEY, EAST, NORTH = (
    Identity.from_secret(n, n.encode().ljust(32)) for n in (SERVER, "e", "n")
)
ROSTER = Roster(SERVER_KEY.public, {"e": EAST.public, "n": NORTH.public})
MEETING = Meeting(run="run 1", recipe=RECIPE, parties=("e", "n"), frozen="f")


def envelope(body: bytes, *, run: str = "run 1", to: str = "e", verb: str = "ask") -> bytes:
    return signed_message(body, asked(to, run, RECIPE, verb, body), SERVER_KEY)


def mutated(data: bytes, others: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Copies with bits turned, parts cut, repeated, moved, and put together with other messages."""
    stream = random.Random(seed)
    made = 0
    while made < count:
        other, cut = stream.choice(others), stream.randrange(1, len(data))
        place, bit = stream.randrange(len(data)), 1 << stream.randrange(8)
        found = [
            data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :],
            data[:cut],
            data[cut:],
            data + data[:cut],
            data[cut:] + data[:cut],
            data[:cut] + other[cut:],
            other[:-64] + data[-64:],
            data[:cut] + bytes(stream.randrange(1, 9)) + data[cut:],
        ][made % 8]
        if found not in (data, *others):
            made += 1
            yield found


def test_no_mutated_request_is_answered() -> None:
    attendance = Echo()
    voice = Voice(EAST, ROSTER, attendance, limit=10_000)
    good = envelope(b"weights of round 3" * 20)
    others = [envelope(b"other weights" * 27), envelope(b"weights of round 3" * 20, to="n")]
    for data in mutated(good, others, 1200, 1):
        assert voice.answer(data) is None
    assert not attendance.asked and not attendance.joined and not attendance.left
    assert voice.answer(good) is not None and len(attendance.asked) == 1


def test_requests_of_others_are_dropped() -> None:
    """Of another key, for another party, larger than agreed, replayed under another kind."""
    attendance = Echo()
    voice = Voice(EAST, ROSTER, attendance, limit=10_000)
    body = b"weights"
    about = asked("e", "run 1", RECIPE, "ask", body)
    thief = Identity(SERVER, Identity.generate("x")._key)
    for data in (
        signed_message(body, about, thief),
        envelope(body, to="n"),
        envelope(bytes(20_000)),
        envelope(body).replace(b"ask ", b"end "),
        b"",
        b"\\x80" * 500,
    ):
        assert voice.answer(data) is None
    assert not attendance.asked and not attendance.left


def test_a_signed_kind_fits_its_body_alone() -> None:
    """The server itself cannot sign one body under the digest of another."""
    voice = Voice(EAST, ROSTER, Echo())
    about = asked("e", "run 1", RECIPE, "ask", b"one body")
    assert voice.answer(signed_message(b"another", about, SERVER_KEY)) is None


def channel_of(change: Mapping[int, object]) -> LocalChannel:
    """Two parties that echo; `change` maps a node to what is done with its reply."""
    voices = {0: Voice(EAST, ROSTER, Echo()), 1: Voice(NORTH, ROSTER, Echo())}

    def through(node: int, blob: bytes) -> bytes | None:
        reply = voices[node].answer(blob)
        altered = change.get(node)
        return altered(reply, blob) if callable(altered) and reply is not None else reply

    return LocalChannel({i: lambda blob, i=i: through(i, blob) for i in voices})


def met(change: Mapping[int, object], told: list[str]) -> RemoteParties:
    members = RemoteParties(
        channel_of(change), SERVER_KEY, ROSTER, MEETING, deadline=0.2, tell=told.append
    )
    return members


def test_no_mutated_reply_is_summed() -> None:
    """The other party's stands; what was altered on its way is absent and told of."""
    told: list[str] = []
    copies: list[bytes] = []

    def alter(reply: bytes, blob: bytes) -> bytes:
        return copies.pop() if addressed(blob).kind.startswith("ask") and copies else reply

    members = met({0: alter}, told)
    members.gather(1.0)
    first = members.ask({"e": b"abc" * 50, "n": b"abc" * 50})
    assert first == {"e": b"cba" * 50, "n": b"cba" * 50}
    body = b"xyz" * 50
    voice = Voice(EAST, ROSTER, Echo())
    good = voice.answer(envelope(body))
    replayed = voice.answer(envelope(b"abc" * 50))
    assert good is not None and replayed is not None
    for count, data in enumerate(mutated(good, [replayed], 300, 2), 1):
        copies[:] = [data]
        assert members.ask({"e": body, "n": body}) == {"n": body[::-1]}
        assert len(told) == count
    copies[:] = [replayed]
    assert members.ask({"e": body, "n": body}) == {"n": body[::-1]}
    other = Voice(NORTH, ROSTER, Echo()).answer(envelope(body, to="n"))
    assert other is not None
    copies[:] = [other]
    assert members.ask({"e": body, "n": body}) == {"n": body[::-1]}


def test_a_node_that_is_nobody_is_turned_away() -> None:
    """One that the roster lacks, one that claims a name, one that says nothing: none is a party."""
    told: list[str] = []
    stranger = Identity.generate("e")
    roster = Roster(SERVER_KEY.public, {"e": stranger.public, "n": NORTH.public})
    voices = {0: Voice(stranger, roster, Echo()).answer, 1: Voice(NORTH, ROSTER, Echo()).answer}
    channel = LocalChannel({**voices, 2: lambda blob: None, 3: lambda blob: b"hello"})
    members = RemoteParties(channel, SERVER_KEY, ROSTER, MEETING, deadline=0.2, tell=told.append)
    with pytest.raises(PartyError, match=r"e did not come within 0.2 seconds"):
        members.gather(0.2)
    assert len(told) == 2 and all("turned away" in sentence for sentence in told)


def test_a_party_with_another_recipe_or_roster_says_so() -> None:
    attendance = Echo()
    attendance.recipe = "b" * 64
    channel = LocalChannel({0: Voice(EAST, ROSTER, attendance).answer})
    members = RemoteParties(channel, SERVER_KEY, ROSTER, MEETING, deadline=0.2)
    with pytest.raises(PartyError, match=r"party 'e' refuses this run.*nacre federate digest"):
        members.gather(1.0)
    roster = Roster(SERVER_KEY.public, {"e": EAST.public})
    channel = LocalChannel({0: Voice(EAST, roster, Echo()).answer})
    members = RemoteParties(channel, SERVER_KEY, ROSTER, MEETING, deadline=0.2)
    with pytest.raises(PartyError, match="pins another roster"):
        members.gather(1.0)


def test_a_party_of_another_recipe_does_not_stop_this_run() -> None:
    """It is in the roster, waits for another run, and refuses this one."""
    other = Echo()
    other.recipe = "c" * 64
    voices = {0: Voice(EAST, ROSTER, Echo()).answer, 1: Voice(NORTH, ROSTER, other).answer}
    told: list[str] = []
    members = RemoteParties(
        LocalChannel(voices), SERVER_KEY, ROSTER,
        Meeting(run="run 1", recipe=RECIPE, parties=("e",), frozen="f"),
        deadline=0.5, tell=told.append,
    )  # fmt: skip
    members.gather(1.0)
    assert members.ask({"e": b"weights"}) == {"e": b"sthgiew"}
    assert told == ["a node was turned away: 'n' is in the roster and not in this recipe"]


@pytest.mark.parametrize("inner", ["[" * 100_000, '{"round": 3, "round": 4}', '{"round": 1e999}'])
def test_a_header_that_is_no_header_is_of_round_0(inner: str) -> None:
    """It is read before anything judges it, so nothing in it may end the party's process."""
    head = json.dumps({"__metadata__": {"nacre": inner}}).encode()
    body = len(head).to_bytes(8, "little") + head
    assert round_of(body) == 0
    assert Voice(EAST, ROSTER, Echo()).answer(envelope(body)) is not None


def test_what_fails_inside_a_party_stays_there() -> None:
    """Its words may be of private rows: the server hears that it failed, and no more."""

    class Failing(Echo):
        def handle(self, run: str, request: bytes) -> bytes:
            raise ValueError("row 17 of patient Miller is not finite")

    told: list[str] = []
    own: list[str] = []
    voices = {0: Voice(EAST, ROSTER, Failing(), tell=own.append).answer}
    members = RemoteParties(
        LocalChannel(voices), SERVER_KEY, ROSTER,
        Meeting(run="run 1", recipe=RECIPE, parties=("e",), frozen="f"),
        deadline=0.5, tell=told.append,
    )  # fmt: skip
    members.gather(1.0)
    assert members.ask({"e": b"weights"}) == {}
    assert "Miller" in own[0] and "Miller" not in " ".join(told) and "refuses" in told[0]


def test_a_key_that_the_roster_does_not_pin_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(PartyError, match="does not pin this key for 'e'"):
        Voice(Identity.generate("e"), ROSTER, Echo())
    with pytest.raises(PartyError, match="no key of party 'south'"):
        RemoteParties(
            LocalChannel({}), SERVER_KEY, ROSTER,
            Meeting(run="r", recipe=RECIPE, parties=("e", "south"), frozen="f"), deadline=1.0,
        )  # fmt: skip

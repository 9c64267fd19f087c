"""The server's end: a `Transport` to parties that are elsewhere, over any `Channel`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from nacre.core.errors import PartyError, one_line
from nacre.federated_learning.across.channel import Channel
from nacre.federated_learning.across.speech import (
    ASK,
    END,
    HELLO,
    REFUSAL,
    answering,
    asked,
    greeting,
)
from nacre.federated_learning.roster import ALL, Identity, Roster
from nacre.federated_learning.signed import About, addressed, signed_message, verified_body


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """What a run tells the parties of itself."""

    run: str
    """The name of the run, the same after a resume."""
    recipe: str
    """Hex digest of the recipe that all sides follow."""
    parties: tuple[str, ...]
    """Who takes part, by the recipe."""
    frozen: str
    """Hex digest of the weights that nobody moves."""


@dataclass
class _Sent:
    """A message on its way."""

    name: str  # of the party, "" where that is what is asked
    node: int
    since: str  # the node was there, when it was sent
    about: About


class RemoteParties:
    """Sends each party its request and waits for the replies, until a deadline.

    *Guarantee:* what `ask` returns was signed by the party's key in the roster, in this run, and in
    answer to these very bytes; what anybody else says is dropped, and `tell` hears of it. A party
    that refuses, is gone or is too late is absent, as `Transport.ask` has it, and `tell` hears why.
    One that comes back, or comes later, is asked again within the round.
    """

    def __init__(
        self,
        channel: Channel,
        identity: Identity,
        roster: Roster,
        meeting: Meeting,
        *,
        deadline: float,  # seconds, of a round
        tell: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        roster.must_name(meeting.parties)
        self.parties = meeting.parties
        self._channel, self._identity, self._roster = channel, identity, roster
        self._meeting, self._deadline, self._tell = meeting, deadline, tell
        self._hello = greeting(meeting.frozen, roster.digest(), secrets.token_hex(16))
        self._greeted: dict[int, str] = {}  # node -> since when it was there, when it was greeted
        self._at: dict[str, int] = {}  # party -> its node
        self._refusals: dict[str, str] = {}
        self.farewell = b""
        """What parties are sent when the run is over."""
        self._sent: dict[str, _Sent] = {}  # hellos, by the number of the message
        self._waited = 0.0

    def gather(self, seconds: float) -> None:
        """Waits until every party has said hello. Raises `PartyError` where one refuses, or has
        not come by then; nothing was asked of any."""
        end = time.monotonic() + seconds
        while set(self._at) < set(self.parties):
            self._meet()
            if self._refusals:
                name, reason = next(iter(self._refusals.items()))
                raise PartyError(f"party {name!r} refuses this run: {reason}")
            missing = sorted(set(self.parties) - set(self._at))
            if missing and time.monotonic() > end:
                raise PartyError(
                    f"{', '.join(missing)} did not come within {seconds:g} seconds; see that each "
                    "runs `nacre party` with its key admitted at the SuperLink, then resume"
                )
            self._pause()
        self._waited = 0.0

    def ask(self, requests: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """See `Transport.ask`."""
        end = time.monotonic() + self._deadline
        waiting = {name: self._about(name, body) for name, body in requests.items()}
        envelopes = {
            name: signed_message(requests[name], about, self._identity)
            for name, about in waiting.items()
        }
        sent: dict[str, _Sent] = {}
        replies: dict[str, bytes] = {}
        self._waited, looked = 0.0, 0.0
        while waiting and time.monotonic() < end:
            if time.monotonic() > looked:
                self._meet()
                self._send(waiting, envelopes, sent)
                looked = time.monotonic() + _LOOK
            for name in [name for name in waiting if name in self._refusals]:
                self._tell(f"party {name!r} refuses: {self._refusals[name]}")
                del waiting[name]
            for name, reply in self._answers(sent).items():
                waiting.pop(name, None)
                if reply is not None:
                    replies[name] = reply
            if waiting:
                self._pause()
        for name in waiting:
            self._tell(f"party {name!r} did not answer within {self._deadline:g} seconds")
        return replies

    def end(self) -> None:
        """Tells the parties that the run is over; who does not hear it ends by hand."""
        envelopes = {
            self._at[name]: signed_message(
                self.farewell, self._about(name, self.farewell, END), self._identity
            )
            for name in self.parties
            if name in self._at
        }
        left = set(self._channel.push(envelopes))
        until = time.monotonic() + _FAREWELL
        while left and time.monotonic() < until:
            left -= set(self._channel.pull(sorted(left)))
            if left:
                self._pause()

    def _about(self, name: str, body: bytes, verb: str = ASK) -> About:
        return asked(name, self._meeting.run, self._meeting.recipe, verb, body)

    def _send(
        self,
        waiting: Mapping[str, About],
        envelopes: Mapping[str, bytes],
        sent: dict[str, _Sent],
    ) -> None:
        """Sends to those whose node is there, and again to those whose node came back since."""
        under_way = {(each.name, each.since) for each in sent.values()}
        due: dict[int, str] = {}
        for name in waiting:
            node = self._at.get(name)
            if node is not None and (name, self._greeted[node]) not in under_way:
                due[node] = name
        pushed = self._channel.push({node: envelopes[name] for node, name in due.items()})
        for number, node in pushed.items():
            name = due[node]
            sent[number] = _Sent(name, node, self._greeted[node], waiting[name])

    def _answers(self, sent: dict[str, _Sent]) -> dict[str, bytes | None]:
        """Party -> its reply, or None for a refusal; of what has arrived."""
        found: dict[str, bytes | None] = {}
        for number, data in self._channel.pull(list(sent)).items():
            each = sent.pop(number, None)
            if each is None:
                continue
            if data is None:  # the carrier gave up: the node is gone, and may come again
                self._forget(each.node)
                continue
            try:
                found[each.name] = self._verified(data, each)
            except PartyError as error:
                self._tell(f"what came back from the node of {each.name!r} is dropped: {error}")
                found[each.name] = None
        return found

    def _verified(self, data: bytes, each: _Sent) -> bytes | None:
        """The reply, or None for a refusal. Raises `PartyError` for anything else."""
        refusal = answering(each.about, REFUSAL)
        if addressed(data).kind == refusal.kind:
            reason = _sentence(verified_body(data, refusal, self._roster))
            self._tell(f"party {each.name!r} refuses: {reason}")
            return None
        return verified_body(data, answering(each.about), self._roster)

    def _meet(self) -> None:
        """Greets the nodes that are new or came back, and hears who they are."""
        there = self._channel.nodes()
        for node in [node for node in self._greeted if there.get(node) != self._greeted[node]]:
            self._forget(node)
        new = [node for node in there if node not in self._greeted]
        if new:
            about = self._about(ALL, self._hello, HELLO)
            envelope = signed_message(self._hello, about, self._identity)
            for number, node in self._channel.push(dict.fromkeys(new, envelope)).items():
                self._greeted[node] = there[node]
                self._sent[number] = _Sent("", node, there[node], about)
        for number, data in self._channel.pull(list(self._sent)).items():
            each = self._sent.pop(number, None)
            if each is not None and data is not None and each.node in self._greeted:
                self._hear(data, each)

    def _hear(self, data: bytes, each: _Sent) -> None:
        """Takes note of who a node says to be, if the roster bears it out."""
        try:
            name = addressed(data).sender
            greeting_to = replace(each.about, receiver=name)
            refusal = answering(greeting_to, REFUSAL)
            refused = addressed(data).kind == refusal.kind
            body = verified_body(data, refusal if refused else answering(greeting_to), self._roster)
            if name not in self.parties:
                raise PartyError(f"{name!r} is in the roster and not in this recipe")
            if refused:
                self._refusals[name] = _sentence(body)
                return
            self._at[name] = each.node
            self._refusals.pop(name, None)
        except PartyError as error:
            self._tell(f"a node was turned away: {error}")

    def _forget(self, node: int) -> None:
        self._greeted.pop(node, None)
        for name in [name for name, at in self._at.items() if at == node]:
            del self._at[name]

    def _pause(self) -> None:
        """A pause that grows with the time since anything was asked."""
        pause = min(max(_SOONEST, _PACE * self._waited), _LATEST)
        self._waited += pause
        time.sleep(pause)


_SOONEST, _LATEST, _PACE = 0.01, 0.5, 0.05  # seconds, seconds, of the time that was waited
_LOOK = 1.0  # seconds between two looks at which nodes are there
_FAREWELL = 10.0  # seconds


def _sentence(reason: bytes) -> str:
    """A party's reason, short and printable: it comes from elsewhere."""
    return one_line(reason.decode(errors="replace"))[:500]

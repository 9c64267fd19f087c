"""The two ends of a run over Flower: the server's way to its parties, and a party's waiting."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nacre.core.errors import BadKeys, FileDamaged
from nacre.core.files import read_json
from nacre.federated_learning.across.keys import NODE_KEY, SIGNING_KEY, node_key
from nacre.federated_learning.across.members import Meeting, RemoteParties
from nacre.federated_learning.across.voice import Attendance, Voice
from nacre.federated_learning.flower import require_flower
from nacre.federated_learning.flower.bundle import Pin, bundle
from nacre.federated_learning.flower.hub import host_and_port
from nacre.federated_learning.roster import SERVER, Identity, Roster
from nacre.runs.federation.lead import Connect


@dataclass(frozen=True, kw_only=True)
class Whereabouts:
    """Where the SuperLink is, and by what this side is known."""

    address: str
    """`host:port`"""
    ca: Path | None
    """The certificate of its authority; None speaks without TLS."""
    keys: Path
    """The folder that `nacre federate keys` made."""
    roster: Path
    """The roster that all sides pin."""


def read_roster(path: Path) -> Roster:
    """The roster in a file. Raises `BadKeys` for anything else."""
    try:
        return Roster.from_json(read_json(path))
    except (BadKeys, FileDamaged) as error:
        raise BadKeys(
            f"{path}: {error} (`nacre federate roster CARD… -o {path.name}` makes one of cards)"
        ) from error


def over_flower(
    place: Whereabouts,
    secret: Path | None,  # the SuperLink's
    *,
    wait: float,  # seconds for all parties to come
    deadline: float,  # seconds of a round
    tell: Callable[[str], None],
    pins: Sequence[Path] = (),  # of parties with a stock SuperNode
    hub: str | None = None,  # `host:port`, with `pins` alone
) -> Connect:
    """The server's way to the parties, for `lead`."""
    require_flower()
    from nacre.federated_learning.flower.superlink import Hub, SuperLink, leading

    data = bundle()
    signed = (
        None if hub is None else Hub(address=hub, pins=tuple(Pin.load(path, data) for path in pins))
    )
    if hub is not None:
        host_and_port(hub)  # refuses what is no address, before anything is started
    identity = Identity.load(SERVER, place.keys / SIGNING_KEY)
    roster = read_roster(place.roster)
    where = SuperLink(address=place.address, ca=place.ca, secret=secret)

    @contextmanager
    def connect(meeting: Meeting) -> Generator[RemoteParties]:
        roster.must_name(meeting.parties)
        tell(f"waits at {place.address} for {', '.join(meeting.parties)}")
        patience = min(deadline, _PATIENCE)
        with leading(where, patience, hub=signed, tell=tell) as grid:
            members = RemoteParties(grid, identity, roster, meeting, deadline=deadline, tell=tell)
            members.gather(wait)
            yield members
            members.end()

    return Connect(identity=identity, roster=roster, reach=connect)


_PATIENCE = 60.0  # seconds that a SuperLink which does not answer is waited for


class AwaitingParty(Attendance, Protocol):
    """A party that waits: `Attending` a training, or `Releasing` statistics."""

    over: bool
    """Whether its run has ended."""

    def known_as(self, identity: Identity, roster: Roster) -> None:
        """By what the others know this party."""
        ...


def attend(
    place: Whereabouts,
    name: str,
    attending: AwaitingParty,
    tell: Callable[[str], None],
    wait: float,  # seconds for the SuperLink to be there at first
) -> None:
    """Answers the server until the run is over. Raises `PartyError` where the SuperLink refuses, or
    is not there."""
    require_flower()
    from nacre.federated_learning.flower.node import PartyNode, serve

    identity = Identity.load(name, place.keys / SIGNING_KEY)
    roster = read_roster(place.roster)
    attending.known_as(identity, roster)
    voice = Voice(identity, roster, attending, tell=tell)
    key = None if place.ca is None else node_key(place.keys / NODE_KEY)
    node = PartyNode(address=place.address, ca=place.ca, key=key, number=place.keys / "node.number")
    serve(node, voice.answer, lambda: attending.over, tell, wait)

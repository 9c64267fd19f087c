"""A party's end: envelopes in, envelopes out. What is not the server's gets no answer at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from nacre.core.errors import BadKeys, BudgetExceeded, PartyError
from nacre.federated_learning.across import speech
from nacre.federated_learning.across.speech import REFUSAL, answering, asked, greeted, verb_of
from nacre.federated_learning.roster import SERVER, Identity, Roster
from nacre.federated_learning.signed import (
    LIMIT,
    About,
    addressed,
    signed_message,
    verified_body,
)


class Attendance(Protocol):
    """What a party does, once it is certain that the server asks: `runs.federation.Attending`.

    Each raises `PartyError` for a reason that may leave the house; anything else that is raised
    stays there.
    """

    recipe: str
    """Hex digest of the recipe that all sides follow, by the party's own file."""

    def join(self, run: str, frozen: str) -> None:
        """Takes part in this run, for which the budget is reserved; nothing new for a run that it
        takes part in already."""
        ...

    def handle(self, run: str, request: bytes) -> bytes:
        """The reply of a round, as `Party.handle` gives it."""
        ...

    def leave(self, run: str, common: bytes) -> None:
        """The run is over; where parties keep layers of their own, with these weights, as the
        request of the round after the last."""
        ...


class Voice:
    """Answers the server's messages in a party's name.

    *Guarantee:* an envelope that the server's key in the roster did not sign, that is for another
    party, or that is none, is dropped: nothing is done and nothing said. What is refused after that
    is refused in a signed sentence that names no figure of the party: of what its own code raised
    only the kind of trouble is said, and `tell` hears the whole.
    """

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        attendance: Attendance,
        *,
        limit: int = LIMIT,  # bytes of a message
        tell: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        if roster.parties.get(identity.name) != identity.public:
            raise BadKeys(
                f"the roster does not pin this key for {identity.name!r}: it has another one or "
                "none; have the roster made with this party's card"
            )
        self._identity, self._roster, self._attendance = identity, roster, attendance
        self._limit, self._tell = limit, tell

    def answer(self, data: bytes) -> bytes | None:
        """The envelope of the reply; None for what is not worth one."""
        try:
            about, body = self._heard(data)
        except PartyError as error:
            self._tell(f"a message was dropped: {error}")
            return None
        try:
            reply, verb = self._reply(about, body), verb_of(about)
        except PartyError as error:
            self._tell(f"refused: {error}")
            reply, verb = str(error).encode(), REFUSAL
        except BudgetExceeded as error:
            self._tell(f"refused: {error}")
            reply, verb = _SPENT, REFUSAL
        except Exception as error:  # whatever it is, its words may be of private rows
            self._tell(f"refused, for a reason that stays here: {type(error).__name__}: {error}")
            reply, verb = _INTERNAL, REFUSAL
        return signed_message(reply, answering(about, verb), self._identity)

    def _heard(self, data: bytes) -> tuple[About, bytes]:
        """What the server said, to this party. Raises `PartyError` for anything else."""
        found = addressed(data, self._limit)
        due = replace(found, sender=SERVER, receiver=self._identity.name, direction="request")
        body = verified_body(data, due, self._roster, self._limit)
        if asked(due.receiver, due.run, due.recipe, verb_of(due), body) != due:
            raise PartyError("the server signed a kind or round that its message is not of")
        return due, body

    def _reply(self, about: About, body: bytes) -> bytes:
        attendance = self._attendance
        if about.recipe != attendance.recipe:
            raise PartyError(
                f"this party follows the recipe of digest {attendance.recipe[:16]}… and the server "
                f"that of {about.recipe[:16]}…; compare them by `nacre federate digest RECIPE`"
            )
        match verb_of(about):
            case speech.HELLO:
                hello = greeted(body)
                if hello["roster"] != self._roster.digest():
                    raise PartyError(
                        "this party pins another roster; compare them by `nacre federate roster`"
                    )
                attendance.join(about.run, hello["frozen"])
                return b""
            case speech.ASK:
                return attendance.handle(about.run, body)
            case speech.END:
                attendance.leave(about.run, body)
                return b""
            case verb:
                raise PartyError(f"{verb!r} is nothing that a party answers; use one version")


_SPENT = b"its ledger does not cover what this run would spend; its operator sees by how much"
_INTERNAL = (
    b"it could not answer, for a reason that it keeps to itself; its operator reads it on the "
    b"party's own terminal"
)

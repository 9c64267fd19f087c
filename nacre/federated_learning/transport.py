"""How requests reach the parties. A deployment implements `core.parts.Transport`, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from nacre.core.errors import PartyError
from nacre.core.parts import Handler
from nacre.federated_learning.answers import RoundFiles
from nacre.federated_learning.messages import Reply, RoundRequest, as_read
from nacre.federated_learning.party import Party, step_of
from nacre.federated_learning.secure.wire import carries_release, is_secure


class InProcess:
    """All parties in this process, one after the other, and still every message as bytes.

    What a handler raises goes through to the caller: here a party that fails is a bug or a
    refusal with a reason, never silence.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = dict(handlers)
        self.parties: Sequence[str] = tuple(self._handlers)

    def ask(self, requests: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Each party's reply. Raises `PartyError` for a name that no handler has."""
        for name in requests:
            if name not in self._handlers:
                raise PartyError(f"no party {name!r} is here; there are {', '.join(self.parties)}")
        return {name: self._handlers[name](data) for name, data in requests.items()}


@dataclass(frozen=True)
class RoundCount:
    """What went through in a round. Who is asked is private where whole parties are protected."""

    asked: int
    answered: int
    size: int  # bytes of the weights, which each party is sent
    # Party -> bytes of its reply. Who answers is private where whole parties are protected.
    replies: Mapping[str, int] = field(default_factory=dict[str, int])

    def words(self, *, counted: bool) -> str:
        """For a line of progress; with `counted` how many answered.

        >>> RoundCount(10, 9, 104_040).words(counted=True)
        '9 of 10 parties answered, 102 KiB to each'
        """
        sent = f"{self.size / 1024:.0f} KiB to each"
        return f"{self.answered} of {self.asked} parties answered, {sent}" if counted else sent


class OnDemand:
    """All parties in this process, each of them made when it is asked: what a round costs depends
    on its cohort, and not on how many parties there are.

    The request of a round is made and read once, and replies are handed on as they are. *Why that
    is the same:* an object is handed on only where its bytes would be read as the same object, and
    every party keeps the bytes of its reply all the same. A party may not write into the request.

    *Guarantee:* no reply is handed on before all of the round's are kept.
    """

    def __init__(
        self,
        parties: Sequence[str],
        made: Callable[[str], Party | None],  # by name; its answers are kept in `answers`
        answers: RoundFiles,
        before: Callable[[RoundRequest, Sequence[str], str], None] = lambda asked, cohort, step: (
            None
        ),
    ) -> None:
        """`before` is called with a request, its cohort and the name of the step, before the first
        of the parties is asked: it may let them train side by side."""
        self.parties = parties
        self._made, self._answers, self._before = made, answers, before
        self.last = RoundCount(0, 0, 0)

    def ask(self, requests: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Each party's reply as bytes. Raises `PartyError` for a name that is no party's."""
        replies = {name: self._party(name).handle(data) for name, data in requests.items()}
        self._answers.keep()
        if not any(is_secure(data) and not carries_release(data) for data in requests.values()):
            size = max(map(len, requests.values()), default=0)
            sizes = {name: len(reply) for name, reply in replies.items()}
            self.last = RoundCount(len(requests), len(replies), size, sizes)
        return replies

    def exchange(self, request: RoundRequest, cohort: Sequence[str]) -> Mapping[str, Reply | bytes]:
        """Each party's reply. Raises `PartyError` as `ask` does."""
        asked = request
        if not as_read(request.tensors):
            asked = RoundRequest.from_bytes(request.to_bytes())
        entered = asked.digest()
        self._before(asked, cohort, step_of(asked))
        replies: dict[str, Reply | bytes] = {}
        sizes: dict[str, int] = {}
        for name in cohort:
            party = self._party(name)
            replies[name] = party.reply(asked, entered)
            sizes[name] = party.sent
        self._answers.keep()
        size = sum(value.numel() * value.element_size() for value in asked.tensors.values())
        self.last = RoundCount(len(cohort), len(replies), size, sizes)
        return replies

    def _party(self, name: str) -> Party:
        party = self._made(name)
        if party is None:
            raise PartyError(f"no party {name!r} is among the {len(self.parties)} that are here")
        return party

"""The server's side of a release: opens one secure sum and reads the answers from it."""

from __future__ import annotations

from dataclasses import dataclass

from nacre.core.parts import Transport
from nacre.federated_learning.roster import Identity
from nacre.federated_learning.secure.session import Asking, Session
from nacre.federated_learning.secure.survivors import SumTerms
from nacre.statistics.across.agreed import AgreedQueries
from nacre.statistics.across.options import DistributedNoise
from nacre.statistics.across.slots import AddedHere, AddedInShares, SumNoise, answered_from
from nacre.statistics.answers import Answer
from nacre.statistics.paid import DueNoise, NoiseCount, require_due


@dataclass(frozen=True)
class TogetherAnswered:
    """The answers of several parties together."""

    run: str
    """The name under which each party's ledger has its charges."""
    answers: tuple[Answer, ...]
    parties: tuple[str, ...]
    """Who answered: the answers are about their rows. All sides know it."""
    missing: tuple[str, ...]
    """Who did not."""
    noise: NoiseCount
    """Shares of noise that are in each number, and those that epsilon rests on."""
    against: str
    """Whom epsilon holds against, in a sentence."""

    def __getitem__(self, name: str) -> Answer:
        """The answer to the query of this name. Raises `KeyError`."""
        return {answer.name: answer for answer in self.answers}[name]


def opened_together(
    transport: Transport, identity: Identity, asked: AgreedQueries, terms: SumTerms
) -> TogetherAnswered:
    """Asks every party once and opens the sum over those who answered.

    Raises `PartyError` where fewer than the threshold answered at some stage: then there is no sum;
    `NotAsPlanned` where an answer has not the noise that its query pays for.
    """
    asking = Asking(transport, identity, terms)
    session = Session.begun(asking, asked.across.parties)
    opened = session.opened(asking, 0, asked.request().to_bytes(), asked.size, private=False)
    across, added = asked.across, len(opened.survivors)
    noise: SumNoise = AddedHere()
    count = NoiseCount(1, 1)
    if isinstance(across.noise, DistributedNoise):
        noise, count = AddedInShares(across.counted, added), NoiseCount(added, across.counted)
    values = asked.grid.summed(opened.total)
    answers = answered_from(values, asked.queries, asked.slots, noise)
    for query, found in zip(asked.queries, answers, strict=True):
        said = DueNoise(
            name=found.name, scale=found.scale, values=len(found.values), epsilon=query.epsilon,
            delta=query.delta, noise=count,
        )  # fmt: skip
        require_due(query, said)
    answered = [name for name in across.parties if name in opened.survivors]
    return TogetherAnswered(
        run=terms.run,
        answers=answers,
        parties=tuple(answered),
        missing=tuple(name for name in across.parties if name not in opened.survivors),
        noise=count,
        against=across.noise.against(across.colluders),
    )

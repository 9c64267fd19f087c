"""One party's side of a release: its rows, its account, and its numbers inside the secure sum."""

# Parts of torch and pandas are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nacre.core.errors import DataError
from nacre.core.random import Source
from nacre.core.types import Release, Tensors, Unprotected
from nacre.data.readers import RawTable, unit_name
from nacre.federated_learning.party import Party
from nacre.federated_learning.roster import Identity
from nacre.federated_learning.secure.survivors import SumTerms
from nacre.federated_learning.secure.whole_member import WHOLE, WholeMember
from nacre.gradient_clipping import Unclipped
from nacre.ledger import Charge, Ledger
from nacre.statistics.across.agreed import AgreedQueries
from nacre.statistics.across.options import DistributedNoise
from nacre.statistics.across.slots import share_of_noise, summed_at
from nacre.statistics.frames import frame_for
from nacre.statistics.release import charges_for

_IN_THE_SUM = Unprotected(
    "exact numbers under masks: the server adds the noise to their sum, and sees none of them"
)
_IN_SHARES = Unprotected(
    "numbers with one share of the noise, under masks: their sum has all shares, and is private"
)


@dataclass(frozen=True)
class Holder:
    """The rows of one party and what is asked of them.

    *Guarantee:* its numbers leave only once its account is charged for all answers, and only under
    the masks of a secure sum. Under distributed noise they carry its share before. The charge holds
    a keyed digest of the numbers, share and all: a server that gives an old run's name again, to a
    party with another key or other rows, is refused, since that would be a second release.
    """

    name: str
    asked: AgreedQueries
    raw: RawTable
    source: Source  # the party's own, and this run's: a repeated answer has the same noise
    charges: Sequence[Charge]

    def party(
        self,
        identity: Identity,
        terms: SumTerms,
        store: Path | None = None,  # a folder that keeps its replies, encrypted
    ) -> Party:
        """What answers the messages of the secure sum, each of them once."""
        member = WholeMember(identity, terms, Unclipped(), self.source.secret("secure sum"))
        key = None if store is None else self.source.secret("replies")
        return Party(
            self.name, self._released, recipe=self.asked.digest, rounds=1, like={}, store=store,
            key=key, member=member,
        )  # fmt: skip

    def _released(self, weights: Tensors, number: int) -> Release:
        asked, across = self.asked, self.asked.across
        frames = [frame_for(self.raw, query) for query in asked.queries]
        held = summed_at(frames, asked.queries, asked.slots, asked.most, self.source)
        how = _IN_THE_SUM
        if isinstance(across.noise, DistributedNoise):
            held, how = held + share_of_noise(asked.slots, across.counted, self.source), _IN_SHARES
        numbers = torch.from_numpy(held)
        entered = self.source.digest("answered", asked.digest, numbers).hex()
        for charge in self.charges:
            charge.journal(1, entered)
        return Release({WHOLE: numbers}, how)


def require_readable(raw: RawTable, asked: AgreedQueries, name: str) -> None:
    """Raises `DataError` where a query does not fit the rows, or where they are another party's."""
    for query in asked.queries:
        frame_for(raw, query)
    column = asked.across.column
    if column is None:
        return
    for row, cell in enumerate(raw.column(column), start=1):
        if unit_name(cell) != name:
            raise DataError(
                f"{raw.file} has rows of {unit_name(cell)[:40]!r} in column {column!r} (row {row}) "
                f"and is to hold those of {name!r} alone; leave the others out"
            )


@contextmanager
def charged_for(
    book: Ledger, account: str, run: str, asked: AgreedQueries
) -> Generator[Sequence[Charge]]:
    """All answers reserved for the party's account, settled when the block ends: what was not
    journalled goes back. Raises as `charges_for`."""
    charges: list[Charge] = []
    try:
        charges.extend(charges_for(book, account, run, asked.queries))
        yield charges
    finally:
        for charge in charges:
            charge.settle()


def rows_of(raw: RawTable, asked: AgreedQueries) -> dict[str, RawTable]:
    """One table dealt to the parties by the column that is declared. A party may have no rows.

    Raises `DataError` for a row of a party that is not declared.
    """
    column = asked.across.column
    assert column is not None  # the caller has it from the queries
    names = [unit_name(cell) for cell in raw.column(column)]
    known = dict.fromkeys(map(unit_name, asked.across.parties))
    for row, name in enumerate(names, start=1):
        if name not in known:
            raise DataError(
                f"{raw.file} column {column!r}: row {row} is of {name[:40]!r}, which is none of "
                f"the declared parties {', '.join(known)}; declare it, or leave its rows out"
            )
    of = np.array(names)
    return {
        name: RawTable(
            raw.file,
            {
                each: values.taken(np.flatnonzero(of == unit_name(name)))
                for each, values in raw.columns.items()
            },
        )
        for name in asked.across.parties
    }

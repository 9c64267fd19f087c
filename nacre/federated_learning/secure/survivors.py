"""What both sides agree on before a secure sum, and the statements that parties sign.

*One view of the survivors.* An honest party gives shares for one view of a round: that nobody
dropped out, or one list of those who did, of which it has signed no other and for which it has seen
`threshold` signatures. With n parties and c colluders two lists would take 2 (threshold - c) honest
signatures, and n - c are there: so there is one list where `c < 2 threshold - n`. A view without
dropouts takes no signatures: parties that gave shares for it sign no list, so where a list is
completed as well they are fewer than `n - threshold + 1`, colluders apart, and with c shares more
still below the threshold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nacre.core.strict import canonical
from nacre.federated_learning.roster import SERVER, Roster
from nacre.federated_learning.secure.derived import encoded
from nacre.federated_learning.secure.graph import Neighbourhood, neighbours_of, shape_of
from nacre.federated_learning.secure.grids.grid import Grid, WholeNumbers
from nacre.federated_learning.secure.grids.noised_grid import NoisedGrid
from nacre.federated_learning.secure.keys import nonce_commitment
from nacre.federated_learning.signed import About, Direction


@dataclass(frozen=True, kw_only=True)
class SumTerms:
    """What every side takes from its own recipe and its own roster."""

    run: str
    recipe: str  # hex digest
    rounds: int
    roster: Roster
    threshold: int
    colluders: int
    grid: Grid | NoisedGrid | WholeNumbers

    @property
    def changes(self) -> Grid | NoisedGrid:
        """The grid of changes of weights. Raises `ValueError` where statistics are summed."""
        if isinstance(self.grid, WholeNumbers):
            raise ValueError("these are terms of a sum of whole numbers, and not of changes")
        return self.grid

    def about(self, kind: str, number: int, party: str, direction: Direction) -> About:
        """What a message between the server and a party is about."""
        sender, receiver = (SERVER, party) if direction == "request" else (party, SERVER)
        return About(
            sender=sender, receiver=receiver, run=self.run, round=number, recipe=self.recipe,
            direction=direction, kind=kind,
        )  # fmt: skip


@dataclass(frozen=True)
class Members:
    """Who takes part in the rounds of an epoch, as each side has it from the same messages."""

    terms: SumTerms
    epoch: int
    entries: Mapping[str, Sequence[str]]  # name -> digest of the advertisement, commitment; hex
    nonces: Mapping[str, str]  # hex; none where the graph is complete

    @cached_property
    def names(self) -> list[str]:
        """Sorted."""
        return sorted(self.entries)

    @cached_property
    def shape(self) -> Neighbourhood:
        """Of every neighbourhood."""
        terms = self.terms
        return shape_of(len(self.entries), terms.threshold, terms.colluders)

    @property
    def complete(self) -> bool:
        """Whether everyone is everyone's neighbour, so that no seed is needed."""
        return self.shape.complete(len(self.entries))

    def nonces_fit(self) -> bool:
        """Whether the nonces are those committed to, or none where none is needed."""
        if self.complete:
            return not self.nonces
        return self.nonces.keys() == self.entries.keys() and all(
            nonce_commitment(bytes.fromhex(nonce)).hex() == self.entries[name][1]
            for name, nonce in self.nonces.items()
        )

    @cached_property
    def neighbours(self) -> Mapping[str, tuple[str, ...]]:
        """Of each party, sorted."""
        seed = hashlib.sha256(encoded("seed", *self._context, canonical(dict(self.nonces))))
        return neighbours_of(self.names, self.shape, seed.digest())

    def holders(self, name: str) -> list[str]:
        """Who has shares of this party's secrets, sorted: its neighbours and itself. The place,
        from 1, is the point of a holder's share. Neighbours are mutual, so these are also the
        parties of whose secrets it has shares."""
        return sorted((*self.neighbours[name], name))

    @cached_property
    def digest(self) -> bytes:
        """Stands for the epoch: terms, members, keys and nonces."""
        terms = self.terms
        facts: dict[str, Any] = {
            "members": {name: list(entry) for name, entry in self.entries.items()},
            "nonces": dict(self.nonces),
            "roster": terms.roster.digest(),
            "threshold": terms.threshold,
            "colluders": terms.colluders,
            "rounds": terms.rounds,
            "grid": repr(terms.grid),
        }
        return hashlib.sha256(encoded("members", *self._context, canonical(facts))).digest()

    def confirmation(self) -> bytes:
        """What a party signs once it has seen the members."""
        return b"nacre secure members\0" + self.digest

    def view(self, number: int, dropped: Sequence[str]) -> bytes:
        """What a party signs once it has seen who dropped out of a round."""
        named = encoded("survivors", number, self.digest, *dropped)
        return b"nacre secure survivors\0" + hashlib.sha256(named).digest()

    @property
    def _context(self) -> tuple[str, str, int]:
        return self.terms.run, self.terms.recipe, self.epoch

"""The keys of a federation that runs in one process, all of them derived from the run's own key.

So they need no exchange, and a resumed run has the same ones. Across organisations each side has an
`Identity` of its own and pins a `Roster`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nacre.core.parts import Clip
from nacre.core.random import Source
from nacre.core.types import Tensors
from nacre.federated_learning.roster import SERVER, Identity, Roster
from nacre.federated_learning.secure.grids.noised_grid import NoisedGrid
from nacre.federated_learning.secure.member import Member
from nacre.federated_learning.secure.option import SecureGather
from nacre.federated_learning.secure.sums import Secure
from nacre.federated_learning.secure.survivors import SumTerms


@dataclass(frozen=True, kw_only=True)
class KeysInProcess:
    """Both sides of the secure sums of one run."""

    source: Source  # of the run
    terms: SumTerms
    clip: Clip

    @classmethod
    def of(
        cls,
        option: SecureGather,
        source: Source,
        names: tuple[str, ...],
        recipe: str,
        rounds: int,
        clip: Clip,
        like: Tensors,
        noised: NoisedGrid | None = None,
    ) -> KeysInProcess:
        """For the parties of these names, which clip their changes by `clip`, and noise them where
        there is a grid for that.

        Raises `PartyError` for a name that no party can have beside the server.
        """
        parties = {name: _identity(source, name).public for name in names}
        bound = clip.bound(len(clip.groups(list(like))))
        terms = SumTerms(
            run=source.secret("secure sum", "run").hex(),
            recipe=recipe,
            rounds=rounds,
            roster=Roster(_identity(source, SERVER).public, parties),
            threshold=option.threshold,
            colluders=option.colluders,
            grid=noised or option.grid(len(names), bound if math.isfinite(bound) else None),
        )
        return cls(source=source, terms=terms, clip=clip)

    def member(self, name: str) -> Member:
        """The party's side."""
        secret = self.source.child("party", name).secret("secure sum")
        return Member(_identity(self.source, name), self.terms, self.clip, secret)

    def gather(self, expected: float) -> Secure:
        """The server's side."""
        return Secure(_identity(self.source, SERVER), self.terms, expected)


def _identity(source: Source, name: str) -> Identity:
    return Identity.from_secret(name, source.secret("secure sum", "identity", name))

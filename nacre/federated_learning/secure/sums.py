"""The gather of a secure sum: what the server does with a round, and learns of it."""

from __future__ import annotations

import math

import torch

from nacre.core.errors import PartyError
from nacre.core.parts import Clip, Transport
from nacre.core.types import BoundedSum, LocalMetrics, Noised, Tensors
from nacre.federated_learning.gather import Round
from nacre.federated_learning.roster import Identity
from nacre.federated_learning.secure.grids.noised_grid import NoisedGrid
from nacre.federated_learning.secure.session import Asking, Session
from nacre.federated_learning.secure.survivors import SumTerms


class Secure:
    """The server learns the sum over those who answered, and nothing else of any change.

    *Guarantee:* with at most `colluders` parties on the side of a server that does as it likes,
    what they learn of the honest parties' changes in a round is at most their sum over all honest
    survivors, and there are at least `threshold - colluders` of those. Who answered is known to
    all. Honest parties clip their own change: one that does not moves the sum as far as it likes.

    *Guarantee (one model):* masks are bound to the request of their round. Parties that were sent
    different weights have masks that do not cancel, so a server cannot silence all changes but one
    by its choice of weights (Pasquini, Francati & Ateniese 2022, https://arxiv.org/abs/2111.07380).

    *Limit:* sums of different rounds are over different survivors, and from sums over different
    sets of nearly the same changes something of one party follows. Noise covers that, no mask does.

    *Guarantee (exact):* the sum is that of the changes rounded to the grid, whichever
    parties dropped out at whatever stage; with fewer than `threshold` parties left at a stage,
    `PartyError` and no sum.

    Keys are exchanged at the first call, once for all rounds. It has no aggregate: a sum is all
    there is to take.
    """

    def __init__(self, identity: Identity, terms: SumTerms, expected: float) -> None:
        self.expected = expected
        self._identity, self._terms = identity, terms
        self._session: Session | None = None

    def __repr__(self) -> str:
        return f"Secure(threshold={self._terms.threshold}, expected={self.expected:g})"

    def __call__(self, transport: Transport, asked: Round, clip: Clip) -> BoundedSum:
        """The total over the parties that answered; `total / expected` is minus their mean change,
        those that did not answer counting as no change."""
        weights = asked.request.weights
        names = self._terms.roster.parties
        if set(asked.cohort) != set(names):
            raise PartyError(
                f"{len(asked.cohort)} parties are asked in round {asked.request.round}, and a "
                f"secure sum is over all {len(names)} of the roster; use `cohort: {{kind: all}}`"
            )
        asking = Asking(transport, self._identity, self._terms)
        if self._session is None:
            self._session = Session.begun(asking, names)
        size = sum(value.numel() for value in weights.values())
        opened = self._session.opened(
            asking, asked.request.round, asked.request.to_bytes(), size, private=asked.private
        )
        total = torch.from_numpy(self._terms.changes.decoded(opened.total)).float()
        local = LocalMetrics(dropped=len(opened.dropped))
        bound = self.bound(clip, weights)
        return BoundedSum(_shaped(total, weights), bound, local, self._noised(bound))

    def _noised(self, bound: float) -> Noised | None:
        """The noise that honest parties have added, of which there are enough in every sum."""
        grid = self._terms.grid
        if not isinstance(grid, NoisedGrid):
            return None
        return Noised(grid.deviation, bound, grid.noise.shares)

    def bound(self, clip: Clip, weights: Tensors) -> float:
        """How far one honest party can move the total, in L2 norm; inf where nothing bounds it."""
        bound = clip.bound(len(clip.groups(list(weights))))
        norm = self._terms.changes.norm
        if math.isfinite(bound) and (norm is None or norm > bound):
            raise ValueError(f"the grid keeps to {norm}, and the rule to {bound}")
        return bound


def _shaped(flat: torch.Tensor, like: Tensors) -> Tensors:
    """The tensors that `flat` holds in the order of their names, in the order of `like`."""
    names = sorted(like)
    parts = flat.split([like[name].numel() for name in names])
    found = dict(zip(names, parts, strict=True))
    return {name: found[name].view(like[name].shape) for name in like}

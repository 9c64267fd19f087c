"""What every side of a secure sum takes from its own plan and its own roster."""

from __future__ import annotations

import math

from nacre.core.errors import BadKeys
from nacre.core.types import Tensors
from nacre.differential_privacy.mechanism import Mechanism
from nacre.federated_learning.options import FederatedLearning
from nacre.federated_learning.roster import Roster
from nacre.federated_learning.secure import SecureGather
from nacre.federated_learning.secure.survivors import SumTerms
from nacre.planning.shares_of_noise import noised_grid


def sum_terms(
    federation: FederatedLearning, gather: SecureGather, roster: Roster, run: str, recipe: str,
    outer: Mechanism, like: Tensors,
) -> SumTerms:  # fmt: skip
    """The terms of this run's secure sums, over the parties of the recipe alone. Raises
    `BadKeys` for a party that the roster does not have."""
    clip = outer.clip
    names = federation.parties.names
    missing = [name for name in names if name not in roster.parties]
    if missing:
        raise BadKeys(f"the roster has no key of party {missing[0]!r}, which the recipe names")
    bound = clip.bound(len(clip.groups(list(like))))
    return SumTerms(
        run=run,
        recipe=recipe,
        rounds=federation.rounds,
        roster=Roster(roster.server, {name: roster.parties[name] for name in names}),
        threshold=gather.threshold,
        colluders=gather.colluders,
        grid=noised_grid(outer) or gather.grid(len(names), bound if math.isfinite(bound) else None),
    )

"""How replies come together: read, check, clip, aggregate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nacre.core.errors import PartyError
from nacre.core.parts import Clip, Transport
from nacre.core.tensors import finite, norm, summed
from nacre.core.types import BoundedSum, LocalMetrics, Tensors, Unprotected
from nacre.federated_learning.aggregates import AGGREGATES, AggregateOption
from nacre.federated_learning.messages import Reply, RoundRequest, misfit


@dataclass(frozen=True)
class Round:
    """What a server wants to know in one round, and of whom."""

    request: RoundRequest
    cohort: tuple[str, ...]  # at least one party
    private: bool  # whether every reply has to be private by itself


@dataclass(frozen=True)
class Plain:
    """The server sees each reply, clips it by the rule, and aggregates.

    *Guarantee:* under a rule with a finite bound and an aggregate that keeps it (`Mean`), one
    party moves the total by at most that bound, whatever it sends: a party that is silent, or
    whose reply cannot be used (unreadable, other names or shapes, not finite), contributes exactly
    zero. An error would tell the world about that one party. `local.dropped` counts the unusable.

    Without a bound nothing is hidden at this level. An unusable reply then raises a `PartyError`
    that names the party, unless the aggregate is robust and leaves it out; a silent party is left
    out; and a `PartyError` says so where nobody is left.
    """

    aggregate: AggregateOption
    expected: float  # parties a round: declared, and what the total will be divided by

    def __call__(self, transport: Transport, asked: Round, clip: Clip) -> BoundedSum:
        """The total over the cohort; `total / expected` is the aggregate of minus the changes."""
        weights = asked.request.tensors
        zero = BoundedSum.zero(summed(weights, clip), self.bound(clip, weights))
        bounded = math.isfinite(zero.bound)
        changes, faults = _changes(transport, asked)
        if faults and not bounded and not self.aggregate.robust:
            raise faults[0]
        if not changes and not bounded:
            raise faults[0] if faults else _silence(asked)
        clipped = [clipped_change(change, clip) for change in changes]
        parts, norms = [part for part, _ in clipped], [rows for _, rows in clipped]
        total = self.aggregate.total(parts, self.expected) if parts else zero.total
        local = LocalMetrics(torch.cat(norms) if norms else zero.local.norms, len(faults))
        return BoundedSum(total, zero.bound, local)

    def bound(self, clip: Clip, weights: Tensors) -> float:
        """How far one party can move the total, in L2 norm; inf where nothing bounds it."""
        return self.aggregate.bound(clip.bound(len(clip.groups(list(weights)))))


def _changes(transport: Transport, asked: Round) -> tuple[list[Tensors], list[PartyError]]:
    """The usable changes, and what is wrong with the others; both in the order of the names.

    A fixed order makes the sum the same bit for bit, in whatever order a cohort was drawn.
    """
    data = asked.request.to_bytes()
    replies = transport.ask({name: data for name in asked.cohort})
    changes: list[Tensors] = []
    faults: list[PartyError] = []
    for name in sorted(name for name in asked.cohort if name in replies):
        try:
            changes.append(_change(name, replies[name], asked))
        except PartyError as fault:
            faults.append(fault)
    return changes, faults


def _change(name: str, data: bytes, asked: Round) -> Tensors:
    """What party `name` replied, in the order of the weights. Raises `PartyError`."""
    where = f"party {name!r} in round {asked.request.round}"
    try:
        reply = Reply.from_bytes(data)
    except PartyError as error:
        raise PartyError(f"{where}: {error}") from error
    fault = _fault(name, reply, asked)
    if fault is not None:
        robust = next(kind.kind for kind in AGGREGATES if kind.robust)
        raise PartyError(
            f"the reply of {where} cannot be used: {fault}; mend that party and resume, or use "
            f"`aggregate: {{kind: {robust}}}`, which leaves it out"
        )
    return {weight: reply.tensors[weight] for weight in asked.request.tensors}


def _fault(name: str, reply: Reply, asked: Round) -> str | None:
    """Why a reply cannot be used, in words."""
    request = asked.request
    given = (reply.kind, reply.round, reply.party)
    if given != (request.kind, request.round, name):
        return f"it answers {given}, which was not asked"
    if asked.private and isinstance(reply.how, Unprotected):
        return "its change is unprotected, and this run promises privacy at the parties"
    if not finite(reply.tensors):
        return "its change is not finite"
    return misfit(reply.tensors, request.tensors)


def clipped_change(
    change: Tensors,  # weights after minus weights before
    clip: Clip,
) -> tuple[Tensors, Tensor]:  # minus the change, scaled by the rule; (1, G) the norms it had
    """One party's contribution, with the entries that its rule adds. Minus the change, because an
    optimizer subtracts what it is given."""
    groups = clip.groups(list(change))
    norms = torch.tensor(
        [[norm({name: change[name] for name in group}) for group in groups]], dtype=torch.float64
    )
    factors = [float(factor) for factor in clip.factors(norms)[0]]
    scaled = {
        # In float64: a factor below 1e-38 has too few digits in float32 to keep the bound.
        name: (change[name].double() * -factor).float()
        for group, factor in zip(groups, factors, strict=True)
        for name in group
    }
    return {name: scaled[name] for name in change} | clip.extras(norms), norms.float()


def _silence(asked: Round) -> PartyError:
    return PartyError(
        f"none of {len(asked.cohort)} parties answered in round {asked.request.round}; see that "
        "they run and resume"
    )

"""Does a rule keep its promise? Transports that stand where a server reads its replies."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nacre.core.parts import Transport
from nacre.core.types import Tensors
from nacre.federated_learning import AggregateOption, Reply, RoundRequest
from nacre.federated_learning.aggregates import RoundFacts


class Witness:
    """The transport `inner` with parties at fault behind it, and how far the rule's result was from
    the mean of the honest changes in its rounds.

    The promise of a rule for f parties at fault: the squared distance is at most kappa times the
    mean squared distance of the n - f honest changes from their own mean. *Why it holds with fewer
    at fault:* the mean over h > n - f honest changes is the average of the means over their subsets
    of n - f, a squared norm is convex, and the variance of a random subset is on average at most
    that of all h. So a round is judged with 1 to f at fault; with more nothing is promised.

    Source: Allouah et al. 2023, https://arxiv.org/abs/2302.01772, definition 2.
    """

    def __init__(
        self,
        inner: Transport,
        bad: Collection[str],
        rule: AggregateOption,
        expected: float,  # parties a round
    ) -> None:
        self._inner, self._bad = inner, frozenset(bad)
        self._rule, self._expected = rule, expected
        self.parties: Sequence[str] = inner.parties
        self.judged = 0
        """Rounds in which the rule promises anything."""
        self.reached: float | None = None
        """The largest distance of a judged round, as a share of the promised one; None without a
        judged round."""

    def ask(self, requests: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """The replies of the inner transport, unchanged."""
        answered = self._inner.ask(requests)
        count = len(self._bad & answered.keys())
        promises = math.isfinite(self._rule.kappa(len(answered)))
        if promises and 0 < count <= self._rule.faults:
            asked = RoundRequest.from_bytes(next(iter(requests.values())))
            self._look(asked, {n: Reply.from_bytes(d, asked.weights) for n, d in answered.items()})
        return answered

    def _look(self, asked: RoundRequest, replies: Mapping[str, Reply]) -> None:
        changes = {
            name: {weight: replies[name].tensors[weight] for weight in asked.weights}
            for name in sorted(replies)
        }
        parts = [{w: -value for w, value in change.items()} for change in changes.values()]
        total = self._rule.total(parts, self._expected, RoundFacts(asked.round))
        result = -_flat(total) / self._expected
        honest = torch.stack([_flat(c) for name, c in changes.items() if name not in self._bad])
        mean = honest.mean(0)
        spread = math.sqrt(float((honest - mean).square().sum(1).mean()))
        # What float32 rounds of honest changes that are all but equal is no broken promise.
        promised = math.sqrt(self._rule.kappa(len(replies))) * spread + _ROUNDING * float(
            honest.norm(dim=1).max()
        )
        distance = float((result - mean).norm())
        share = distance / promised if promised > 0 else 0.0 if distance == 0 else _BEYOND
        self.judged += 1
        self.reached = share if self.reached is None else max(self.reached, share)


_ROUNDING = 1e-5
"""Of the longest honest change: a few hundred roundings of float32."""
_BEYOND = 1e9
"""Stands for a distance where none was promised; a finding holds finite numbers alone."""


def _flat(tensors: Tensors) -> Tensor:
    return torch.cat([tensors[name].double().reshape(-1) for name in sorted(tensors)])


class Clamped:
    """The transport `inner`, each entry of each change cut off at `reach`: what an honest party of
    a secure sum does where no clip norm bounds its change."""

    def __init__(self, inner: Transport, reach: float) -> None:
        self._inner, self._reach = inner, reach
        self.parties: Sequence[str] = inner.parties

    def ask(self, requests: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """The replies with their entries in range."""
        return {name: self._cut(data) for name, data in self._inner.ask(requests).items()}

    def _cut(self, data: bytes) -> bytes:
        reply = Reply.from_bytes(data)
        tensors = {n: value.clamp(-self._reach, self._reach) for n, value in reply.tensors.items()}
        return replace(reply, tensors=tensors).to_bytes()

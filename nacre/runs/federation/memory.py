"""What the server of a federation has beside its parties: what it remembers of rounds, and how it
reaches parties that are elsewhere."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nacre.core.parts import Transport
from nacre.core.types import Tensors
from nacre.differential_privacy.mechanism import Mechanism
from nacre.federated_learning import Plain, SecureGather
from nacre.federated_learning.aggregates.direction import LastDirection
from nacre.federated_learning.federation import ServerMemory
from nacre.federated_learning.local.drift import Controls
from nacre.federated_learning.options import GatherOption
from nacre.federated_learning.secure import Secure
from nacre.planning.plan import Plan
from nacre.planning.robustness import rule_of


@dataclass(frozen=True, kw_only=True)
class PartiesElsewhere:
    """Parties that are not in this process: how they are reached, and the recipe's digest that
    they know, since each has ledger and files of its own."""

    transport: Transport
    recipe: str
    secure: Callable[[SecureGather, Mechanism, Tensors], Secure]
    """The server's side of a secure sum of changes that are clipped and noised so, of weights like
    these."""

    def gather(
        self, option: GatherOption, expected: float, outer: Mechanism, like: Tensors
    ) -> Plain | Secure:
        """How the replies come together."""
        if isinstance(option, SecureGather):
            return self.secure(option, outer, like)
        return option.build(expected)


def server_memory(plan: Plan, weights: Tensors) -> ServerMemory:
    """What the server remembers before the first round."""
    option = plan.recipe.federated_learning
    assert option is not None
    controls, local = None, option.local
    if local.controls:
        zeros = {name: torch.zeros_like(value) for name, value in weights.items()}
        share = option.expected() / len(option.parties.names)
        controls = Controls(zeros, share, local.steps * plan.recipe.training.optimizer.lr)
    rule = rule_of(plan.recipe)
    centred = rule is not None and rule.centred
    return ServerMemory(LastDirection() if centred else None, controls)

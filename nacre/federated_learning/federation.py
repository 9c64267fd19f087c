"""A gradient sum whose units are parties: federated learning as one more way to make a step."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from nacre.core.parts import Clip, Transport
from nacre.core.random import Source
from nacre.core.tensors import detached, summed, trainable
from nacre.core.types import BoundedSum
from nacre.federated_learning.gather import Plain, Round
from nacre.federated_learning.messages import RoundRequest
from nacre.federated_learning.secure.sums import Secure


@dataclass(frozen=True)
class Federation:
    """Sends the weights to a cohort and sums what comes back; a party's contribution is minus its
    change (weights after minus before).

    *Guarantee:* `total / gather.expected` is the aggregate of the contributions, so SGD with lr 1
    is FedAvg and Adam is FedAdam (Reddi et al. 2021, https://arxiv.org/abs/2003.00295, algorithm
    2). Under a rule with a finite bound one party moves the total by at most `bound`: see `Plain`
    and `Secure`.

    Frozen parameters and buffers do not travel: every side builds them from the same recipe.
    """

    transport: Transport
    gather: Plain | Secure
    recipe: str  # hex digest
    private: bool = False  # True: replies have to be private by themselves, so that the outer
    # release may be called `Inherited`; one that is unprotected counts as unusable
    round: int = 0

    def at(self, round_number: int) -> Federation:
        """The same federation in another round. A party answers each round once."""
        return replace(self, round=round_number)

    def __call__(
        self, model: nn.Module, units: tuple[str, ...], clip: Clip, source: Source
    ) -> BoundedSum:
        """The sum over the parties named by `units`; zero for an empty cohort.

        A whole cohort comes in one call: a median of parts is not the median. `source` is not
        used, since each party has its own. Raises `PartyError` as `Plain` does.
        """
        weights = detached(trainable(model))
        if not units:
            return BoundedSum.zero(summed(weights, clip), self.gather.bound(clip, weights))
        request = RoundRequest("train", self.round, self.recipe, weights)
        return self.gather(self.transport, Round(request, units, self.private), clip)

"""A gradient sum whose units are parties: federated learning as one more way to make a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import nn

from nacre.core.parts import Clip, Transport
from nacre.core.random import Source
from nacre.core.tensors import detached, scale, summed, trainable
from nacre.core.types import BoundedSum, Tensors
from nacre.federated_learning.aggregates import RoundFacts
from nacre.federated_learning.aggregates.direction import LastDirection
from nacre.federated_learning.gather import Plain, Round
from nacre.federated_learning.local.drift import Controls
from nacre.federated_learning.messages import RoundRequest, control_of, with_control
from nacre.federated_learning.secure.sums import Secure


@dataclass(frozen=True)
class ServerMemory:
    """What a server remembers of one round for the next, computed from releases alone: the
    direction that a centred aggregate clips around, and the control that SCAFFOLD sends along.

    It is the `Shape` of the server's step, and its tensors belong in the checkpoint.
    """

    direction: LastDirection | None = None
    controls: Controls | None = None

    def shape(self, mean: Tensors) -> Tensors:
        """The direction to follow: of differences, the last one is added."""
        if self.direction is not None:
            mean = self.direction.shape(mean)
        if self.controls is not None:
            self.controls.follow(mean)
        return mean

    def sent(self, weights: Tensors) -> Tensors:
        """The tensors of a request: the weights, and the server's control where there is one."""
        return weights if self.controls is None else with_control(weights, self.controls.tensors)

    @property
    def tensors(self) -> Tensors:
        """All that is remembered, by names of its own."""
        last = self.direction.last if self.direction is not None else None
        found = {_DIRECTION + name: value for name, value in (last or {}).items()}
        return found if self.controls is None else with_control(found, self.controls.tensors)

    def put_back(self, tensors: Tensors) -> None:
        """Remembers what a checkpoint has among its tensors."""
        if self.direction is not None:
            mine = {n: t for n, t in tensors.items() if n.startswith(_DIRECTION)}
            self.direction.put_back({n.removeprefix(_DIRECTION): t for n, t in mine.items()})
        if self.controls is not None:
            self.controls.put_back(control_of(tensors))


_DIRECTION = ".direction."


@dataclass(frozen=True)
class Federation:
    """Sends the weights to a cohort and sums what comes back; a party's contribution is minus its
    change (weights after minus before).

    *Guarantee:* `total / gather.expected` is the aggregate of the contributions (of a centred one,
    minus the last direction, which the update adds), so SGD with lr 1
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
    remembered: ServerMemory = field(default_factory=ServerMemory)
    root: Callable[[Tensors, int], Tensors] | None = None  # weights, round -> the change on public
    # rows, for an aggregate that compares with it
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
        sent = self.remembered.sent(weights)
        request = RoundRequest("train", self.round, self.recipe, sent)
        asked = Round(request, units, self.private, self._known(weights))
        return self.gather(self.transport, asked, clip)

    def _known(self, weights: Tensors) -> RoundFacts:
        root = None if self.root is None else scale(self.root(weights, self.round), -1.0)
        direction = self.remembered.direction
        center = None if direction is None else direction.last
        return RoundFacts(self.round, root, center)

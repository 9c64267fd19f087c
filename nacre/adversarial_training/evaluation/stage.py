"""One attack, a model evaluation at a time, over rows that come and go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

from nacre.adversarial_training.evaluation.access import AccessType
from nacre.adversarial_training.evaluation.inputs import Inputs, RowState
from nacre.core.random import Source


@dataclass(frozen=True, eq=False)
class Tried:
    """What one evaluation showed, row by row, or a few of them one after another."""

    points: Tensor  # (R, *shape): the input of each row that was evaluated, the last of several
    broken: Tensor  # (R,) bool: the attacker has what it wants there
    state: RowState  # what comes next, for every row
    ended: Tensor  # (R,) bool: the attack has nothing more to try on the row
    evaluations: Tensor | int = 1  # (R,) int64 how many inputs of each row were evaluated
    best: Tensor | None = None  # (R,) the best margin of the row in this stage, where it is known


class Allowed(Protocol):
    """The inputs that a threat allows around a clean one: all that a queue asks of it."""

    def project(self, x: Tensor, centre: Tensor, /) -> Tensor:
        """(R, *shape) twice -> (R, *shape): an allowed input for each of `x`."""
        ...


class Stage(Protocol):
    """An attack as a queue runs it: `begin` once for each row, then `advance` until the row is
    broken or has ended. Adding one is a class and a line in `STAGES`, over which the laws run.

    *Law:* what is tried on a row depends on that row, its unit's number and `source` alone, and
    all points lie in the region; the queue may put any rows side by side, and take rows out
    between two steps. So whatever is counted (steps left, step size) is counted for each row.
    """

    access: ClassVar[AccessType]
    """What it needs to see of the model: it is given no more."""

    @property
    def name(self) -> str:
        """What the stage table calls it, as the field does."""
        ...

    def begin(self, target: Any, region: Any, rows: Inputs, source: Source) -> RowState:
        """What is remembered of each row before the first evaluation. `target` is an `access`,
        `region` what the threat gives: balls around numbers, or substitutions of words."""
        ...

    def advance(
        self, target: Any, region: Any, rows: Inputs, state: RowState, source: Source
    ) -> Tried:
        """Evaluates one point of each row and decides the next one. `rows` are those of `state`,
        `source` is that of `begin`; rows that have come equally far are given equal numbers only
        through their units."""
        ...

"""What every gradient sum over rows states about itself: which rules and precision it carries."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar, Self

from torch import nn

from nacre.core.errors import Incompatible
from nacre.core.parts import Clip, Objective
from nacre.core.random import Source
from nacre.core.types import Batch, BoundedSum


class RowSum(ABC):
    """A gradient sum over rows, with what it can carry.

    Each sum states a few facts; `refuses` turns them into the one refusal that planning, choosing
    and the sum itself give.
    """

    kind: ClassVar[str]
    """The name of the sum under `execution.gradients`."""
    per_unit: ClassVar[bool] = True
    """Whether each unit's gradient is seen alone, so that it can be bounded."""
    per_part: ClassVar[bool] = True
    """Whether the parts of one unit's gradient can have factors of their own."""
    half_precision: ClassVar[bool] = False
    """Whether it can compute in bfloat16 and add up in float32."""
    holds_gradients: ClassVar[bool] = False
    """Whether the gradients of all units of a step lie in memory at the same time."""

    objective: Objective
    """What is minimised."""

    def minimising(self, objective: Objective) -> Self:
        """The same sum of another objective; what it learnt about the model stays."""
        return replace(self, objective=objective)  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownVariableType, reportReturnType]  # each sum is a dataclass

    @abstractmethod
    def __call__(self, model: nn.Module, units: Batch, clip: Clip, source: Source) -> BoundedSum:
        """The clipped sum over the units that are present."""

    @classmethod
    def refuses(cls, clip: Clip, precision: str = "float32") -> str | None:
        """Why this sum cannot carry the rule or the precision, with the remedy; None where it can.

        The rule is judged first: with `float32`, which every sum carries, it is judged alone.
        """
        bound = clip.bound(1)
        if not cls.per_unit and math.isfinite(bound):
            return (
                f"{cls.kind} adds gradients up before anyone could clip one unit's, so it bounds "
                f"no unit by {bound:g}; use `gradients: auto`"
            )
        if not cls.per_part and not clip.one_factor:
            return (
                f"{cls.kind} scales each unit's loss by one factor, and `{clip.kind}` has one a "
                "layer; use `gradients: bookkeeping`"
            )
        if not cls.half_precision and precision != "float32":
            return (
                f"{precision} is for the sums of the tape, and this run takes "
                f"`gradients: {cls.kind}`; use `precision: float32`"
            )
        return None

    @classmethod
    def require(cls, clip: Clip, precision: str = "float32") -> None:
        """Raises `Incompatible` for what `refuses` names."""
        problem = cls.refuses(clip, precision)
        if problem is not None:
            raise Incompatible(problem)

"""A clip norm that follows a quantile of the units' own norms, learnt under the same noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from nacre.core import require
from nacre.core.types import Release, Tensors
from nacre.gradient_clipping.rules import (
    LONGEST,
    ROUNDING,
    SHORTEST,
    UNIT,
    down,
    require_length,
    require_positive,
    rule_facts,
)

BELOW = ":below"
"""The entry of a sum that says how many units were below the norm, and how many above."""


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """As `flat`, with a norm that moves from step to step towards a quantile of the units' norms.

    Beside its gradient each unit answers whether its norm was at most the present one: plus or
    minus `share * norm`, so the two together are no longer than `norm * sqrt(1 + share**2)`. That
    is the bound that the noise is measured by: the quantile is part of the event, and costs as
    much noise as the bound grows.

    *Guarantee:* that of `Flat` on gradient and answer as one vector, at every step. *Why the price
    stays that of Gaussian noise:* a step releases one vector, noised evenly at its joint bound, and
    the next norm is computed from releases alone, so the steps compose as if it had been fixed.
    A unit that is left out or not finite answers zero.

    >>> rule = Adaptive(norm=1.0, share=0.75)
    >>> rule.bound(1), round(float(rule.extras(torch.tensor([[0.5], [2.0], [3.0]]))[":below"]), 4)
    (1.25, -0.75)

    *Source:* Andrew, Thakkar, McMahan & Ramaswamy 2021, "Differentially Private Learning with
    Adaptive Clipping", https://arxiv.org/abs/1905.03871, algorithm 1 (geometric update), with the
    count as one more coordinate of the sum instead of a query of its own.
    """

    kind: Literal["adaptive"] = "adaptive"
    norm: float = 1.0
    """Where the norm starts (L2, over all trained parameters)."""
    quantile: float = 0.5
    """Which share of the units is to be shorter than the norm, 0 to 1."""
    rate: float = 0.2
    """How fast: the logarithm of the norm moves by this times the distance of the share seen from
    `quantile`."""
    share: float = 0.1
    """How much a unit's answer weighs beside its gradient. The noise grows by sqrt(1 + share**2),
    half a percent at 0.1; the share seen is wrong by about z / (2 * share * batch) a step, z being
    the noise multiplier."""

    one_factor: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_length("norm", self.norm)
        for name in ("rate", "share"):
            require_positive(name, getattr(self, name))
        require.between(0, 1, quantile=self.quantile)

    def sentence(self, share: str = UNIT) -> str:
        """The rule with its first norm, its quantile and what one unit's answer adds."""
        return (
            f"{share} is scaled down to an L2 norm that begins at {self.norm:g} and follows the "
            f"{self.quantile:g} quantile of such norms, which is learnt from the same noised "
            f"sums; one unit moves a sum by at most {self.bound(1) / self.norm:.4g} times the norm."
        )

    def facts(self) -> dict[str, Any]:
        """Kind, first bound, and what the bound of each later step follows from."""
        path = {"quantile": self.quantile, "pace": self.rate, "share": self.share}
        return rule_facts(self) | path | {"moves": True}

    def groups(self, names: Sequence[str]) -> list[list[str]]:
        """One group: the joint norm counts."""
        return [list(names)]

    def factors(self, norms: Tensor) -> Tensor:
        """(B, 1) -> (B, 1)"""
        return down(norms, self.norm)

    def bound(self, groups: int) -> float:
        """Of a unit's gradient and its answer, jointly."""
        return self.norm * math.hypot(1, self.share)

    def extras(self, norms: Tensor) -> Tensors:
        """(B, 1) finite norms -> the units' answers, added up."""
        answers = torch.where(norms[:, 0] <= self.norm, 1.0, -1.0).to(torch.float64)
        return {BELOW: (answers.sum() * self._answer).float()}

    @property
    def _answer(self) -> float:
        """The size of one unit's answer; its rounding stays below the bound."""
        return self.share * self.norm * (1 - ROUNDING)

    def after(self, release: Release, expected: float) -> Self:
        """The rule with its norm moved by the answers, which count over the declared `expected`.

        A step moves the norm by a factor of e at most, whatever the noise was.
        """
        seen = (1 + float(release.total[BELOW]) / (self._answer * expected)) / 2
        way = min(max(self.rate * (seen - self.quantile), -1.0), 1.0)
        norm = min(max(self.norm * math.exp(-way), SHORTEST), LONGEST)
        return replace(self, norm=norm)

    def moved(self) -> dict[str, float]:
        """The present norm: a function of releases, so it may be kept and shown."""
        return {"norm": self.norm}

    def at(self, moved: Mapping[str, float]) -> Self:
        """The rule at a norm that `moved` gave."""
        return replace(self, norm=float(moved["norm"]))

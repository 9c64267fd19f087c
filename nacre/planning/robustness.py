"""What a federation's rule against parties at fault promises on the declared parties, and where it
promises nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.text import Text

from nacre.data.partition import ByColumn, Uniform
from nacre.federated_learning import (
    Bucketing,
    CentredClipping,
    FederatedLearning,
    FLTrust,
    NearestNeighbourMixing,
    NormBound,
)
from nacre.recipe.schema import Recipe

ALIKE = 1.0
"""Dirichlet parameter from which on parties hold most classes; below it they lack some."""
_PROVEN_SHARE = 0.1
"""Of parties at fault, up to which centred clipping is proven."""


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """A rule on the declared parties."""

    rule: dict[str, Any]
    """Its own facts: kind, bad, least, kappa."""
    parties: float
    """Expected a round."""
    limits: str
    """Which share at fault it withstands, and how alike honest changes have to be."""
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain facts, all of them public."""
        return asdict(self)

    def lines(self) -> Group:
        """For people: what the rule promises, then warnings in red."""
        found = [Text(f"parties at fault: {self.limits}{self._distance()}")]
        found += [Text(f"warning: {each}", style="bold red") for each in self.warnings]
        return Group(*found)

    def _distance(self) -> str:
        kappa, bad = self.rule["kappa"], self.rule["bad"]
        if kappa is None or not bad:
            return ""
        return (
            f" With {bad} of {self.parties:g} at fault the result is off the mean of the honest "
            f"changes by at most {math.sqrt(kappa):.2g} times their own distance from it (root "
            "mean square)."
        )


def robustness(recipe: Recipe) -> Robustness | None:
    """What the recipe's rule promises; None without a federation, or where a mean withstands
    nobody."""
    option = recipe.federated_learning
    if option is None or not option.gather.aggregate.robust:
        return None
    rule, expected = option.gather.aggregate, option.expected()
    return Robustness(
        rule=rule.facts(math.floor(expected)),
        parties=expected,
        limits=rule.limits(),
        warnings=tuple(_warnings(option)),
    )


def _warnings(option: FederatedLearning) -> Iterator[str]:
    rule, partition = option.gather.aggregate, option.parties
    inner = rule.before if isinstance(rule, Bucketing | NearestNeighbourMixing) else rule
    if rule.faults == 0 and not isinstance(inner, FLTrust | NormBound):  # of no number's making
        yield (
            f"{rule.kind} declares no number of parties at fault, so nothing says whether there "
            "are enough honest ones; declare `bad: N` under `aggregate`"
        )
    size = rule.size if isinstance(rule, Bucketing) else 1
    share = rule.faults * size / option.expected()
    if isinstance(inner, CentredClipping) and share > _PROVEN_SHARE:
        yield (
            f"centred clipping is proven up to a tenth at fault, and here it is {share:.0%}; "
            "declare fewer, or use `kind: nearest_neighbour_mixing` before `geometric_median`"
        )
    if isinstance(partition, Uniform):
        return
    if isinstance(partition, ByColumn):
        yield (
            "how alike the parties' rows are is not declared, and every rule needs honest changes "
            "to be alike; compare with the mean on public rows, and lower `local: {steps: …}`"
        )
        return
    alpha: float | None = getattr(partition, "alpha", None)
    if alpha is None or not alpha >= ALIKE:
        how = "label-sorted data" if alpha is None else f"classes drawn with alpha {alpha:g}"
        yield (
            f"{how}: no listed rule is proven here, since honest parties differ as much as bad "
            f"ones; use `alpha: {ALIKE:g}` or more in a simulation, and in earnest fewer "
            "`local: {steps: …}` and `kind: nearest_neighbour_mixing` in front of the rule"
        )

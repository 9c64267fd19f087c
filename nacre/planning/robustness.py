"""What a federation's rule against parties at fault promises on the declared parties, and where it
promises nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.text import Text

from nacre.data.partition import ByColumn, PartitionOption
from nacre.federated_learning import (
    AggregateOption,
    Bucketing,
    CentredClipping,
    FederatedLearning,
    FLTrust,
    NearestNeighbourMixing,
    NormBound,
    PlainGather,
)
from nacre.federated_learning.aggregates import RuleOption
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
    option, rule = recipe.federated_learning, rule_of(recipe)
    if option is None or rule is None or not rule.robust:
        return None
    expected = option.expected()
    return Robustness(
        rule=rule.facts(math.floor(expected)),
        parties=expected,
        limits=rule.limits(),
        warnings=tuple(_warnings(option, rule)),
    )


def rule_of(recipe: Recipe) -> AggregateOption | None:
    """How the server makes one direction of the changes that it sees; None without a federation,
    and where a secure sum shows it none of them."""
    federation = recipe.federated_learning
    gather = None if federation is None else federation.gather
    return gather.aggregate if isinstance(gather, PlainGather) else None


def innermost(rule: AggregateOption) -> RuleOption:
    """The rule itself, without what is in front of it."""
    return rule.before if isinstance(rule, Bucketing | NearestNeighbourMixing) else rule


def _warnings(option: FederatedLearning, rule: AggregateOption) -> Iterator[str]:
    inner = innermost(rule)
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
    if isinstance(option.parties, ByColumn):
        yield (
            "how alike the parties' rows are is not declared, and every rule needs honest changes "
            "to be alike; compare with the mean on public rows, and lower `local: {steps: …}`"
        )
    how = _unlike(option.parties)
    if how is not None:
        yield (
            f"{how}: no listed rule is proven here, since honest parties differ as much as bad "
            f"ones; use `alpha: {ALIKE:g}` or more in a simulation, and in earnest fewer "
            "`local: {steps: …}` and `kind: nearest_neighbour_mixing` in front of the rule"
        )


def _unlike(partition: PartitionOption) -> str | None:
    """How simulated parties lack classes, by what they are drawn with; None where they do not."""
    kind, alpha = str(partition.kind), getattr(partition, "alpha", math.inf)
    if kind.startswith("label"):
        return "label-sorted data"
    return None if alpha >= ALIKE else f"classes drawn with alpha {alpha:g}"

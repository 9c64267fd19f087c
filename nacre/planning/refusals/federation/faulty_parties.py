"""Refusals of rules against parties at fault: enough honest parties, and lengths that are given."""

from __future__ import annotations

import math
from dataclasses import replace

from scipy.stats import binom

from nacre.core.errors import BadArgument
from nacre.federated_learning import (
    AggregateOption,
    AllParties,
    Bucketing,
    CentredClipping,
    FederatedLearning,
    NearestNeighbourMixing,
    TrimmedMean,
    at_fault,
)
from nacre.planning.facts import RecipeFacts
from nacre.planning.robustness import innermost, rule_of
from nacre.recipe.places import refuse
from nacre.training.pieces import protects

_RARELY = 1e-3
"""Probability with which some round of a run may have too few parties for the rule."""


def parties_outvote_those_at_fault(facts: RecipeFacts) -> None:
    """A rule needs more honest parties than bad ones, as Krum needs 2f + 3 for f."""
    recipe, option = facts.recipe, facts.recipe.federated_learning
    rule = rule_of(recipe)
    if option is None or rule is None:
        return
    parties = len(option.parties.names)
    if rule.least > parties:
        refuse(
            recipe,
            "federated_learning.gather",
            f"{_named(rule)} with {at_fault(rule.faults)} needs at least {rule.least} "
            f"parties, and there are {parties}; {_fewer(rule, parties)}",
        )
    short = _too_few(option, rule.least)
    if short > _RARELY and not math.isfinite(rule.bound(1.0)):
        refuse(
            recipe,
            "federated_learning.cohort",
            f"{_named(rule)} with {at_fault(rule.faults)} needs {rule.least} a round, and "
            f"with {option.expected():g} expected some round has fewer with probability "
            f"{short:.2g}, which ends the run; use `cohort: {{kind: all}}`, or expect more",
        )


def centred_clipping_has_a_radius(facts: RecipeFacts) -> None:
    """Centred clipping without a radius clips by the rule over parties, so there must be one."""
    recipe, rule = facts.recipe, rule_of(facts.recipe)
    inner = None if rule is None else innermost(rule)
    if isinstance(inner, CentredClipping) and inner.radius is None and protects(recipe) != "client":
        refuse(
            recipe,
            "federated_learning.gather",
            "centred_clipping scales differences down by the clip rule over parties, and there is "
            "none unless `differential_privacy: {unit: client}`; give it a `radius`",
        )


def _named(rule: AggregateOption) -> str:
    if isinstance(rule, Bucketing | NearestNeighbourMixing):
        return f"{rule.kind} before {rule.before.kind}"
    return rule.kind


def _too_few(option: FederatedLearning, least: int) -> float:
    """Probability that some round has fewer parties than `least`; 0 where all take part."""
    if isinstance(option.cohort, AllParties):
        return 0.0
    parties = len(option.parties.names)
    each = float(binom.cdf(least - 1, parties, option.cohort.expected / parties))
    return -math.expm1(option.rounds * math.log1p(-min(each, 1 - 1e-16)))


def _fewer(rule: AggregateOption, parties: int) -> str:
    """The remedy: as many at fault as these parties withstand."""
    for bad in range(rule.faults - 1, 0, -1):
        other = _with(rule, bad)
        if other is not None and other.least <= parties:
            return f"declare `bad: {bad}` or fewer, or find more parties"
    other = TrimmedMean(bad=rule.faults)
    if other.least <= parties and other.kind != innermost(rule).kind:
        return (
            f"find more parties, or use `aggregate: {{kind: trimmed_mean, bad: {rule.faults}}}`, "
            f"for which {other.least} are enough"
        )
    return "find more parties, or use `aggregate: {kind: mean}`, which withstands nobody"


def _with(rule: AggregateOption, bad: int) -> AggregateOption | None:
    """The same rule for another number at fault; None where there is none."""
    try:
        if isinstance(rule, Bucketing | NearestNeighbourMixing):
            return replace(rule, before=replace(rule.before, bad=bad))  # pyright: ignore[reportCallIssue]
        return replace(rule, bad=bad)  # pyright: ignore[reportCallIssue]
    except (BadArgument, TypeError):
        return None

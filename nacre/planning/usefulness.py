"""Whether a planned run can be of use: its noise beside the largest gradient, and what would help.

A step's noise is `multiplier x sensitivity` in each of d coordinates, and the mean over the
declared batch is at most as long as the clip norm. Over T steps whose gradients all point one way,
the noise is `sqrt(d T)` times one coordinate's, and the gradients T clip norms at most. Real
gradients are shorter and point in different ways, so a run whose noise is longer than that learns
next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Group
from rich.text import Text

from nacre.core.types import BoundedSum
from nacre.differential_privacy.mechanism import Mechanism
from nacre.differential_privacy.noise.distributed import DistributedGaussian
from nacre.differential_privacy.noise.independent import Gaussian
from nacre.differential_privacy.upward import rounded_up_to
from nacre.planning.levels import PricedLevel, by_unit, smallest_and_largest
from nacre.planning.plan import Plan

LARGE_EPSILON = 20.0
"""Above it the odds on any guess about a unit may change by more than e^20, 485 million."""
_DOUBLINGS = 6
"""Of the batch, and of the steps, that are tried as remedies."""


@dataclass(frozen=True, kw_only=True)
class PartyNoise:
    """Noise of one party's mean gradient, in units of its largest."""

    account: str
    units: int
    each_step: float
    whole_run: float


@dataclass(frozen=True, kw_only=True)
class Usefulness:
    """Noise of the mean gradient in units of the largest mean gradient, and what is to be said."""

    each_step: float | None
    """In one coordinate of one step; None for correlated noise, which later steps take back in
    part, and for a search."""
    whole_run: float | None
    """Over all trained weights and all steps, where every gradient is as long as it may be and they
    all point one way."""
    warnings: tuple[str, ...]
    parties: tuple[PartyNoise, ...] = ()
    """The smallest party and the largest, each alone; () where all are of one size."""
    within: Usefulness | None = None
    """The same of the noise within parties; None where the recipe makes one promise."""

    def to_json(self) -> dict[str, Any]:
        """Plain facts, all of them public."""
        facts = asdict(replace(self, within=None))
        del facts["within"]
        return facts if self.within is None else facts | {"within": self.within.to_json()}

    def lines(self) -> Group:
        """For people: the figures, then warnings in red."""
        if self.within is None:
            return Group(*self._lines("a mean gradient"))
        within = self.within._lines("a mean gradient within parties")
        return Group(*self._lines("a mean change"), *within)

    def _lines(self, of: str) -> list[Text]:
        found: list[Text] = []
        if self.each_step is not None and self.whole_run is not None:
            found.append(
                Text(
                    f"noise of {of}: {self.each_step:.2g} of the longest one in each "
                    f"coordinate, {self.whole_run:.2g} in all coordinates over all steps"
                )
            )
        if self.parties:
            small, large = self.parties
            found.append(
                Text(
                    f"of one party alone from {small.each_step:.2g} and {small.whole_run:.2g} "
                    f"({small.account}, {small.units} units) to {large.each_step:.2g} and "
                    f"{large.whole_run:.2g} ({large.account}, {large.units} units)"
                )
            )
        return found + [Text(f"warning: {each}", style="bold red") for each in self.warnings]


def usefulness(plan: Plan) -> Usefulness | None:
    """What can be said of the run, over all parties of a federation together; None where nothing
    is private."""
    if not plan.priced:
        return None
    first, *others = [_of_levels(plan, levels) for levels in by_unit(plan.priced)]
    return replace(first, within=others[0]) if others else first


def _of_levels(plan: Plan, levels: Sequence[PricedLevel]) -> Usefulness:
    level = levels[0]
    trained = _moved(plan, level)
    warnings = list(_too_large(max(levels, key=lambda each: each.price.epsilon)))
    known = isinstance(level.mechanism.noise, Gaussian | DistributedGaussian)
    if not isinstance(level.basis, Mechanism) or not known:
        return Usefulness(each_step=None, whole_run=None, warnings=tuple(warnings))
    apart = level.mechanism.unit != "client" and plan.outer is not None
    alone = _RunNoise(trained, 1.0)
    run, parties = alone, list[PartyNoise]()
    if apart and plan.outer is not None:
        run = _RunNoise(trained, _averaged(levels, plan.outer.sampling.expected))
        some = smallest_and_largest(levels)
        parties = [alone.of_party(each) for each in some if len(some) > 1]
    each = run.each_step(level.mechanism)
    whole = run.whole(level.mechanism)
    if whole > 1:
        warnings.insert(0, _useless(level, run, whole, federated=plan.outer is not None))
    return Usefulness(
        each_step=each, whole_run=whole, warnings=tuple(warnings), parties=tuple(parties)
    )


def _moved(plan: Plan, level: PricedLevel) -> int:
    """Coordinates that the noise of a level reaches: noise over parties those that they share."""
    shared, trained = plan.estimate.shared, plan.estimate.trained
    return trained if shared is None or level.mechanism.unit != "client" else shared


def _averaged(
    levels: Sequence[PricedLevel],
    expected: float,  # parties of a round
) -> float:
    """How many parties like the first one have a mean with as much noise as that of these parties,
    each with noise of its own: variances add up."""
    alone = _RunNoise(1, 1.0)
    ratios = [
        (alone.each_step(each.mechanism) / alone.each_step(levels[0].mechanism)) ** 2
        for each in levels
    ]
    return expected / (math.fsum(ratios) / len(ratios))


@dataclass(frozen=True)
class _RunNoise:
    """Lengths of noise, in units of the longest mean gradient."""

    trained: int  # coordinates
    parties: float  # alike, whose noise is averaged

    def each_step(self, mechanism: Mechanism) -> float:
        """In one coordinate of one step."""
        moved = BoundedSum({}, 1.0).sensitivity(mechanism.adjacency)
        noise, multiplier = mechanism.noise, mechanism.multiplier
        if isinstance(noise, DistributedGaussian):
            multiplier *= noise.surplus()
        return multiplier * moved / mechanism.sampling.expected / self.parties**0.5

    def whole(self, mechanism: Mechanism) -> float:
        """In all coordinates over all steps."""
        return self.each_step(mechanism) * math.sqrt(self.trained / mechanism.steps)

    def of_party(self, level: PricedLevel) -> PartyNoise:
        """The figures of one party."""
        return PartyNoise(
            account=level.account,
            units=level.size,
            each_step=self.each_step(level.mechanism),
            whole_run=self.whole(level.mechanism),
        )

    def short_enough(self, mechanism: Mechanism) -> Mechanism:
        """The same mechanism with noise as long as the gradients."""
        return mechanism.with_multiplier(mechanism.multiplier / self.whole(mechanism))


def _useless(level: PricedLevel, run: _RunNoise, whole: float, *, federated: bool) -> str:
    """That the noise is longer than the gradients, and what would bring it down; of whole parties
    than their changes."""
    enough = run.short_enough(level.mechanism).price(level.delta, level.accountant).epsilon
    parties = level.mechanism.unit == "client"
    moves, draw, step, units = (
        ("changes", "cohort", "round", "parties")
        if parties
        else ("gradients", "batch", "local step" if federated else "step", "units")
    )
    found = [f"epsilon {rounded_up_to(enough, 2)}", *_remedies(level, run, draw, step)]
    others = "" if len(found) > 1 else f"; no larger {draw} and no more {step}s would do it alone"
    return (
        f"over the whole run the noise is {whole:.2g} times as long as all {moves} together can "
        "be, so little can be learnt; it would be as long with "
        f"{', or with '.join(found)}{others}; more {units}, or fewer trained weights "
        "(`fine_tuning`), help as well"
    )


def _remedies(level: PricedLevel, run: _RunNoise, draw: str, step: str) -> Iterator[str]:
    """The least batch or cohort, and the fewest steps or rounds, that shorten the noise enough at
    the same epsilon."""
    mechanism = level.mechanism
    batches = (mechanism.sampling.resized(2.0**k) for k in range(1, _DOUBLINGS + 1))
    larger = (replace(mechanism, sampling=each) for each in batches if each is not None)
    longer = (replace(mechanism, steps=mechanism.steps * 2**k) for k in range(1, _DOUBLINGS + 1))
    for other in larger:
        if _affordable(level, run, other):
            yield f"a {draw} of {other.sampling.expected:g}"
            break
    for other in longer:
        if _affordable(level, run, other):
            yield f"{other.steps} {step}s"
            break


def _affordable(level: PricedLevel, run: _RunNoise, other: Mechanism) -> bool:
    """Whether noise as long as the gradients costs no more than the plan."""
    price = run.short_enough(other).price(level.delta, level.accountant)
    return price.epsilon <= level.price.epsilon


def _too_large(level: PricedLevel) -> Iterator[str]:
    promised = level.price.epsilon
    if promised > LARGE_EPSILON:
        yield (
            f"epsilon {rounded_up_to(promised, 2)} promises next to nothing: the odds on a guess "
            f"about one unit may change by e^{promised:.0f}; use `epsilon: 8` or less"
        )

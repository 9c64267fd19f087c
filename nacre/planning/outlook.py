"""What a planned run would cost if it went on, or were set otherwise: one more epoch, and other
noise, batches and steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nacre.differential_privacy.accounting.price import epsilon
from nacre.differential_privacy.mechanism import Mechanism
from nacre.differential_privacy.noise.correlated import WholeRun
from nacre.differential_privacy.upward import rounded_up_to
from nacre.planning.levels import PricedLevel, Trial, by_unit, smallest_and_largest
from nacre.planning.plan import Plan
from nacre.planning.words import counted_noun


@dataclass(frozen=True, kw_only=True)
class PricedSetting:
    """A setting of an account's mechanism, and what it costs."""

    changed: str  # "" for the plan itself
    noise: float  # in sensitivities
    batch: float  # units a step, expected
    steps: int
    epsilon: float

    def written(self) -> tuple[str, ...]:
        """Noise, batch, steps and epsilon as the table has them."""
        batch, noise = f"{self.batch:g}", f"{self.noise:.4g}"
        return noise, batch, str(self.steps), rounded_up_to(self.epsilon, 3)


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """Prices beside that of the plan, by its own accountant, at its own delta."""

    account: str
    """Of parties that differ in size, that of the smallest."""
    epoch: int | None  # steps until each unit is expected to have entered once; None for a search
    one_more_epoch: float | None  # epsilon after it; None where the noise is built for these steps
    choices: tuple[PricedSetting, ...]
    largest: Outlook | None = None
    """The same of the largest party; None where all are of one size."""
    within: Outlook | None = None
    """The same of the promise within parties; None where the recipe makes one promise."""

    def to_json(self) -> dict[str, Any]:
        """Plain facts, all of them public."""
        facts = asdict(replace(self, within=None))
        del facts["within"]
        if facts["largest"] is not None:
            del facts["largest"]["largest"], facts["largest"]["within"]
        return facts if self.within is None else facts | {"within": self.within.to_json()}

    def table(self) -> RenderableType:
        """The trade-off as a table, under a sentence on the next epoch; of parties that differ
        with a figure of the smallest and one of the largest. One of each promise."""
        own = self._table()
        return own if self.within is None else Group(own, self.within.table())

    def _table(self) -> RenderableType:
        whose, note = self.account, None
        if self.largest is not None:
            whose = f"{self.account} and {self.largest.account}"
            note = "where two figures stand: of the smallest party, and of the largest"
        table = Table(title=f"what else {whose} could pay for", title_justify="left")
        table.caption, table.caption_justify = note, "left"
        table.add_column("changed")
        for name in ("noise", "batch", "steps", "epsilon"):
            table.add_column(name, justify="right")
        large = {} if self.largest is None else {c.changed: c for c in self.largest.choices}
        small = {choice.changed: choice for choice in self.choices}
        for changed in dict.fromkeys([*small, *large]):
            both = [of[changed] for of in (small, large) if changed in of]
            written = [choice.written() for choice in both]
            if len(large) > 0 and len(both) == 1:  # the other party cannot have it
                other = ("none",) * len(written[0])
                written = [written[0], other] if changed in small else [other, written[0]]
            row = (", ".join(dict.fromkeys(figures)) for figures in zip(*written, strict=True))
            table.add_row(changed or "as planned", *row)
        return table if self.epoch is None else Group(Text(self._next()), table)

    def _next(self) -> str:
        if self.one_more_epoch is None:
            return "one more epoch cannot be priced: the noise is built for these steps"
        if self.largest is None:
            return f"one more epoch {self._raised()}"
        return (
            f"one more epoch of {self.account}, the smallest party, {self._raised()}; one of "
            f"{self.largest.account}, the largest, {self.largest._raised()}"
        )

    def _raised(self) -> str:
        before, after = (
            rounded_up_to(each, 3) for each in (self.choices[0].epsilon, self.one_more_epoch or 0.0)
        )
        steps = counted_noun(self.epoch or 0, "step")
        return f"({steps}) would bring epsilon from {before} to {after}"


def outlook(plan: Plan) -> Outlook | None:
    """What the account of a private plan could pay for, or those of the smallest and the largest
    party; None where nothing is private."""
    if not plan.priced:
        return None
    first, *others = [_of_levels(levels) for levels in by_unit(plan.priced)]
    return replace(first, within=others[0]) if others else first


def _of_levels(levels: Sequence[PricedLevel]) -> Outlook:
    found = [_of_level(level) for level in smallest_and_largest(levels)]
    return found[0] if len(found) == 1 else replace(found[0], largest=found[1])


def _of_level(level: PricedLevel) -> Outlook:
    if isinstance(level.basis, Trial):
        return _of_search(level, level.basis)
    mechanism = level.mechanism
    epoch = math.ceil(level.size / mechanism.sampling.expected)
    more: float | None = None
    if not isinstance(mechanism.noise, WholeRun):
        later = replace(mechanism, steps=mechanism.steps + epoch)
        more = later.price(level.delta, level.accountant).epsilon
    return Outlook(
        account=level.account, epoch=epoch, one_more_epoch=more, choices=tuple(_choices(level))
    )


def _of_search(level: PricedLevel, trial: Trial) -> Outlook:
    """Searches of the same trials with other numbers of them."""
    law, mechanism, found = trial.search.trials, level.mechanism, list[PricedSetting]()
    others = {
        "": law,
        "half the trials": replace(law, mean=max(law.mean / 2, 1.01)),
        "twice the trials": replace(law, mean=law.mean * 2),
        "shape: 0 (spreads more)": replace(law, shape=0.0),
        "shape: 5 (spreads less)": replace(law, shape=5.0),
    }
    for changed, other in others.items():
        if changed and other == law:
            continue
        event = replace(trial.search, trials=other).event(trial.mechanisms)
        found.append(
            PricedSetting(
                changed=changed,
                noise=level.multiplier,
                batch=mechanism.sampling.expected,
                steps=mechanism.steps,
                epsilon=epsilon(event, level.delta, "rdp", mechanism.adjacency).epsilon,
            )
        )
    return Outlook(account=level.account, epoch=None, one_more_epoch=None, choices=tuple(found))


def _choices(level: PricedLevel) -> Iterator[PricedSetting]:
    for changed, other in _settings(level.mechanism):
        yield PricedSetting(
            changed=changed,
            noise=other.multiplier,
            batch=other.sampling.expected,
            steps=other.steps,
            epsilon=other.price(level.delta, level.accountant).epsilon,
        )


def _settings(mechanism: Mechanism) -> Iterator[tuple[str, Mechanism]]:
    """The mechanism itself, then with one thing halved, doubled, or a quarter off."""
    yield "", mechanism
    noise, sampling = mechanism.noise, mechanism.sampling
    for name, factor in (("a fifth less noise", 0.8), ("a quarter more noise", 1.25)):
        yield name, mechanism.with_multiplier(mechanism.multiplier * factor)
    for name, factor in (("half the batch", 0.5), ("twice the batch", 2.0)):
        other = sampling.resized(factor)
        if other is not None:
            yield name, replace(mechanism, sampling=other)
    if not isinstance(noise, WholeRun):
        if mechanism.steps > 1:
            yield "half the steps", replace(mechanism, steps=mechanism.steps // 2)
        yield "twice the steps", replace(mechanism, steps=mechanism.steps * 2)

"""What a planned run would cost if it went on, or were set otherwise: one more epoch, and other
noise, batches and steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nacre.differential_privacy.accounting.price import epsilon
from nacre.differential_privacy.mechanism import Mechanism
from nacre.differential_privacy.noise.correlated import WholeRun
from nacre.differential_privacy.upward import rounded_up_to
from nacre.planning.levels import PricedLevel, Trial
from nacre.planning.plan import Plan


@dataclass(frozen=True, kw_only=True)
class PricedSetting:
    """A setting of the first account's mechanism, and what it costs."""

    changed: str  # "" for the plan itself
    noise: float  # in sensitivities
    batch: float  # units a step, expected
    steps: int
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """Prices beside that of the plan, by its own accountant, at its own delta."""

    account: str
    epoch: int | None  # steps until each unit is expected to have entered once; None for a search
    one_more_epoch: float | None  # epsilon after it; None where the noise is built for these steps
    choices: tuple[PricedSetting, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain facts, all of them public."""
        return asdict(self)

    def table(self) -> RenderableType:
        """The trade-off as a table, under a sentence on the next epoch."""
        table = Table(title=f"what else {self.account} could pay for", title_justify="left")
        table.add_column("changed")
        for name in ("noise", "batch", "steps", "epsilon"):
            table.add_column(name, justify="right")
        for choice in self.choices:
            batch, name = f"{choice.batch:g}", choice.changed or "as planned"
            row = (
                f"{choice.noise:.4g}",
                batch,
                str(choice.steps),
                rounded_up_to(choice.epsilon, 3),
            )
            table.add_row(name, *row)
        return table if self.epoch is None else Group(Text(self._next()), table)

    def _next(self) -> str:
        now = self.choices[0].epsilon
        if self.one_more_epoch is None:
            return "one more epoch cannot be priced: the noise is built for these steps"
        before, after = (rounded_up_to(each, 3) for each in (now, self.one_more_epoch))
        return f"one more epoch ({self.epoch} steps) would bring epsilon from {before} to {after}"


def outlook(plan: Plan) -> Outlook | None:
    """What the first account of a private plan could pay for; None where nothing is private."""
    if not plan.priced:
        return None
    level = plan.priced[0]
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

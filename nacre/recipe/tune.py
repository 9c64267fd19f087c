"""The search of a recipe: which settings are tried, how often, and how the best is chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

from nacre.core.errors import BadArgument
from nacre.differential_privacy.selection.search import Search
from nacre.differential_privacy.selection.trials import Trials
from nacre.figures.names import FigureName

Settings = dict[str, Any]
"""Key path of the recipe -> one of its values."""

MOST = 200
"""Alternatives in all: each is checked and priced before anything is charged."""

SECTIONS = (
    "adversarial_training",
    "federated_learning.local",
    "federated_learning.optimizer",
    "fine_tuning",
    "gradient_clipping",
    "model",
    "training",
)
"""What may differ between trials; data, protection, ledger and audits are those of the recipe."""


@dataclass(frozen=True, kw_only=True)
class PublicScore:
    """By a figure on the rows that are declared public; it costs nothing."""

    kind: Literal["public"] = "public"
    figure: FigureName | None = None
    """A figure of the task; whether higher or lower is better comes with the figure. None:
    accuracy, and loss where answers are numbers or tokens."""


@dataclass(frozen=True, kw_only=True)
class PrivateScore:
    """By how many of the private units the trial's model answers rightly, counted with noise that
    each trial pays for. A unit of several rows counts where it has at least half of them right.
    For classes, and not for federations."""

    kind: Literal["private"] = "private"
    figure: FigureName = "accuracy"
    """`accuracy` alone: one unit moves the count of right answers by 1 at most."""
    deviation: float = 10.0
    """Of the noise on the count, in units. More is cheaper, and tells close trials apart less
    well."""

    def __post_init__(self) -> None:
        if self.figure != "accuracy":
            raise BadArgument(
                f"figure={self.figure} cannot choose on private units: how far one of them moves "
                "it depends on all the others, so no noise on it has a price; use `figure: "
                "accuracy`, or `kind: public`"
            )
        if not 0.1 <= self.deviation <= 1e9:
            raise BadArgument(f"deviation={self.deviation} must lie between 0.1 and 1e9")


@dataclass(frozen=True, kw_only=True)
class Tune:
    """A private search (`nacre tune`): a random number of trials, each with values drawn from those
    listed, of which the best alone is kept. `differential_privacy.epsilon` is that of the whole
    search. Papernot and Steinke 2022."""

    over: dict[str, tuple[Any, ...]]
    """Key paths, as `training.optimizer.lr`, each with the values to draw from."""
    trials: float = 10.0
    """The average number of trials; the number itself is drawn at random and kept secret."""
    shape: float = 1.0
    """The law of that number: 1 is geometric, 0 logarithmic, which costs less and spreads more;
    larger shapes cost more and spread less."""
    score: PublicScore | PrivateScore = field(default_factory=PublicScore)
    """The score by which the best trial is chosen."""

    def __post_init__(self) -> None:
        if not self.over:
            raise BadArgument("over={} names nothing to try; name a key and its values")
        for key, values in self.over.items():
            if not values:
                raise BadArgument(f"over.{key}=[] lists no value to try; list at least one")
            if not any(key == part or key.startswith(f"{part}.") for part in SECTIONS):
                raise BadArgument(
                    f"over.{key} may not differ between trials; use keys under "
                    + ", ".join(SECTIONS)
                )
            inner = [other for other in self.over if other.startswith(f"{key}.")]
            if inner:
                raise BadArgument(f"over.{key} holds over.{inner[0]} as well; remove one of them")
        if self.alternatives > MOST:
            raise BadArgument(
                f"over has {self.alternatives} alternatives, at most {MOST} are checked; list fewer"
            )
        try:
            _ = self.law
        except ValueError as error:
            wrong = str(error).replace("mean=", "trials=")
            raise BadArgument(wrong.replace("or inf for Poisson's law", "and finite")) from None
        if self.shape > 1000:
            raise BadArgument(f"shape={self.shape} must be at most 1000")

    @property
    def law(self) -> Trials:
        """Of the number of trials."""
        return Trials(mean=self.trials, shape=self.shape)

    @property
    def search(self) -> Search:
        """As a mechanism."""
        deviation = self.score.deviation if isinstance(self.score, PrivateScore) else None
        return Search(trials=self.law, count_deviation=deviation)

    @property
    def alternatives(self) -> int:
        """How many settings there are to draw from."""
        return math.prod(len(values) for values in self.over.values())

    def settings(self) -> Iterator[Settings]:
        """All alternatives, each value of a key with each of the others'."""
        for values in product(*self.over.values()):
            yield dict(zip(self.over, values, strict=True))

# pyright: reportMissingTypeStubs=false
"""Private selection: try many times, keep the best, and pay for about two tries.

A search draws its number of trials K at random, makes K independent trials of one private
mechanism, and hands on the trial of the highest score alone. Whoever sees only that trial cannot
tell how many others lost against it, so the price hardly grows with their number; with a fixed K it
would be that of all of them.

*Guarantee:* `curve` bounds the Rényi divergence of what the search hands on, at each order, if

- each trial is the same mechanism with randomness of its own; alternatives among which each trial
  draws by itself belong to the mechanism, and `event` prices the worst of them;
- the score is a function of the trial's own output and of public rows. A score from private rows
  must be part of the output, and paid for within the trial;
- nothing else leaves: not K, not how long the search took, no loser, no score but the winner's;
- a search that is interrupted goes on with the same K and the same trials.

*Limit:* K is drawn by one 53-bit uniform and sums of doubles, which moves the law of K by less than
1e-12 in total variation; no price states that.

*Source:* Papernot & Steinke 2022, "Hyperparameter tuning with Rényi differential privacy" (ICLR):
theorem 2 (truncated negative binomial), theorem 6 (Poisson), lemma 7 (both).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nacre.core import require
from nacre.core.errors import BadArgument
from nacre.core.random import Source

if TYPE_CHECKING:  # dp-accounting takes a second to import: only those who price pay for it
    from dp_accounting import DpEvent

_SMALLEST = math.log(1e-300)
"""The smallest log of gamma; below it the number of trials has no usable law in doubles."""


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The law of the number of trials of a search.

    With a finite `shape` it is the negative binomial law truncated to K >= 1 (its `shape` is η in
    the paper): 1 is the geometric law, 0 the logarithmic one; smaller shapes cost less and spread
    more. With `shape=inf` it is Poisson's, by far the most concentrated; K = 0 is then possible,
    and such a search hands on nothing.

    Raises `ValueError` for a mean or shape that no law has.
    """

    mean: float
    """How many trials there are on average; above 1, but for Poisson's law above 0."""

    shape: float = 1.0
    """Above -1, or `inf` for Poisson's law."""

    def __post_init__(self) -> None:
        if not self.shape > -1:
            raise BadArgument(f"shape={self.shape} must be > -1, or inf for Poisson's law")
        least = 0 if self.poisson else 1
        if not least < self.mean < math.inf:
            raise BadArgument(f"mean={self.mean} must be > {least} and finite")
        if not self.poisson and _mean(_SMALLEST, self.shape) < self.mean:
            raise BadArgument(
                f"mean={self.mean} is out of reach for shape={self.shape}; use a larger shape"
            )

    @property
    def poisson(self) -> bool:
        """Whether the law is Poisson's."""
        return self.shape == math.inf

    @property
    def log_gamma(self) -> float:
        """The log of the paper's γ: below 0, and the lower the more trials. Not for Poisson's."""
        if self.poisson:
            raise ValueError("shape=inf: Poisson's law has no gamma")
        low, high = _SMALLEST, 0.0  # the mean falls as gamma grows
        while (middle := (low + high) / 2) not in (low, high):
            low, high = (middle, high) if _mean(middle, self.shape) > self.mean else (low, middle)
        return low

    def chances(self) -> Iterator[float]:
        """The chances of K = 0, 1, 2, … trials, without end.

        Source: Papernot & Steinke 2022, definition 1; the ratio of two chances in a row is
        (1 - γ) (k + η) / (k + 1).
        """
        if self.poisson:
            chance, k = math.exp(-self.mean), 0
            while True:
                yield chance
                k += 1
                chance *= self.mean / k
        log_gamma = self.log_gamma
        rest = -math.expm1(log_gamma)  # 1 - gamma
        yield 0.0
        whole = math.expm1(-self.shape * log_gamma) / self.shape if self.shape else -log_gamma
        chance, k = rest / whole, 1
        while True:
            yield chance
            chance *= rest * (k + self.shape) / (k + 1)
            k += 1

    def draw(self, source: Source) -> int:
        """The number of trials; the same source gives the same number, as a resumed search needs.

        It is secret: the price holds for those who do not learn it.
        """
        return self.at_most(float(source.child("number of trials").stream().uniform(1)[0]))

    def at_most(self, chance: float) -> int:
        """The smallest number that K exceeds with a chance of at most 1 - `chance`: how long a
        search may take.

        Raises `ValueError` for a chance that does not lie between 0 and 1.
        """
        require.between(0, 1, chance=chance)
        below, k = 0.0, -1
        for k, each in enumerate(self.chances()):
            before, below = below, below + each
            # Far out the sum of doubles stands still, and may do so below a chance near 1.
            if below >= chance or (k > self.mean and below == before):
                break
        return k

    def event(self, trial: DpEvent) -> DpEvent:
        """The search as an event: the best of so many runs of `trial`."""
        import dp_accounting

        return dp_accounting.dp_event.RepeatAndSelectDpEvent(trial, self.mean, self.shape)

    def curve(
        self,
        orders: Sequence[float] | np.ndarray,  # (N,) those asked for, > 1
        trial: Sequence[float] | np.ndarray,  # (N,) the divergence of one trial at them
        known: Sequence[float] | np.ndarray,  # (M,) orders at which a trial is known, > 1
        at_known: Sequence[float] | np.ndarray,  # (M,) its divergence there
    ) -> np.ndarray:
        """The divergence of the whole search at each of `orders`; (N,) float64.

        Every order in `known` gives valid bounds, and the smallest is taken: more of them never
        make it worse. A divergence grows with its order, so a bound at a larger one serves too.
        """
        asked, one = np.asarray(orders, dtype=float), np.asarray(trial, dtype=float)
        places, values = np.asarray(known, dtype=float), np.asarray(at_known, dtype=float)
        if (asked <= 1).any() or (places <= 1).any():
            raise ValueError("orders must all be > 1")
        bound = self._poisson_curve if self.poisson else self._binomial_curve
        there = bound(places, values, places, values)
        larger = np.where(places[None, :] >= asked[:, None], there[None, :], math.inf)
        return np.minimum(bound(asked, one, places, values), larger.min(axis=1))

    def _binomial_curve(
        self, asked: np.ndarray, one: np.ndarray, places: np.ndarray, values: np.ndarray
    ) -> np.ndarray:
        """Theorem 2: ε' = ε + (1+η) ((1 - 1/λ̂) ε̂ + log(1/γ) / λ̂) + log(E K) / (λ - 1)."""
        price = (1 - 1 / places) * values - self.log_gamma / places
        return one + (1 + self.shape) * float(price.min()) + math.log(self.mean) / (asked - 1)

    def _poisson_curve(
        self, asked: np.ndarray, one: np.ndarray, places: np.ndarray, values: np.ndarray
    ) -> np.ndarray:
        """Theorem 6, with the case K = 0 as the outcome of its own that it is.

        Lemma 7 bounds the outcomes with K >= 1 by μ exp((λ-1) (ε + μ δ̂)), where a trial is
        (log(λ / (λ - 1)), δ̂)-private; K = 0 adds its chance, e**-μ, to the moment. Without that
        term a small μ would seem to cost less than nothing.
        """
        hat = -np.log1p(-1 / asked)[:, None]  # (N, 1) log of λ / (λ - 1)
        # Proposition 12 of Canonne, Kamath & Steinke 2020, solved for delta; capped by 1.
        exponent = (places - 1) * (values - hat + np.log1p(-1 / places)) - np.log(places)
        delta = np.exp(np.minimum(exponent.min(axis=1), 0.0))
        some = math.log(self.mean) + (asked - 1) * (one + self.mean * delta)
        return np.logaddexp(-self.mean, some) / (asked - 1)


def _mean(log_gamma: float, shape: float) -> float:
    """E K of the truncated law: η (1-γ) / (γ (1 - γ**η)), or (1/γ - 1) / log(1/γ) for η = 0."""
    odds = -math.expm1(log_gamma) * math.exp(-log_gamma)  # (1 - gamma) / gamma
    if shape == 0:
        return odds / -log_gamma
    return odds * shape / -math.expm1(shape * log_gamma)


def best(scores: Sequence[float]) -> int:
    """The place of the highest score, the first of equal ones. Raises `ValueError` without a trial.

    Trials are independent and alike, so the first of equals is one of them at random, whatever
    they are. A score that is no number loses against every number.
    """
    if not scores:
        raise ValueError("there is no trial, so none is the best")
    ranked = [-math.inf if math.isnan(score) else score for score in scores]
    return max(range(len(ranked)), key=ranked.__getitem__)

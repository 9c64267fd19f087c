"""An accuracy from noised votes, with an interval for the noise and for the rows at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypedDict

from nacre.figures.intervals import MeasuredFigure

_DEVIATIONS = 1.959964  # of the normal law on either side of 95 %
_NOISE = 4.0  # deviations of the noise that the count of votes must exceed


class EvaluationDraws(TypedDict):
    """Draws of held-out units that follow the steps, of the same sampling and noise."""

    draws: int
    bound: float
    """L2 norm by which one unit moves the sum of a draw at most: one vote."""


class ProtectedFigure(TypedDict):
    """What was released of held-out rows, as part of the run's epsilon."""

    unit: str
    """Whose votes they are: each unit has one a draw, shared by its rows."""
    classes: list[str]
    draws: int
    rate: float
    """With which each unit entered a draw."""
    deviation: float
    """Of the noise on each entry in each draw."""
    votes: list[list[float]]
    """Noised, summed over the draws: units of class i that were answered by class j."""
    accuracy: MeasuredFigure
    """The share of votes that are right, so of units and not of rows; the interval counts the noise
    and the rows."""
    majority: float | None
    """The share of votes for the most frequent class, which one answer to all would reach; computed
    from the noised votes, and null where the accuracy is."""
    covered: str
    """Why it may be shown."""


def protected_accuracy(
    votes: Sequence[Sequence[float]],  # (K, K) sums over the draws, noised
    *,
    draws: int,
    rate: float,  # with which a unit entered a draw
    deviation: float,  # of the noise on each entry in each draw
) -> MeasuredFigure:
    """The share of votes on the diagonal, and its interval at 95 %. All of it is computed from what
    was released.

    A unit that is in c draws votes c times, with c binomial: of H units with votes of variance v
    about their mean p, the share of M = H draws rate votes has variance
    v (1 - rate + draws rate) / M, and v is at most p (1 - p). The noise adds
    draws deviation² (K (1 - p)² + (K² - K) p²) / M², since K entries count as right and the others
    as wrong. The ends are the shares that lie 1.96 such deviations off, at *their* variance, as
    Wilson's do: so a share of 1 has an interval too. With rate 1 and no noise it is Wilson's.

    *Limit:* M is itself estimated, and the normal law stands in for the binomial: with few votes
    the interval covers a little less than it says. Undefined where the votes do not stand out of
    the noise.

    *Source:* Wilson 1927, "Probable inference, the law of succession, and statistical inference";
    Horvitz & Thompson 1952 for draws of unequal numbers; the variance is that of a ratio, by
    linearisation (Cochran 1977, "Sampling Techniques", section 6.4).

    >>> found = protected_accuracy([[40, 10], [5, 45]], draws=1, rate=1.0, deviation=0.0)
    >>> found["value"], round(found["low"], 4), round(found["high"], 4)
    (0.85, 0.7672, 0.9069)
    """
    classes = len(votes)
    whole = math.fsum(map(math.fsum, votes))
    right = math.fsum(row[i] for i, row in enumerate(votes))
    noise = deviation * math.sqrt(draws)
    if whole <= max(_NOISE * noise * classes, 0.0):
        why = "the votes do not stand out of the noise: there are too few, or epsilon is too small"
        return {"value": None, "low": None, "high": None, "why": why}
    share = min(max(right / whole, 0.0), 1.0)

    def off(p: float) -> float:
        """Above 0 where p lies further from the share than 1.96 of its deviations."""
        rows = p * (1 - p) * (1 - rate + draws * rate) / whole
        entries = classes * (1 - p) ** 2 + classes * (classes - 1) * p**2
        return (share - p) ** 2 - _DEVIATIONS**2 * (rows + (noise / whole) ** 2 * entries)

    return {
        "value": share,
        "low": _end(off, 0.0, share),
        "high": _end(off, 1.0, share),
        "why": None,
    }


def majority_share(votes: Sequence[Sequence[float]]) -> float:
    """The share of the most frequent true class among the votes, which must not sum to 0.

    >>> majority_share([[40, 10], [5, 45]])
    0.5
    """
    of_classes = list(map(math.fsum, votes))
    return min(max(max(of_classes) / math.fsum(of_classes), 0.0), 1.0)


def counted_words(found: ProtectedFigure) -> str:
    """What the accuracy counts, and what it has to be held against; a part of a sentence."""
    rows = found["unit"] == "example"
    counts = (
        "counts rows, one vote each"
        if rows
        else ("counts units and not rows: each has one vote, shared by its rows")
    )
    if found["majority"] is None:
        return counts
    return f"{counts}; the most frequent class has {found['majority']:.1%} of the votes"


def expected_accuracy(
    votes: float, classes: int, *, draws: int, rate: float, deviation: float, share: float
) -> MeasuredFigure:
    """`protected_accuracy` of as many votes over all draws, spread evenly over the classes, of
    which this share is right, with the noise where it is expected: at 0."""
    each, wrong = votes / classes, (1 - share) / (classes - 1)
    matrix = [[each * (share if i == j else wrong) for j in range(classes)] for i in range(classes)]
    return protected_accuracy(matrix, draws=draws, rate=rate, deviation=deviation)


def _end(off: Callable[[float], float], outer: float, inner: float) -> float:
    """Where `off` changes its sign, by bisection; `outer` where it does not."""
    if off(outer) <= 0:
        return outer
    for _ in range(60):
        middle = (outer + inner) / 2
        outer, inner = (middle, inner) if off(middle) > 0 else (outer, middle)
    return outer

"""How far chance alone may have moved a figure: closed forms for shares, else resamples."""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np

from nacre.core.random import Source
from nacre.figures.answers import AnyAnswers, ClassAnswers
from nacre.figures.names import FigureName
from nacre.figures.resampled import drawn_counts, resampled
from nacre.figures.undefined import why_undefined
from nacre.figures.values import value

CONFIDENCE = 0.95
_DEVIATIONS = 1.959964  # of the normal law on either side of 95 %
RESAMPLES = 1000
_AT_ONCE = 1 << 21  # counts held in memory: bounds it by 16 MiB
_MOST = 1 << 24  # counts in all: of many rows fewer resamples are drawn, 200 at least
_LEAST = 200


class IntervalFacts(TypedDict):
    """A figure and how far chance alone may have moved it."""

    value: float
    low: float
    high: float


class MeasuredFigure(TypedDict):
    """A figure with the interval of chance; what is null has its reason in `why`."""

    value: float | None
    low: float | None
    high: float | None
    why: str | None


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """An interval for a share, at 95 %.

    *Source:* Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    >>> [round(end, 4) for end in wilson(0, 10)]
    [0.0, 0.2775]
    """
    z, share = _DEVIATIONS, successes / trials
    middle = share + z * z / (2 * trials)
    reach = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    low, high = (middle - reach) / (1 + z * z / trials), (middle + reach) / (1 + z * z / trials)
    return (0.0 if not successes else low, 1.0 if successes == trials else high)


def share_of(successes: int, trials: int, nothing: str) -> MeasuredFigure:
    """A share of rows with Wilson's interval; undefined for the reason `nothing` without trials."""
    if not trials:
        return {"value": None, "low": None, "high": None, "why": nothing}
    low, high = wilson(successes, trials)
    return {"value": successes / trials, "low": low, "high": high, "why": None}


def measured_figure(name: FigureName, answers: AnyAnswers, source: Source) -> MeasuredFigure:
    """A figure with its interval at 95 %: Wilson's for accuracy, else the 2.5 and 97.5 % quantiles
    of resamples in which each class has the number of rows that it has (Efron & Tibshirani 1993,
    "An Introduction to the Bootstrap", section 13.3). The same source gives the same interval.

    The class sizes stand still, so the interval is that of rows drawn class by class. The interval
    is widened to the value where the resamples lie on one side of it (those of the calibration
    error do: resampling adds noise to each bin). Where every resample says the same, as for ranks
    without a mistake, or a class has one row, these rows tell no interval.
    """
    why = why_undefined(name, answers)
    found = value(name, answers)
    if found is None:
        return {"value": None, "low": None, "high": None, "why": why}
    if name == "accuracy" and isinstance(answers, ClassAnswers):
        right = int((answers.guessed == answers.label).sum())
        return share_of(right, len(answers), "there are no rows")
    why, ends = _ends(name, answers, source)
    if ends is None:
        return {"value": found, "low": None, "high": None, "why": why}
    return {"value": found, "low": min(ends[0], found), "high": max(ends[1], found), "why": None}


def _ends(
    name: FigureName, answers: AnyAnswers, source: Source
) -> tuple[str, tuple[float, float] | None]:
    """(why there is no interval, the interval)."""
    rows = len(answers)
    strata = answers.label if isinstance(answers, ClassAnswers) else np.zeros(rows, dtype=np.int64)
    if np.unique(strata, return_counts=True)[1].min() < 2:
        return "one row, or a class of one row, tells no interval", None
    wanted = max(_LEAST, min(RESAMPLES, _MOST // rows))
    stream, parts = source.child(name).stream(), list[np.ndarray]()
    while wanted:
        some = min(wanted, max(1, _AT_ONCE // rows))
        parts.append(resampled(name, answers, drawn_counts(strata, some, stream)))
        wanted -= some
    values = np.sort(np.concatenate(parts))
    low, high = (float(values[int(q * (len(values) - 1))]) for q in (0.025, 0.975))
    if not math.isfinite(low):
        return "the rows are too few for an interval", None
    if low == high:
        return "every resample of these rows says the same", None
    return "", (low, high)

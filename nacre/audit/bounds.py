"""From counts to intervals, and to lower bounds on epsilon, each valid at its stated confidence.

Every function takes counts of guesses made by a rule that was fixed beforehand, on rows that had
no part in fixing it. A rule chosen on the same rows as it is measured on needs a correction that
nothing here applies: the best of a grid claims a false 95 % bound in a quarter of audits or more.
"""

# scipy's distributions are typed in part.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from nacre.core import require

JUDGED = 0.95
"""The confidence at which a claim is called broken, whatever lower one an interval is asked for."""

_LARGEST = 64.0  # no finite sample proves an epsilon near it: e**64 is 6e27 to one


class Interval(NamedTuple):
    """Both ends belong to it."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What one attack guessed: how many members and how many outsiders it called members."""

    true_positives: int
    members: int
    false_positives: int
    outsiders: int

    def __post_init__(self) -> None:
        _check(self.true_positives, self.members)
        _check(self.false_positives, self.outsiders)

    @property
    def tpr(self) -> float:
        """The share of members that were called members."""
        return self.true_positives / max(self.members, 1)

    @property
    def fpr(self) -> float:
        """The share of outsiders that were called members."""
        return self.false_positives / max(self.outsiders, 1)

    @property
    def advantage(self) -> float:
        """tpr - fpr, from -1 to 1 (Yeom et al. 2018, definition 4)."""
        return self.tpr - self.fpr


def _check(successes: int, trials: int) -> None:
    if not 0 <= successes <= trials:
        raise ValueError(f"successes={successes} must lie between 0 and trials={trials}")


def clopper_pearson(successes: int, trials: int, confidence: float) -> Interval:
    """An interval for a proportion that covers it with at least `confidence`, for any size.

    No trials at all say nothing: 0 to 1.

    *Source:* Clopper & Pearson 1934; each end alone holds at 1 - (1 - confidence) / 2.

    >>> low, high = clopper_pearson(0, 10, 0.95)
    >>> low, round(high, 4)
    (0.0, 0.3085)
    """
    _check(successes, trials)
    require.between(0, 1, confidence=confidence)
    tail = (1 - confidence) / 2
    failures = trials - successes
    low = float(stats.beta.ppf(tail, successes, failures + 1)) if successes else 0.0
    high = float(stats.beta.ppf(1 - tail, successes + 1, failures)) if failures else 1.0
    return Interval(low, high)


def at_any_time(successes: int, trials: int, confidence: float) -> Interval:
    """An interval for a proportion that covers it at *every* number of trials at once with at
    least `confidence`: one may look after each trial and stop where one likes.

    *Theorem:* with S successes in n independent trials of chance p, and B the beta function,

        M(n) = B(S + 1/2, n - S + 1/2) / (B(1/2, 1/2) p^S (1 - p)^(n - S))

    is the likelihood ratio of a mixture over Beta(1/2, 1/2) and the true chance, and so a
    nonnegative martingale with mean 1. By Ville's inequality the chance that it ever reaches
    1 / (1 - confidence) is at most 1 - confidence; the interval holds the p at which it has not.

    *Why a set of such p is an interval:* log M is convex in p, least at S / n. Its ends are found
    by bisection and left on the outer side. It is nearly twice as wide as `clopper_pearson` at
    0.95 and a thousand trials: the price of looking.

    *Source:* Ville 1939; Robbins 1970, "Statistical methods related to the law of the iterated
    logarithm", section 3; Howard et al. 2021, https://arxiv.org/abs/1810.08240, section 3.2.

    >>> at_any_time(0, 0, 0.95)
    Interval(low=0.0, high=1.0)
    """
    _check(successes, trials)
    require.between(0, 1, confidence=confidence)
    if not trials:
        return Interval(0.0, 1.0)
    failures = trials - successes
    mixture = special.betaln(successes + 0.5, failures + 0.5) - special.betaln(0.5, 0.5)
    most = float(mixture) + math.log1p(-confidence)

    def excluded(chance: float) -> bool:
        """Whether log M has reached log(1 / (1 - confidence))."""
        likely = special.xlogy(successes, chance) + special.xlog1py(failures, -chance)
        return float(likely) <= most

    best = successes / trials
    low = _edge(excluded, 0.0, best) if successes else 0.0
    high = _edge(excluded, 1.0, best) if failures else 1.0
    return Interval(low, high)


def _edge(excluded: Callable[[float], bool], outside: float, inside: float) -> float:
    """A point between the two that is excluded, next to one that is not."""
    while abs(outside - inside) > 1e-9:
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if excluded(middle) else (outside, middle)
    return outside


def advantage(counts: Counts, confidence: float) -> Interval:
    """An interval for tpr - fpr, two independent proportions; it covers with >= `confidence`.

    Each proportion gets a Clopper-Pearson interval at half the error (Bonferroni), so both hold
    at once with `confidence` and so does everything that follows from them.
    """
    each = 1 - (1 - confidence) / 2
    tpr = clopper_pearson(counts.true_positives, counts.members, each)
    fpr = clopper_pearson(counts.false_positives, counts.outsiders, each)
    return Interval(tpr.low - fpr.high, tpr.high - fpr.low)


def paired_difference(lost: int, gained: int, trials: int, confidence: float) -> Interval:
    """An interval for the difference of two shares measured on the same trials: `lost` of them
    counted before and not after, `gained` after and not before; it covers with >= `confidence`.

    The difference is the share lost minus the share gained, each of which gets a Clopper-Pearson
    interval at half the error (Bonferroni). Trials that agree say nothing for or against, which is
    what makes it narrower than two shares measured apart.

    >>> [round(end, 3) for end in paired_difference(30, 5, 100, 0.95)]
    [0.079, 0.4]
    """
    _check(lost + gained, trials)
    each = 1 - (1 - confidence) / 2
    out, back = (clopper_pearson(count, trials, each) for count in (lost, gained))
    return Interval(out.low - back.high, out.high - back.low)


def epsilon_from_rates(counts: Counts, delta: float, confidence: float) -> float:
    """A lower bound on epsilon from independent guesses: one row, or one run, each.

    An (epsilon, delta)-private mechanism keeps every attack to TPR <= e^epsilon FPR + delta and
    1 - FPR <= e^epsilon (1 - TPR) + delta (Kairouz et al. 2015, theorem 2.1). Both follow from
    TPR being at least its lower end and FPR at most its upper end; each end holds with half the
    error, so together they hold with `confidence`, and taking the larger of the two costs nothing
    more (as Jagielski et al. 2020, section 4, for one of them).

    0 where nothing follows. Guesses about the rows of *one* run are not independent: see
    `epsilon_from_one_run`.
    """
    tpr = clopper_pearson(counts.true_positives, counts.members, confidence).low
    fpr = clopper_pearson(counts.false_positives, counts.outsiders, confidence).high
    ratios = _ratio(tpr - delta, fpr), _ratio(1 - fpr - delta, 1 - tpr)
    return max(0.0, *ratios)


def _ratio(numerator: float, denominator: float) -> float:
    """log(numerator / denominator), 0 where the inequality says nothing."""
    return math.log(numerator / denominator) if numerator > 0 else 0.0


def epsilon_from_one_run(counts: Counts, delta: float, confidence: float) -> float:
    """A lower bound on epsilon from guesses about many rows of one training run.

    However the rows' scores depend on each other through the model, the number of right guesses
    is dominated by coins that fall right with probability e^epsilon / (1 + e^epsilon), if each
    row took part by a fair coin of its own. The guesses "member" and the guesses "outsider" are
    two such counts, each tested at half the error. As many members as outsiders are required.

    *Limit:* where the numbers of members and outsiders are fixed, as by a test set, rows are not
    quite independent coins; for many rows the theorem then holds nearly. A test with randomised
    response at fixed numbers finds no more false bounds than the confidence allows.

    *Source:* Steinke, Nasr & Jagielski 2023, theorem 5.2.
    """
    if counts.members != counts.outsiders:
        raise ValueError(f"members={counts.members} and outsiders={counts.outsiders} must be equal")
    rows = counts.members + counts.outsiders
    called = counts.true_positives + counts.false_positives
    error = (1 - confidence) / 2
    return max(
        _smallest_epsilon(rows, called, counts.true_positives, delta, error),
        _smallest_epsilon(
            rows, rows - called, counts.outsiders - counts.false_positives, delta, error
        ),
    )


def epsilon_from_guesses(
    rows: int, guesses: int, right: int, delta: float, confidence: float
) -> float:
    """A lower bound on epsilon from guesses about rows that each took part by a fair coin.

    No guess is made about the other rows. The guesses may use everything that came out of the run,
    but their number is fixed beforehand.

    *Source:* Steinke, Nasr & Jagielski 2023, theorem 5.2.
    """
    return _smallest_epsilon(rows, guesses, right, delta, 1 - confidence)


def _smallest_epsilon(rows: int, guesses: int, right: int, delta: float, error: float) -> float:
    """The smallest epsilon that the right guesses leave possible, by bisection from below."""
    if one_run_p_value(rows, guesses, right, 0.0, delta) > error:
        return 0.0
    low, high = 0.0, _LARGEST
    while high - low > 1e-6:
        middle = (low + high) / 2
        if one_run_p_value(rows, guesses, right, middle, delta) > error:
            high = middle
        else:
            low = middle
    return low


def one_run_p_value(
    rows: int,
    guesses: int,  # of the rows; no guess is made about the others
    right: int,
    epsilon: float,
    delta: float,
) -> float:
    """How likely `right` or more right guesses are, at most, under (epsilon, delta).

    With W ~ Binomial(guesses, e^epsilon / (1 + e^epsilon)) it is P[W >= right] plus
    2 rows delta max_i P[right > W >= right - i] / i.

    *Source:* Steinke, Nasr & Jagielski 2023, theorem 5.2 and appendix D.
    """
    if not 0 <= right <= guesses <= rows:
        raise ValueError(f"right={right} <= guesses={guesses} <= rows={rows} must hold, from 0")
    chance = float(special.expit(epsilon))
    tail = float(special.bdtrc(right - 1, guesses, chance))
    below = _binomial(np.arange(right - 1, -1, -1), guesses, chance)
    spread = np.cumsum(below) / np.arange(1, right + 1)
    failure = 2 * rows * delta * float(spread.max(initial=0.0))
    return min(1.0, tail + failure)


def _binomial(
    successes: npt.NDArray[np.int64], trials: int, chance: float
) -> npt.NDArray[np.float64]:
    """P[W = successes]: `stats.binom.pmf` to 1e-11, eight times as fast in a bisection."""
    ways = special.gammaln(trials + 1) - special.gammaln(successes + 1)
    ways -= special.gammaln(trials - successes + 1)
    logs = special.xlogy(successes, chance) + special.xlog1py(trials - successes, -chance)
    return np.exp(ways + logs)

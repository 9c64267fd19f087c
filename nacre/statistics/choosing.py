# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
# pyright: reportUnknownLambdaType=false
"""Choosing in private: the best of declared candidates, and which values a column has.

Both by OpenDP's samplers, on integers, with noise from the operating system.

*Choosing* is permute-and-flip for a pure epsilon (McKenna & Sheldon 2020), and the exponential
mechanism where delta is above 0, whose rho is epsilon**2 / 8 (Cesar & Rogers 2021). Counts move in
one direction when a person comes or goes, so the noise is half of what scores in general need.

*Keys, why* (Korolova et al. 2009; Wilson et al. 2020). Each key that some row has gets a count with
discrete Laplace noise of scale k / epsilon, k the most rows of a person, and is shown where that
reaches a threshold. Neighbours whose rows have the same keys differ by k in L1: epsilon. The person
may bring keys of its own, at most k rows of them; that none of these is shown fails with chance
at most max(P(Z >= t - k), k P(Z >= t - 1)): P(Z >= x) = p**x / (1 + p) is convex in x, so the sum
over the person's keys is largest at an end, one key with k rows or k keys with one. Given that none
is shown, both neighbours' outputs are of the common keys.

The threshold is ours: OpenDP 0.16 states P(Z >= t) for k = 1, but shows a count that is equal to
t, which has chance P(Z >= t - 1), e**(1 / scale) times as much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nacre.differential_privacy.leaves import pure_event
from nacre.statistics.noisy_numbers import opendp, rho

if TYPE_CHECKING:  # dp-accounting takes a second to import: only those who price pay for it
    from dp_accounting import DpEvent


def choose(
    scores: Sequence[int],  # higher is better
    epsilon: float,
    delta: float = 0.0,
    *,
    sensitivity: int = 1,
    monotonic: bool = False,  # whether a person moves all scores in one direction, as counts
) -> int:
    """The place of a score that is probably the highest: charge `choice_event(epsilon, delta)`.

    `sensitivity` is how far one person moves one score: 1 for a number of right answers to people's
    rows, by which models may be compared. Raises `ValueError` for no scores, or numbers below 0.

    Source: see the module.
    """
    if not scores:
        raise ValueError("scores=() hold nothing to choose from")
    chosen = chooser(epsilon, delta, sensitivity=sensitivity, monotonic=monotonic)
    return chosen([int(score) for score in scores])


def chooser(
    epsilon: float, delta: float = 0.0, *, sensitivity: int = 1, monotonic: bool = False
) -> Callable[[list[int]], int]:
    """Scores -> a choice, with the least noise that OpenDP allows the budget; as `choose`, whose
    guarantee each call has for itself."""
    if sensitivity < 1:
        raise ValueError(f"sensitivity={sensitivity} must be at least 1")
    if not 0 < epsilon < math.inf or not 0 <= delta < 1:
        raise ValueError(f"epsilon={epsilon} must be > 0, and delta={delta} in [0, 1)")
    with opendp() as dp:
        space = (
            dp.vector_domain(dp.atom_domain(T="i64")),
            dp.linf_distance(T="i64", monotonic=monotonic),
        )
        measure = dp.zero_concentrated_divergence() if delta else dp.max_divergence()
        budget = rho(epsilon, delta) if delta else epsilon
        chosen = dp.binary_search_chain(
            lambda scale: dp.m.make_noisy_max(*space, measure, scale=scale), sensitivity, budget
        )
    return lambda scores: int(chosen(scores))


def choice_event(epsilon: float, delta: float = 0.0) -> DpEvent:
    """What one choice reveals at most about one person."""
    import dp_accounting

    return dp_accounting.ZCDpEvent(rho(epsilon, delta)) if delta else pure_event(epsilon)


def threshold(scale: float, delta: float, rows: int) -> int:
    """The least count that is shown, so that keys of one person, with so many rows at most, are
    shown with a chance of at most `delta` in all."""
    weight = -1 / scale  # log of p
    odds = math.log1p(math.exp(weight))

    def chance(at: int) -> float:  # its log
        return max(weight * (at - rows), math.log(rows) + weight * (at - 1)) - odds

    found = rows + 1
    while chance(found) > math.log(delta):
        found *= 2
    low = found // 2
    while found - low > 1:  # the chance falls as the threshold grows
        middle = (low + found) // 2
        low, found = (middle, found) if chance(middle) > math.log(delta) else (low, middle)
    return max(found, rows + 1)


def shown_keys(
    keys: list[str],  # of the rows that are kept
    epsilon: float,
    delta: float,
    rows: int,  # of one person, at most
) -> tuple[dict[str, int], float, int]:
    """(the keys that are shown with their noised counts, the noise's scale, the threshold)."""
    with opendp() as dp:
        start = dp.vector_domain(dp.atom_domain(T=str)), dp.symmetric_distance()
        counts = start >> dp.t.then_count_by(TV="i64")
        scale = rows / epsilon * (1 + 1e-9)  # so that no rounding goes beyond epsilon
        at = threshold(scale, delta, rows)
        measurement = counts >> dp.m.then_laplace_threshold(scale=scale, threshold=at)
        proven, _ = measurement.map(rows)
        if proven > epsilon:
            raise ValueError(f"epsilon={epsilon} cannot be kept: OpenDP proves {proven}")
        found = measurement(keys)
    # By name: the order of the rows would tell of them.
    return {key: int(found[key]) for key in sorted(found)}, scale, at

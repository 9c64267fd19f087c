# dp-accounting is untyped.
# pyright: reportMissingTypeStubs=false, reportUntypedBaseClass=false
"""Events that dp-accounting lacks. Imported inside functions only: it takes a second to import."""

from __future__ import annotations

from dataclasses import dataclass

from dp_accounting import DpEvent


@dataclass(frozen=True)
class ApproximateDpEvent(DpEvent):
    """Any mechanism that is (epsilon, delta)-private: a pure one of `epsilon`, but for an event of
    chance `delta` that may tell all (Kairouz, Oh & Viswanath 2015)."""

    epsilon: float
    delta: float


@dataclass(frozen=True)
class BinnedDpEvent(DpEvent):
    """Each unit is thrown into one of `bins` bins, uniformly, independently of all else and in
    secret; `event` is applied to the units of each bin, one bin after the other, and what is asked
    of a bin may follow from the answers before it. The next round has bins of its own."""

    bins: int
    event: DpEvent


@dataclass(frozen=True)
class EitherDpEvent(DpEvent):
    """One of `events` happens; which one is drawn without a look at the data.

    At each order its divergence is at most the largest of theirs: exp((order - 1) divergence) of
    the pair (which one, its output) is the mean of the parts'.
    """

    events: tuple[DpEvent, ...]

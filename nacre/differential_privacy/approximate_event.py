# dp-accounting is untyped.
# pyright: reportMissingTypeStubs=false, reportUntypedBaseClass=false
"""An event that may fail. Imported inside functions only: dp-accounting takes a second."""

from __future__ import annotations

from dataclasses import dataclass

from dp_accounting import DpEvent


@dataclass(frozen=True)
class ApproximateDpEvent(DpEvent):
    """Any mechanism that is (epsilon, delta)-private: a pure one of `epsilon`, but for an event of
    chance `delta` that may tell all (Kairouz, Oh & Viswanath 2015)."""

    epsilon: float
    delta: float

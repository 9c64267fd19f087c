# dp-accounting is untyped.
# pyright: reportMissingTypeStubs=false, reportUntypedBaseClass=false
"""The event of a round of bins. Imported inside functions only: dp-accounting takes a second."""

from __future__ import annotations

from dataclasses import dataclass

from dp_accounting import DpEvent


@dataclass(frozen=True)
class BinnedDpEvent(DpEvent):
    """Each unit is thrown into one of `bins` bins, uniformly, independently of all else and in
    secret; `event` is applied to the units of each bin, one bin after the other, and what is asked
    of a bin may follow from the answers before it. The next round has bins of its own."""

    bins: int
    event: DpEvent

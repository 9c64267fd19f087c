# dp-accounting is untyped.
# pyright: reportMissingTypeStubs=false, reportUntypedBaseClass=false
"""One of several mechanisms. Imported inside functions only: dp-accounting takes a second."""

from __future__ import annotations

from dataclasses import dataclass

from dp_accounting import DpEvent


@dataclass(frozen=True)
class EitherDpEvent(DpEvent):
    """One of `events` happens; which one is drawn without a look at the data.

    At each order its divergence is at most the largest of theirs: exp((order - 1) divergence) of
    the pair (which one, its output) is the mean of the parts'.
    """

    events: tuple[DpEvent, ...]

"""The documented shape of figures of any name that an audit adds to the comparison."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

MeasuredUnit = Literal["share", "signed", "number"]
"""How a figure is read: as a percentage, as a difference that may be negative, or as it stands."""


class MeasuredFacts(TypedDict):
    """One figure, as an area under the curve, or the accuracy of one group."""

    name: str
    """What it is called; neighbours of one name share it on the page."""
    value: float | None
    """Null where it was not measured, or is withheld; then `note` says why."""
    low: NotRequired[float | None]
    """Of its interval, at the confidence of the comparison."""
    high: NotRequired[float | None]
    of: NotRequired[str]
    """What it is of: a model, a group, or both."""
    rows: NotRequired[int | None]
    """How many rows it rests on."""
    unit: NotRequired[MeasuredUnit]
    """`number` where absent."""
    note: NotRequired[str]
    public: NotRequired[bool]
    """Whether every row involved was public; true where absent."""

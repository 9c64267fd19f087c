"""What an audit found: a claim, a measure with its interval, and a verdict from a closed list."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypedDict, get_args

from nacre.core.errors import BadArgument
from nacre.recipe.audits import FigureUnit

Verdict = Literal["holds", "broken", "not distinguishable from none", "measured", "not evidence"]

MEANING: dict[Verdict, str] = {
    "holds": "not contradicted: this attack found nothing that the claim rules out; attacks can "
    "break a claim, they cannot prove one",
    "broken": "contradicted: the claim cannot be true, at the stated confidence",
    "not distinguishable from none": "this attack, on these rows, did no better than chance could "
    "explain; a stronger attack might",
    "measured": "a figure with its interval; no claim is judged by it",
    "not evidence": "a figure that says nothing for the model: a probe shows that the attack does "
    "not see it as an attacker would; the reasons stand beside it",
}
"""How each verdict is to be read; a report prints these words beside it."""


class Rates(TypedDict):
    """A point of a membership attack's ROC curve."""

    fpr: float
    tpr: float


class AttackStageFacts(TypedDict):
    """One attack of a cascade: it was tried on the rows that those before it left standing."""

    name: str
    tried: int
    broke: int
    forwards: int
    """Rows put through the model."""
    backwards: int
    median_steps: float | None
    """Evaluations until a row broke; None where it broke none."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One audit's result. `low <= value <= high`, all finite, and `details` is plain JSON.

    >>> finding = Finding(audit="evasion", headline="Accuracy under attack", unit="share",
    ...                   claim="none", measure="attacked accuracy", value=0.5, low=0.4, high=0.6,
    ...                   confidence=0.95, verdict="measured", public=True)
    >>> Finding.from_json(finding.to_json()) == finding
    True
    """

    audit: str
    """Which audit: the option's kind."""
    headline: str
    """What the figure is called: the option's."""
    unit: FigureUnit
    """How the figure is read: the option's."""
    claim: str
    """What was put to the test, as a sentence."""
    measure: str
    """What `value` is, in words."""
    value: float
    low: float
    high: float
    confidence: float
    """Of the interval from `low` to `high`."""
    verdict: Verdict
    public: bool
    """Whether every row involved was public: only then may the finding leave `local/`."""
    details: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        numbers = (self.low, self.value, self.high)
        if not all(math.isfinite(number) for number in numbers):
            raise BadArgument(f"low, value and high must be finite, got {numbers}")
        if not self.low <= self.value <= self.high:
            raise BadArgument(f"value={self.value} must lie in its interval {self.low}…{self.high}")
        if not 0.5 < self.confidence < 1:
            raise BadArgument(f"confidence={self.confidence} must lie between 0.5 and 1")
        if self.unit not in get_args(FigureUnit):
            raise BadArgument(f"unit={self.unit!r} must be one of {get_args(FigureUnit)}")
        if self.verdict not in get_args(Verdict):
            raise BadArgument(f"verdict={self.verdict!r} must be one of {get_args(Verdict)}")
        # A finding that could not be written would be noticed only after the attacks had run.
        json.dumps(self.details, allow_nan=False)

    @property
    def meaning(self) -> str:
        """How the verdict is to be read, as a sentence."""
        return MEANING[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """The finding as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Finding:
        """What `to_json` gave; `ValueError` where a key is missing or unknown."""
        odd = set(value) ^ {entry.name for entry in fields(cls)}
        if odd:
            raise ValueError(f"not a finding: {sorted(odd)} missing or unknown")
        return cls(**value)

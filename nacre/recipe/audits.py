"""What a recipe can ask to be attacked. The audits themselves live in `nacre.audit`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nacre.adversarial_training.ball import Ball


@dataclass(frozen=True, kw_only=True)
class Evasion:
    """Attack the finished model's inputs: PGD with restarts on the test rows (Madry 2018)."""

    kind: Literal["evasion"] = "evasion"
    ball: Ball | None = None
    """How far an input may move; the ball of `adversarial_training` where absent."""
    steps: int = 40
    """Gradient steps of each start."""
    restarts: int = 5
    """Random starts; the worst one counts."""
    confidence: float = 0.95
    """Of the interval around each figure."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise ValueError(f"steps={self.steps} and restarts={self.restarts} must be at least 1")
        if not 0.5 < self.confidence < 1:
            raise ValueError(f"confidence={self.confidence} must lie between 0.5 and 1")


@dataclass(frozen=True, kw_only=True)
class Membership:
    """Guess who was in the training data: loss threshold (Yeom 2018), calibrated by a reference
    model that never saw them (Watson 2022)."""

    kind: Literal["membership"] = "membership"
    rows: int = 10_000
    """The most rows of each cohort; of a larger cohort this number is drawn at random."""
    confidence: float = 0.95
    """Of the interval around each figure."""

    def __post_init__(self) -> None:
        if self.rows < 4:
            raise ValueError(f"rows={self.rows} must be at least 4: two to fix a rule on, and two")
        if not 0.5 < self.confidence < 1:
            raise ValueError(f"confidence={self.confidence} must lie between 0.5 and 1")


@dataclass(frozen=True, kw_only=True)
class CanaryAudit:
    """Look for the random secrets of `data.canaries`: exposure (Carlini 2019), and the epsilon
    that it shows in one run (Steinke 2023)."""

    kind: Literal["canaries"] = "canaries"
    candidates: int = 511
    """Documents of the same form that each canary is ranked among."""
    confidence: float = 0.95
    """Of the interval, and of the bound on epsilon."""

    def __post_init__(self) -> None:
        if self.candidates < 15:
            raise ValueError(f"candidates={self.candidates} must be at least 15")
        if not 0.5 < self.confidence < 1:
            raise ValueError(f"confidence={self.confidence} must lie between 0.5 and 1")


AuditOption = Evasion | Membership | CanaryAudit
NOT_BUILT = (
    "reconstruction", "extraction", "stealing", "inversion", "ownership", "backdoor",
    "poisoning",
)  # fmt: skip
"""Audits that a recipe may name one day; until they are built they are refused as such."""

"""What a recipe says about differential privacy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nacre.core.types import Adjacency, Unit
from nacre.differential_privacy.noise import Gaussian


@dataclass(frozen=True, kw_only=True)
class GaussianNoise:
    """Independent normal noise on every coordinate of every step, calibrated to the budget."""

    kind: Literal["gaussian"] = "gaussian"

    def build(self) -> Gaussian:
        """The noise, without a multiplier until it is calibrated."""
        return Gaussian()


NoiseOption = GaussianNoise
"""Every noise a recipe can name."""


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """The promise: whatever one unit holds changes the law of the model by epsilon and delta only.

    *Guarantee:* (epsilon, delta)-differential privacy of everything released, for the unit and the
    adjacency below (Dwork & Roth 2014, definition 2.4).
    """

    kind: Literal["differential_privacy"] = "differential_privacy"
    unit: Unit = "example"
    """Who is protected: a row (example), all rows of one person (group), a whole party (client)."""
    epsilon: float
    """How much one unit may change the odds of anything: by a factor of e to the epsilon."""
    delta: float
    """The probability with which epsilon may fail; choose it well below 1 / number of units."""
    adjacency: Adjacency = "add_or_remove"
    """Which data sets count as neighbours: one unit more or less, exchanged, or zeroed."""
    noise: NoiseOption = field(default_factory=GaussianNoise)
    """What hides a unit."""
    accountant: Literal["auto", "pld", "rdp"] = "auto"
    """How epsilon is computed; auto follows the rule of the ledger's grant."""
    rows_per_unit: int | None = None
    """The most rows that one unit may have; rows beyond it are left out by a keyed draw."""

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < float("inf"):
            raise ValueError(f"epsilon={self.epsilon} must be > 0 and finite")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta={self.delta} must lie between 0 and 1")
        if self.rows_per_unit is not None and self.rows_per_unit < 1:
            raise ValueError(f"rows_per_unit={self.rows_per_unit} must be at least 1")
        if self.rows_per_unit is not None and self.unit != "group":
            raise ValueError(
                f"rows_per_unit={self.rows_per_unit} needs unit=group, got unit={self.unit}"
            )

"""What a plan takes from the ledger, and the charges of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from nacre.differential_privacy.mechanism import Mechanism
from nacre.ledger import Charge, Ledger
from nacre.recipe.schema import Recipe


@dataclass(frozen=True)
class Takes:
    """What one run takes from one account's grant."""

    account: str
    rule: str  # of the grant: rdp, zcdp or pld
    share: float  # of the whole grant
    left: float  # share that is left afterwards
    fits: bool
    refusal: str  # why not, where it does not fit

    def to_json(self) -> dict[str, Any]:
        """As plan.json has it."""
        return {"rule": self.rule, "share": self.share, "left": self.left}

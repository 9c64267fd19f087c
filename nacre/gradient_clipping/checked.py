"""The armed check: norms of the tape against plain differentiation of single units' losses."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nacre.core import rows
from nacre.core.errors import UnsupportedLayer
from nacre.core.random import Source
from nacre.core.types import Batch
from nacre.gradient_clipping.clipped import UnitLosses
from nacre.gradient_clipping.looped import gradient_of
from nacre.gradient_clipping.owners import Owners

_STEPS = 3  # sums that are checked where only the first are
_UNITS = 2  # units of each
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Relative: a unit alone rounds differently than in a batch."""


@dataclass(eq=False)
class Armed:
    """Compares a few units of the first sums, or of all, and raises where the tape is wrong."""

    done: int = 0

    def due(self, verify: Literal["first", "always", "never"]) -> bool:
        """Whether this sum is to be checked."""
        self.done += 1
        return verify == "always" or (verify == "first" and self.done <= _STEPS)

    def check(
        self,
        losses: UnitLosses,
        batch: Batch,
        norms: Tensor,  # (B, G) of the tape
        groups: list[list[str]],
        owners: Owners,
        source: Source,
        precision: Literal["float32", "bfloat16"],
    ) -> None:
        """Raises `UnsupportedLayer` where a unit's norm is not that of its own loss's gradient,
        differentiated alone under the same masks."""
        count = len(norms)
        for unit in sorted({0, count - 1})[:_UNITS]:
            if not bool(torch.isfinite(norms[unit]).all()):
                continue
            alone = rows.select(batch, slice(unit, unit + 1))
            gradient = gradient_of(losses, alone, owners, source)
            for group, names in enumerate(groups):
                true = sum(float(gradient[n].double().square().sum()) for n in names) ** 0.5
                seen = float(norms[unit, group])
                if not abs(seen - true) <= _TOLERANCE[precision] * max(true, 1e-12) + 1e-30:
                    raise UnsupportedLayer(
                        f"the tape finds a gradient of norm {seen:.6g} for a unit whose own loss "
                        f"has one of {true:.6g}, so its bound would not hold; nothing of this step "
                        "was released: use `gradients: looped`, and report the model"
                    )

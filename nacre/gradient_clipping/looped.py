"""One unit at a time: slow, plain, and what every other per-unit sum is measured against."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import nn

from nacre.core import rows
from nacre.core.parts import Clip, Objective
from nacre.core.random import Source
from nacre.core.types import Batch, BoundedSum, Tensors
from nacre.gradient_clipping.clipped_sum import UnitLosses, clipped_sum, empty_sum, held
from nacre.gradient_clipping.row_sum import RowSum
from nacre.gradient_clipping.spot_check import Armed, gradient_of
from nacre.gradient_clipping.tape.composite_functions import Packed
from nacre.gradient_clipping.tape.owners import Owners
from nacre.gradient_clipping.tape.precision import eager


@dataclass(frozen=True, eq=False)
class Looped(RowSum):
    """The clipped sum by one backward pass a unit; works wherever autograd does.

    *Guarantee:* that of `clipped_sum`. Padding and frozen parameters take no part; a tensor used
    in several places is one parameter, with its whole gradient. The model is as it was, `.grad`
    and buffers included. An empty batch gives the zero sum. A unit of the first bounded sums and of
    some later ones is differentiated once more after other units, and `UnsupportedLayer` is raised
    where its gradient is another then: something is kept from one pass to the next.
    """

    kind: ClassVar[str] = "looped"

    objective: Objective
    owners: Owners = field(default_factory=Owners, repr=False)
    verify: Literal["first", "always", "never"] = "first"
    armed: Armed = field(default_factory=Armed, repr=False)

    def __call__(self, model: nn.Module, units: Batch, clip: Clip, source: Source) -> BoundedSum:
        """The sum over the units that are present; `source` keys attacks and dropout."""
        with eager(model):
            batch = self.objective.perturb(model, held(units), source)
            losses = UnitLosses(model, self.objective)
            bounded = math.isfinite(clip.bound(1))
            again = self.armed.again(self.verify, len(batch["unit"]), source) if bounded else None
            if again is None:
                return one_by_one(losses, batch, clip, self.owners, source)
            total = one_by_one(losses, batch, clip, self.owners, source, again.seen)
            again.check(losses, batch, self.owners, source)
            return total

    def learn(self, model: nn.Module, sample: Batch, source: Source) -> None:
        """Finds out whose the entries of each dropout are, on made-up units.

        Packed rows hide that, and a unit that stands alone owns all of its own: a dropout on them
        is the unit's, and one inside a recurrent layer is refused where it would draw.
        """
        with eager(model):
            batch = self.objective.perturb(model, held(sample), source)
            losses = UnitLosses(model, self.objective)
            try:
                self.owners.learn(losses, batch)
            except Packed:
                gradient_of(losses, rows.select(batch, slice(1)), self.owners, source)


def one_by_one(
    losses: UnitLosses, batch: Batch, clip: Clip, owners: Owners, source: Source,
    seen: Callable[[int, Tensors], None] = lambda unit, gradient: None,
) -> BoundedSum:  # fmt: skip
    """The clipped sum over a perturbed batch without padding; dropout masks are the units' own."""
    total = empty_sum(losses.model, clip)
    for index in range(len(batch["unit"])):
        alone = rows.select(batch, slice(index, index + 1))
        gradient = gradient_of(losses, alone, owners, source)
        seen(index, gradient)
        total = total + clipped_sum({name: g[None] for name, g in gradient.items()}, clip)
    return total

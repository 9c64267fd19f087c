"""Auto-PGD among rows of a table: a gradient walks, what it has reached is repaired and tried."""

from __future__ import annotations

from dataclasses import dataclass

from nacre.adversarial_training.evaluation.access import WhiteBox
from nacre.adversarial_training.evaluation.inputs import Inputs, RowState
from nacre.adversarial_training.evaluation.losses import LOSSES
from nacre.adversarial_training.evaluation.stage import Tried
from nacre.adversarial_training.evaluation.stages.auto_pgd import AutoPGD
from nacre.adversarial_training.threats.region import Region
from nacre.core.random import Source


@dataclass(frozen=True, kw_only=True)
class ConstrainedAPGD(AutoPGD):
    """Auto-PGD whose points are repaired onto the constraints before each is evaluated.

    The walk itself goes on from the point as it was before the repair: steps that are too short to
    reach the next whole number or another category add up instead of being rounded away each time.
    In a region without separate points it is Auto-PGD.

    *Source:* the repair before each gradient and the first start at the clean row are those of
    CAPGD (Simonetto et al. 2024, https://arxiv.org/abs/2406.00775); the walk before
    the repair is not.
    """

    loss: str = "margin"
    from_clean: bool = True
    """Whether it starts at the clean row, or at random."""

    @property
    def name(self) -> str:
        """Constrained APGD and where it starts."""
        return "constrained APGD" + ("" if self.from_clean else f", random start {self.start}")

    def begin(self, target: WhiteBox, region: Region, rows: Inputs, source: Source) -> RowState:
        """The first points of the walk."""
        state = super().begin(target, region, rows, source)
        if self.from_clean:
            state |= {name: rows.clean for name in ("x", "old", "best")}
        return state

    def advance(
        self, target: WhiteBox, region: Region, rows: Inputs, state: RowState, source: Source
    ) -> Tried:
        """One repair, one gradient there, one move of the walk."""
        loss, other = LOSSES[self.loss], state.get("other", rows.aimed)
        points = region.project(state["x"], rows.clean)
        scores, losses, gradient = target.slopes(points, lambda s: loss(s, rows.label, other))
        ended = state["done"] >= self.steps
        after = self._moved(region.relaxed, rows.clean, state, losses, gradient)
        return Tried(points, rows.broken(scores), after, ended)

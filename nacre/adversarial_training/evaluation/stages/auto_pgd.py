"""Auto-PGD as a stage: momentum, and a step size that halves where a row makes no progress."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.access import AccessType, WhiteBox
from nacre.adversarial_training.evaluation.inputs import Inputs, RowState
from nacre.adversarial_training.evaluation.losses import LOSSES, score_margin
from nacre.adversarial_training.evaluation.stage import Tried
from nacre.adversarial_training.evaluation.stages import sparse
from nacre.adversarial_training.threats.diamond import Diamond
from nacre.adversarial_training.threats.region import Box, Region, chosen_rows, column
from nacre.core.random import Source

MOMENTUM = 0.75
"""Share of a move that is the gradient's; the rest repeats the last move (section 3)."""

PROGRESS = 0.75
"""Share of the steps between two checkpoints that has to raise the loss (rho)."""

FIRST, LESS, LEAST = 0.22, 0.03, 0.06
"""Of all steps: how many lie before the first checkpoint, how many fewer before each next, and how
many at least."""

EARLIEST = 5
"""Steps before a row is looked at for the first time: the first ones cross the ball."""


@dataclass(frozen=True, kw_only=True)
class AutoPGD:
    """Steps of twice the radius that halve, row by row, where the loss does not keep rising.

    With `rank` it climbs towards the class that the clean input scores highest but `rank` among the
    wrong ones (1 is the likeliest), otherwise away from the right class.

    *Rule of `way`:* after a fifth of the steps the best margin has to have come that share of the
    way from the clean margin to 0: what is missing may be 1 - `way`, and after a share s of the
    steps (1 - `way`) ** (5 s). A row is looked at after each twentieth, from step 5 on, and has
    ended where more is missing. None ends no row early.

    *Rule of `behind`:* a row of which the attacks before left at least that share of the way
    missing has ended where it is looked at and has not come as far as they: a loss that sees more
    of the row than theirs is ahead of them in the first steps. Square has no such rule: between
    gradients that are masked and those that are not it catches up late (`docs/notebook.md`).

    Both rules are for Linf: in an L2 ball rows turn late, and one in twenty was lost by such rules.

    In an L1 ball the steps are sparse instead (`sparse.py`).

    *Source:* Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", https://arxiv.org/abs/2003.01690, algorithm 1.
    """

    loss: str = "cross_entropy"
    rank: int | None = None
    steps: int = 100
    start: int = 0  # number of the random start
    way: float | None = None
    behind: float | None = None

    access: ClassVar[AccessType] = WhiteBox

    @property
    def name(self) -> str:
        """APGD with its loss and, with `rank`, which class of each row it climbs towards.

        >>> AutoPGD(loss="logit_ratio", rank=2).name
        'APGD-DLR towards the 2nd likeliest wrong class'
        """
        short = {"cross_entropy": "CE", "logit_ratio": "DLR", "probability_margin": "PMA"}
        name = f"APGD-{short.get(self.loss, self.loss)}"
        name += f", start {self.start}" if self.start else ""
        if self.rank is None:
            return name
        which = "" if self.rank == 1 else f"{_ordinal(self.rank)} "
        return f"{name} towards the {which}likeliest wrong class"

    def begin(self, target: WhiteBox, region: Region, rows: Inputs, source: Source) -> RowState:
        """A start on the surface of the ball, as the paper's code has it."""
        uniform = source.child("start", self.start).stream().rows(rows.unit, region.draws)
        x = region.start(rows.clean, uniform)
        count = len(rows)
        longest = max(1, int(FIRST * self.steps))
        state: RowState = {
            "x": x,
            "old": x,
            "best": x,
            "slope": torch.zeros_like(x),
            "top": torch.full((count,), -torch.inf, dtype=x.dtype),
            "last": torch.full((count,), -torch.inf, dtype=x.dtype),
            "marked": torch.full((count,), -torch.inf, dtype=x.dtype),  # `top` at the checkpoint
            "step": torch.full((count,), 2.0, dtype=x.dtype),
            "halved": torch.ones(count, dtype=torch.bool),
            "rises": torch.zeros(count, dtype=torch.int64),
            "period": torch.full((count,), longest),
            "since": torch.zeros(count, dtype=torch.int64),
            "done": torch.zeros(count, dtype=torch.int64),
        }
        state.update(region.limits(rows.clean))
        if isinstance(region, Diamond):
            state.update(sparse.begun(region, rows.clean))
        if self.rank is None and self.way is None:
            return state
        scores = target.scores(rows.clean)
        if self.way is not None:
            far = score_margin(scores, rows.label, rows.aimed)
            state.update(near=far, far=far)
        if self.rank is not None:
            state["other"] = _ranked(scores, rows.label, self.rank)
        return state

    def advance(
        self, target: WhiteBox, region: Region, rows: Inputs, state: RowState, source: Source
    ) -> Tried:
        """One gradient, one move."""
        x, loss, other = state["x"], LOSSES[self.loss], state.get("other")

        def raised(scores: Tensor) -> Tensor:
            return loss(scores, rows.label, rows.aimed if other is None else other)

        scores, losses, gradient = target.slopes(x, raised)
        ended = state["done"] >= self.steps
        if "near" in state:
            margin = score_margin(scores, rows.label, rows.aimed)
            state = {**state, "near": torch.where(margin > state["near"], margin, state["near"])}
        if self.way is not None and isinstance(region, Box):
            allowed = _missing(self.steps, self.way)[state["done"]]
            ended |= state["near"] < state["far"] * allowed
            if self.behind is not None and rows.reached is not None:
                slower = (state["near"] < rows.reached) & allowed.isfinite()
                ended |= slower & (rows.reached < state["far"] * self.behind)
        after = self._moved(region, rows.clean, state, losses, gradient)
        return Tried(x, rows.broken(scores), after, ended, best=state.get("near"))

    def _moved(
        self, region: Region, clean: Tensor, state: RowState, losses: Tensor, gradient: Tensor
    ) -> RowState:
        after, x = dict(state), state["x"]
        finite = losses.isfinite()
        after["rises"] = state["rises"] + (losses > state["last"])
        better = finite & (losses > state["top"])
        after["top"] = torch.where(better, losses, state["top"])
        after["best"] = chosen_rows(better, x, state["best"])
        after["slope"] = chosen_rows(better, gradient, state["slope"])
        after["last"] = torch.where(finite, losses, state["last"])
        if isinstance(region, Diamond):
            return {**after, **sparse.stepped(region, clean, after, gradient, self.steps)}
        first = state["done"] == 0
        after["since"] = torch.where(first, 0, state["since"] + 1)
        after["rises"] = torch.where(first, 0, after["rises"])
        after["marked"] = torch.where(first, after["top"], state["marked"])
        halve = self._judged(after)
        x = chosen_rows(halve, after["best"], x)
        gradient = chosen_rows(halve, after["slope"], gradient)
        return {**after, **self._stepped(region, clean, after, x, gradient, first)}

    def _judged(self, after: RowState) -> Tensor:
        """(R,) whether a row has come to a checkpoint and has made too little progress; what is
        counted between checkpoints begins anew."""
        due = after["since"] >= after["period"]
        stuck = after["rises"] <= PROGRESS * after["period"]
        stalled = ~after["halved"] & (after["top"] <= after["marked"])
        halve = due & (stuck | stalled)
        after["halved"] = torch.where(due, halve, after["halved"])
        after["marked"] = torch.where(due, after["top"], after["marked"])
        less, least = max(1, int(LESS * self.steps)), max(1, int(LEAST * self.steps))
        shorter = (after["period"] - less).clamp(min=least)
        after["period"] = torch.where(due, shorter, after["period"])
        after["since"] = torch.where(due, 0, after["since"])
        after["rises"] = torch.where(due, 0, after["rises"])
        after["step"] = torch.where(halve, after["step"] / 2, after["step"])
        return halve

    def _stepped(
        self, region: Region, clean: Tensor, after: RowState, x: Tensor, gradient: Tensor,
        first: Tensor,
    ) -> RowState:  # fmt: skip
        """The next point: most of a projected step, and a part of the last move."""
        step = region.steepest(gradient, 1.0).mul_(column(after["step"], x))
        aimed = region.within(step.add_(x), clean, after)
        share = column(torch.where(first, 1.0, MOMENTUM).to(x), x)
        moved = torch.lerp(x, aimed, share).addcmul_(x - after["old"], 1 - share)
        return {"x": region.within(moved, clean, after), "old": x, "done": after["done"] + 1}


@lru_cache(maxsize=64)
def _missing(steps: int, way: float) -> Tensor:
    """(steps + 1,) the share of the way that may be missing after each number of steps; inf where a
    row is not looked at."""
    allowed = torch.full((steps + 1,), torch.inf)
    for twentieth in range(1, 20):
        place = steps * twentieth // 20
        if place >= EARLIEST:
            allowed[place] = (1 - way) ** (twentieth / 4)
    return allowed


def _ordinal(number: int) -> str:
    """2nd, 3rd, 4th, …, 21st."""
    teens = number // 10 % 10 == 1
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def _ranked(scores: Tensor, label: Tensor, rank: int) -> Tensor:
    """(R,) the wrong class of that rank; of fewer classes the last one."""
    others = scores.scatter(1, label[:, None], -torch.inf)
    return others.argsort(1, descending=True)[:, min(rank, scores.shape[1] - 1) - 1]

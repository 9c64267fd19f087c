"""A search without gradients: rows that are mixed from the best ones found so far."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.access import AccessType, ScoreOnly
from nacre.adversarial_training.evaluation.inputs import Inputs, RowState
from nacre.adversarial_training.evaluation.losses import score_margin
from nacre.adversarial_training.evaluation.stage import Tried
from nacre.adversarial_training.threats.region import Region
from nacre.core.random import Source

FRESH = 2
"""Columns of a child that come from neither parent, on average; at most a fifth of all."""


@dataclass(frozen=True, kw_only=True)
class ColumnSearch:
    """An evolution of a few candidates for each row, each of them legal.

    A child takes each column from one of two parents, a few columns from a random legal row or
    from the clean one, and takes the place of the worst candidate if it has a better margin. It is
    repaired before it is asked, so that only the margin has to be sought. No two candidates are
    equal: among whole numbers and categories they would soon all be one.

    *Source:* the idea of MOEVA (Simonetto et al. 2022, https://arxiv.org/abs/2112.01156), whose
    candidates break constraints and are selected for that as well.
    """

    queries: int = 300
    candidates: int = 12

    access: ClassVar[AccessType] = ScoreOnly

    @property
    def name(self) -> str:
        """The search and the rows that it may ask for each."""
        return f"column search, {self.queries} queries"

    def begin(self, target: ScoreOnly, region: Region, rows: Inputs, source: Source) -> RowState:
        """A random legal row; the candidates come one at a time."""
        clean = rows.clean
        uniform = source.child("first").stream().rows(rows.unit, region.draws)
        return {
            "x": region.start(clean, uniform),
            "kept": clean[:, None].repeat(1, self.candidates, *[1] * (clean.dim() - 1)),
            "margins": torch.full((len(rows), self.candidates), -torch.inf, dtype=clean.dtype),
            "done": torch.zeros(len(rows), dtype=torch.int64),
        }

    def advance(
        self, target: ScoreOnly, region: Region, rows: Inputs, state: RowState, source: Source
    ) -> Tried:
        """One query, and the next child."""
        x = state["x"]
        scores = target.scores(x)
        margins = score_margin(scores, rows.label, rows.aimed).to(x)
        margins = torch.where(margins.isfinite(), margins, torch.full_like(margins, -torch.inf))
        after, every = dict(state), torch.arange(len(x))
        worst = state["margins"].argmin(1)
        known = (state["kept"] == x[:, None]).flatten(2).all(2) & state["margins"].isfinite()
        better = (margins > state["margins"][every, worst]) & ~known.any(1)
        after["kept"], after["margins"] = state["kept"].clone(), state["margins"].clone()
        after["kept"][every[better], worst[better]] = x[better]
        after["margins"][every[better], worst[better]] = margins[better]
        after["done"] = state["done"] + 1
        after["x"] = self._child(region, rows, after, source)
        return Tried(x, rows.broken(scores), after, after["done"] >= self.queries)

    def _child(self, region: Region, rows: Inputs, state: RowState, source: Source) -> Tensor:
        clean, columns = rows.clean, region.columns
        size = len(columns)
        stream = source.child("children").stream()
        uniform = stream.rows(rows.unit, 4 + size + region.draws, state["done"])
        mother, father = (self._parent(state, uniform[:, i : i + 2]) for i in (0, 2))
        drawn = region.start(clean, uniform[:, 4 + size :])
        lot = uniform[:, 4 : 4 + size][:, columns].reshape(clean.shape)
        fresh = min(0.2, FRESH / max(1, len(columns.unique())))
        child = torch.where(lot < 0.5, mother, father)
        child = torch.where(lot > 1 - fresh, clean, child)
        child = torch.where(lot > 1 - fresh / 2, drawn, child)
        first = (state["done"] < self.candidates).reshape(-1, *[1] * (clean.dim() - 1))
        return region.project(torch.where(first, drawn, child), clean)

    def _parent(self, state: RowState, uniform: Tensor) -> Tensor:
        """The better of two candidates that are drawn."""
        pair = (uniform * self.candidates).long().clamp(max=self.candidates - 1)
        margins = state["margins"].gather(1, pair)
        won = torch.where(margins[:, 0] >= margins[:, 1], pair[:, 0], pair[:, 1])
        return state["kept"][torch.arange(len(won)), won]

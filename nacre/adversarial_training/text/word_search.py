"""A random search among the rows that word substitution allows, for what a greedy one misses."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.access import AccessType, RememberedScores, ScoreOnly
from nacre.adversarial_training.evaluation.inputs import Inputs, RowState
from nacre.adversarial_training.evaluation.losses import score_margin
from nacre.adversarial_training.evaluation.stage import Tried
from nacre.adversarial_training.text.words import Substitutions
from nacre.core.random import Source


@dataclass(frozen=True, kw_only=True)
class WordSearch:
    """From random words in as many places as may change, one word at a time is drawn anew, and
    what does not lower the margin is kept. Where the budget is spent, another word goes back to
    the clean one, so the search moves among the places too.

    *Source:* the (1 + 1) evolution strategy with the perturbation of Alzantot et al. 2018,
    "Generating Natural Language Adversarial Examples", https://arxiv.org/abs/1804.07998, section
    3.2, which keeps a population.
    """

    queries: int = 100
    """Rows that it may ask for each; one that it asks again counts again, and takes no pass."""
    start: int = 0
    """Which of several searches it is: each draws other words."""

    access: ClassVar[AccessType] = RememberedScores

    @property
    def name(self) -> str:
        """The search and the rows that it may ask for each."""
        return f"word search, {self.queries} queries"

    def begin(
        self, target: ScoreOnly, region: Substitutions, rows: Inputs, source: Source
    ) -> RowState:
        """Random candidates at random places, as many as the budget allows."""
        near, clean = region.choices(rows.clean), rows.clean
        can, length = near[:, :, 0] >= 0, clean.shape[1]
        draws = source.child("first", self.start).stream().rows(rows.unit, 2 * length)
        lots = torch.where(can, draws[:, :length], 2.0)
        rank = lots.argsort(dim=1).argsort(dim=1)
        chosen = can & (rank < region.budget(clean)[:, None])
        x = torch.where(chosen, _drawn(near, draws[:, length:]), clean)
        return {
            "x": x,
            "kept": clean,
            "value": torch.full((len(rows),), -torch.inf, dtype=torch.float64),
            "done": torch.zeros(len(rows), dtype=torch.int64),
        }

    def advance(
        self, target: ScoreOnly, region: Substitutions, rows: Inputs, state: RowState,
        source: Source,
    ) -> Tried:  # fmt: skip
        """One query of each row, and the next proposal."""
        x, done = state["x"], state["done"] + 1
        scores = target.scores(x)
        value = score_margin(scores, rows.label, rows.aimed).double()
        value = torch.where(value.isfinite(), value, -torch.inf)
        better = value >= state["value"]
        kept = torch.where(better[:, None], x, state["kept"])
        near = region.choices(rows.clean)
        stream = source.child("next", self.start).stream()
        draws = stream.rows(rows.unit, 1 + 2 * x.shape[1], done)
        after = {
            "x": _proposed(kept, rows.clean, near, region.budget(rows.clean), draws),
            "kept": kept,
            "value": torch.where(better, value, state["value"]),
            "done": done,
        }
        nothing = ~(near[:, :, 0] >= 0).any(1)
        return Tried(x, rows.broken(scores), after, nothing | (done >= self.queries))


def _drawn(
    near: Tensor,  # (R, T, C) candidates, -1 for none
    draws: Tensor,  # (R, T) in (0, 1)
) -> Tensor:  # (R, T), -1 where there is none
    """A candidate for each place, all of them equally likely."""
    count = (near >= 0).sum(2)
    pick = (draws * count).long().clamp(min=0)
    return near.gather(2, torch.minimum(pick, (count - 1).clamp(min=0)).unsqueeze(2)).squeeze(2)


def _proposed(kept: Tensor, clean: Tensor, near: Tensor, budget: Tensor, draws: Tensor) -> Tensor:
    """(R, T): one word drawn anew, and where that is one too many, another one as it was."""
    can, each, length = near[:, :, 0] >= 0, torch.arange(len(kept)), kept.shape[1]
    lots, back = draws[:, :length], draws[:, length : 2 * length]
    place = torch.where(can, lots, -1.0).argmax(1)
    pick = _drawn(near[each, place][:, None], draws[:, 2 * length :]).squeeze(1)
    moved = kept.clone()
    moved[each, place] = torch.where(pick >= 0, pick, kept[each, place])
    changed = moved != clean
    over = changed.sum(1) > budget
    changed[each, place] = False
    other = torch.where(changed, back, -1.0).argmax(1)
    moved[each[over], other[over]] = clean[each[over], other[over]]
    return moved

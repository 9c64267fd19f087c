"""Greedy word substitution: the words that matter most are replaced first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.access import AccessType, RememberedScores, ScoreOnly
from nacre.adversarial_training.evaluation.inputs import Inputs, RowState
from nacre.adversarial_training.evaluation.losses import LOSSES
from nacre.adversarial_training.evaluation.stage import Tried
from nacre.adversarial_training.text.words import Substitutions
from nacre.core.random import Source

_CLEAN, _PROBE, _REPLACE = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class WordSwap:
    """First each word alone is replaced by its nearest candidate, which shows how much it matters;
    then, from the one that matters most, all candidates of a word are tried, and the one that
    raises the margin most is kept, until the row breaks or its budget is spent.

    *Source:* Jin et al. 2020, https://arxiv.org/abs/1907.11932, algorithm 1; there a word's weight
    is measured by leaving it out, which is no row that the threat allows.
    """

    access: ClassVar[AccessType] = RememberedScores

    @property
    def name(self) -> str:
        """What the stage table calls it."""
        return "word substitution"

    def begin(
        self, target: ScoreOnly, region: Substitutions, rows: Inputs, source: Source
    ) -> RowState:
        """Nothing replaced, and the places that hold a word with candidates in front."""
        can = region.choices(rows.clean)[:, :, 0] >= 0
        order = can.to(torch.int8).argsort(dim=1, descending=True, stable=True)
        none = torch.zeros(len(rows), dtype=torch.int64)
        return {
            "x": rows.clean,  # with the words that are kept so far
            "order": order,  # (R, T) places, those that can change in front
            "count": can.sum(1),  # of those
            "gains": torch.full(can.shape, -torch.inf, dtype=torch.float64),
            "phase": none,
            "spot": none,  # which of `order`
            "choice": none,  # which candidate
            "top": torch.full((len(rows),), -torch.inf, dtype=torch.float64),
            "pick": none - 1,  # the best candidate of this spot; -1 where none is better
            "left": region.budget(rows.clean),
        }

    def advance(
        self, target: ScoreOnly, region: Substitutions, rows: Inputs, state: RowState,
        source: Source,
    ) -> Tried:  # fmt: skip
        """One replacement of each row is scored."""
        near, each = region.choices(rows.clean), torch.arange(len(rows))
        phase, spot, choice = state["phase"], state["spot"], state["choice"]
        place = state["order"][each, spot.clamp(max=state["order"].shape[1] - 1)]
        token = near[each, place, choice]
        point = state["x"].clone()
        tries = (phase != _CLEAN) & (token >= 0)
        point[each[tries], place[tries]] = token[tries]
        scores = target.scores(point)
        value = LOSSES["margin"](scores, rows.label, rows.aimed).double()
        state = _noted(state, value, token, place)
        more = choice + 1
        ended_spot = more >= near.shape[2]
        after = near[each, place, more.clamp(max=near.shape[2] - 1)]
        state = _moved(state, ended_spot | (after < 0), place)
        over = (state["count"] == 0) | (
            (state["phase"] == _REPLACE)
            & ((state["spot"] >= state["count"]) | (state["left"] <= 0))
        )
        return Tried(point, rows.broken(scores), state, over)


def _noted(state: RowState, value: Tensor, token: Tensor, place: Tensor) -> RowState:
    """The state with what was just seen: the clean margin, a word's weight, or a candidate's."""
    phase, each = state["phase"], torch.arange(len(value))
    gains, probed = state["gains"].clone(), phase == _PROBE
    gains[each[probed], place[probed]] = value[probed]
    clean = phase == _CLEAN
    better = (phase == _REPLACE) & (value > state["top"])
    return {
        **state,
        "gains": gains,
        "top": torch.where(clean | better, value, state["top"]),
        "pick": torch.where(better, token, state["pick"]),
    }


def _moved(state: RowState, spent: Tensor, place: Tensor) -> RowState:
    """The state with the next try of each row; `spent` says that a spot has no more candidates."""
    phase, spot, each = state["phase"], state["spot"], torch.arange(len(spent))
    replacing = phase == _REPLACE
    kept = replacing & spent & (state["pick"] >= 0)
    x = state["x"].clone()
    x[each[kept], place[kept]] = state["pick"][kept]
    onward = (phase == _PROBE) | (replacing & spent)
    spot = torch.where(onward, spot + 1, spot)
    begun = (phase == _PROBE) & (spot >= state["count"])  # all words are weighed
    order = torch.where(
        begun[:, None], state["gains"].argsort(dim=1, descending=True, stable=True), state["order"]
    )
    choice = torch.where(replacing & ~spent, state["choice"] + 1, 0)
    return {
        **state,
        "x": x,
        "order": order,
        "phase": torch.where(phase == _CLEAN, _PROBE, torch.where(begun, _REPLACE, phase)),
        "spot": torch.where(begun, 0, spot),
        "choice": choice,
        "pick": torch.where(replacing & ~spent, state["pick"], -1),
        "left": state["left"] - kept.long(),
    }

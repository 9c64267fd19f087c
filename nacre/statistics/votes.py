"""A confusion matrix of held-out units as a bounded sum: one vote a unit, whatever it holds.

*Guarantee:* a unit adds entries of at least 0 that sum to at most 1, and only where it was drawn,
so its L2 norm is at most `VOTE`. What it adds depends on the model and on its own rows alone: each
unit is answered by itself, in a pass of its own, since a model rounds otherwise beside other rows.
Votes are whole numbers of a public quantum and a cell is clamped at a public height (which brings
no two sums further apart), so float32 holds each sum exactly and rounding moves none of them.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nacre.core.parts import Task
from nacre.core.theirs import theirs
from nacre.core.types import BoundedSum
from nacre.data.units import Units

VOTE = 1.0
"""L2 norm by which one unit moves the sum of a draw at most."""

COVERED = (
    "Epsilon covers the protected figure: each draw of held-out units is one more step of the same "
    "mechanism, in which a unit enters by the same chance and moves the noised sum by one vote at "
    "most, which the noise is scaled to."
)
"""Why a protected figure may be shown, in a sentence."""

_DIGITS = 23  # bits of a whole number that float32 holds, and one to spare


class Votes:
    """The votes of held-out units under one model, each cast once and kept."""

    def __init__(
        self,
        model: nn.Module,  # in evaluation mode
        task: Task,  # of classes
        units: Units,
        expected: float,  # units in a draw, from declared numbers alone
    ) -> None:
        self._model, self._task, self._units = model, task, units
        most = 2.0 ** math.ceil(math.log2(8 * expected + 64))  # far above any honest cell
        self._quantum = most * 2.0**-_DIGITS
        self._cast: dict[int, Tensor] = {}

    def total(self, drawn: Tensor) -> BoundedSum:
        """The sum over the drawn units, (b,) int64: entry (i, j) of "votes" is the weight of rows
        of class i that are answered by class j, float32."""
        classes = self._task.outputs
        cells = torch.zeros(classes, classes, dtype=torch.int64)
        places: list[int] = drawn.tolist()
        for place in places:
            cells += self._vote(place)
        held = cells.clamp(max=2**_DIGITS)
        return BoundedSum({"votes": (held.double() * self._quantum).float()}, VOTE)

    @torch.no_grad()
    def _vote(self, place: int) -> Tensor:
        """(K, K) int64, in quanta: each row of the unit weighs alike, and together they weigh 1 at
        most. An answer that is no number counts for another class than the right one."""
        if place in self._cast:
            return self._cast[place]
        batch = self._units.batch(torch.tensor([place]))
        features, label = batch["features"], batch["label"]
        if "rows" in batch:
            features, label = features[batch["rows"]], label[batch["rows"]]
        with theirs("the model", "held-out rows were judged", surely=False):
            outputs = self._task.predict(self._model, features)
        classes = self._task.outputs
        numbers = outputs.isfinite().flatten(1).all(1)
        guessed = torch.where(numbers, outputs.argmax(-1), (label + 1) % classes)
        weight = math.floor(1 / len(label) / self._quantum)
        cells = torch.zeros(classes, classes, dtype=torch.int64)
        weights = torch.full_like(label, weight)
        cells.index_put_((label, guessed), weights, accumulate=True)
        self._cast[place] = cells
        return cells

"""A confusion matrix of held-out units as a bounded sum: one vote a unit, whatever it holds.

*Guarantee:* a unit adds entries of at least 0 that sum to at most 1, and only where it was drawn,
so its L2 norm is at most `VOTE`. What it adds depends on the model and on its own rows alone: each
unit is answered by itself, in a pass of its own, since a model rounds otherwise beside other rows.
Code of the user's may keep what it answers and compute with it later, so each unit is answered by a
copy of a model that has answered none, and once more after all others: what a copy does not
undo (a global variable, a file) is refused.
Votes are whole numbers of a public quantum and a cell is clamped at a public height (which brings
no two sums further apart), so float32 holds each sum exactly and rounding moves none of them.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from nacre.core.errors import Incompatible
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

_NEAR = 1e-4  # of an answer: rounding alone stays far below


class Votes:
    """The votes of held-out units under one model, each cast once and kept."""

    def __init__(
        self,
        model: nn.Module,  # in evaluation mode
        task: Task,  # of classes
        units: Units,
        expected: float,  # units in a draw, from declared numbers alone
        *,
        own_code: bool,  # whether the model is code of the user's, which may keep what it answers
    ) -> None:
        self._model, self._task, self._units, self._own_code = model, task, units, own_code
        most = 2.0 ** math.ceil(math.log2(8 * expected + 64))  # far above any honest cell
        self._quantum = most * 2.0**-_DIGITS
        self._cast: dict[int, Tensor] = {}

    def cast(self, places: Tensor) -> None:
        """Casts the votes of these units, (b,) int64, where they are not yet cast.

        Raises `Incompatible` where code of the user's answers a unit otherwise after others, and
        `CallFailed` where it fails or cannot be copied.
        """
        listed: list[int] = places.unique().tolist()
        new = [place for place in listed if place not in self._cast]
        answers = {place: self._answer(place) for place in new}
        if self._own_code:
            for place in reversed(new):
                again, first = self._answer(place), answers[place]
                near = again.shape == first.shape and torch.allclose(
                    again, first, rtol=_NEAR, atol=_NEAR, equal_nan=True
                )
                # However near two answers are, between them may lie another vote.
                if not near or not torch.equal(self._vote(place, again), self._vote(place, first)):
                    raise Incompatible(
                        "the model answers a held-out unit otherwise once it has answered others, "
                        "so that one of them moves the votes of all and the noise covers none of "
                        "it: make its answer in evaluation mode a function of its weights and of "
                        "the rows it is given alone (it keeps rows outside the module, or draws "
                        "numbers), or leave `data.holdout.protected` out"
                    )
        self._cast |= {place: self._vote(place, answers[place]) for place in new}

    def total(self, drawn: Tensor) -> BoundedSum:
        """The sum over the drawn units, (b,) int64: entry (i, j) of "votes" is the weight of rows
        of class i that are answered by class j, float32. Raises as `cast`."""
        self.cast(drawn)
        classes = self._task.outputs
        cells = torch.zeros(classes, classes, dtype=torch.int64)
        places: list[int] = drawn.tolist()
        for place in places:
            cells += self._cast[place]
        held = cells.clamp(max=2**_DIGITS)
        return BoundedSum({"votes": (held.double() * self._quantum).float()}, VOTE)

    @torch.no_grad()
    def _answer(self, place: int) -> Tensor:
        """(rows, K): what the model, having answered nothing before, answers to the unit's rows."""
        features, _ = self._rows(place)
        model = self._model
        if self._own_code:  # a copy reads each weight once, as an answer does
            with theirs("the model", "it was copied, as it is for each held-out unit"):
                model = copy.deepcopy(model)
        with theirs("the model", "held-out rows were judged", surely=False):
            return self._task.predict(model, features)

    def _vote(self, place: int, outputs: Tensor) -> Tensor:
        """(K, K) int64, in quanta: each row of the unit weighs alike, and together they weigh 1 at
        most. An answer that is no number counts for another class than the right one."""
        _, label = self._rows(place)
        classes = self._task.outputs
        numbers = outputs.isfinite().flatten(1).all(1)
        guessed = torch.where(numbers, outputs.argmax(-1), (label + 1) % classes)
        weight = math.floor(1 / len(label) / self._quantum)
        cells = torch.zeros(classes, classes, dtype=torch.int64)
        weights = torch.full_like(label, weight)
        cells.index_put_((label, guessed), weights, accumulate=True)
        return cells

    def _rows(self, place: int) -> tuple[Tensor, Tensor]:
        """(rows, …) and (rows,): the features of the unit's rows and their classes."""
        batch = self._units.batch(torch.tensor([place]))
        features, label = batch["features"], batch["label"]
        if "rows" in batch:
            return features[batch["rows"]], label[batch["rows"]]
        return features, label

"""How Auto-PGD moves in an L1 ball: by few entries, and by ever fewer."""

from __future__ import annotations

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.inputs import RowState
from nacre.adversarial_training.threats.diamond import Diamond
from nacre.adversarial_training.threats.region import chosen_rows, column

FIRST = 0.2
"""Share of the entries that the first steps move."""

FEWER = 1.5
"""The next steps move the entries of the best move so far divided by this; a step that is too long
is divided by it too."""

EVERY = 0.04
"""Of all steps: how often both are judged."""

STEADY = 0.95
"""The best move is as sparse as it will be once it keeps this share of its entries."""

LEAST = 0.1
"""Of the radius: the shortest step."""


def begun(region: Diamond, clean: Tensor) -> RowState:
    """What is remembered of each row besides the point and the best one."""
    count, free = len(clean), float((region.radii > 0).sum())
    return {
        "step": torch.ones(count, dtype=clean.dtype),
        "kept": torch.full((count,), max(1.0, FIRST * free), dtype=torch.float64),
        "spread": torch.full((count,), free, dtype=torch.float64),
    }


def stepped(
    region: Diamond, clean: Tensor, after: RowState, gradient: Tensor, steps: int
) -> RowState:
    """The next point, and how long and how sparse the steps after it are.

    *Source:* Croce & Hein 2021, "Mind the box: l1-APGD for sparse adversarial attacks on image
    classifiers", https://arxiv.org/abs/2103.01208, algorithm 1.
    """
    done = after["done"]
    due = (done > 0) & (done % max(1, int(EVERY * steps)) == 0)
    entries = (after["best"] != clean).flatten(1).sum(1).double()
    sparser = due & (entries < STEADY * after["spread"])
    step = torch.where(due, after["step"] / FEWER, after["step"])
    step = torch.where(sparser, 1.0, step).clamp(min=LEAST, max=1.0)
    kept = torch.where(due, (entries / FEWER).clamp(min=1), after["kept"])
    x = chosen_rows(sparser, after["best"], after["x"])
    gradient = chosen_rows(sparser, after["slope"], gradient)
    moved = region.project(x + column(step, x) * region.sparse(gradient, kept), clean)
    return {
        "x": moved,
        "step": step,
        "kept": kept,
        "spread": torch.where(due, entries, after["spread"]),
        "done": done + 1,
    }

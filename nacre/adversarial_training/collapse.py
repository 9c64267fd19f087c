"""The collapse of adversarial training: a model that answers all inputs alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nacre.adversarial_training.attacks.ascent import evaluating
from nacre.core.parts import Task

APART = 1e-3
"""Answers closer than this to each other, in logits, count as the same."""


@dataclass
class CollapseWatch:
    """Notices that a model that gave different answers answers all inputs alike: the adversary has
    won, and further steps learn a constant.

    No input is a row of the data, so under privacy it looks at released weights alone. A head that
    starts at zero answers alike before it has learnt anything, so only what was apart can collapse;
    and one look may be chance, so it takes two in a row.
    """

    task: Task
    inputs: Tensor  # (R, *shape), R >= 2: random, of the declared shape
    seen: tuple[bool, int] = (False, 0)
    """Whether answers differed once, and how many looks in a row have found them alike since; kept
    in checkpoints."""

    def collapsed(self, model: nn.Module) -> bool:
        """Looks at the model, which stays as it was, and says whether it has collapsed."""
        with torch.no_grad(), evaluating(model):
            outputs = self.task.predict(model, self.inputs)
        spread = float((outputs.amax(0) - outputs.amin(0)).max())
        apart, alike = self.seen
        if spread > APART:
            self.seen = (True, 0)
            return False
        # A spread that is no number is a fault of another kind.
        self.seen = (apart, alike + 1 if spread <= APART else 0)
        return apart and self.seen[1] >= 2

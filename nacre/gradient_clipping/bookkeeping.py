"""Book-keeping: one backward pass; norms and weighted sums come from the tape.

*Source:* Bu, Wang, Zha & Karypis 2023, "Differentially Private Optimization on Large Model at
Small Cost", https://arxiv.org/abs/2210.00038, here on operations instead of modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nacre.core.types import Tensors
from nacre.gradient_clipping.tape.contributions import Grams
from nacre.gradient_clipping.tape.per_parameter import Joined, squared, weighted
from nacre.gradient_clipping.taped_sum import Finish, Forward, Taped


@dataclass(frozen=True, eq=False)
class BookKeeping(Taped):
    """The fastest: costs the norms and one scaling on top of an ordinary step.

    Keeps the output gradient of every operation until the sum is taken.
    """

    kind: ClassVar[str] = "bookkeeping"

    def passes(self, forward: Forward, groups: list[list[str]]) -> tuple[Tensor, Finish]:
        """The norms, and the sum from what the tape kept."""
        tape = forward.tape
        joined = Joined(tape)
        tape.take = lambda use, given: joined.add(given)
        tape.backward(forward.losses)
        found = joined.by_parameter()
        joined.parts.clear()
        norms = [squared(found, names, forward.units, Grams()).sqrt() for names in groups]

        def finish(factors: Tensor) -> Tensors:
            total: Tensors = {}
            columns = factors.unbind(1)
            column = {name: columns[g] for g, names in enumerate(groups) for name in names}
            # The largest sum last: by then what the others needed is free.
            for name in sorted(tape.parameters, key=lambda n: tape.parameters[n].numel()):
                parameter = tape.parameters[name]
                parts = found.pop(name)
                total[name] = weighted(parts, column[name], parameter.detach())
            return {name: total[name] for name in tape.parameters}

        return torch.stack(norms, 1), finish

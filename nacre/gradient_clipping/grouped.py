"""Between book-keeping and ghost: part of the tape is kept, the rest is taken a second time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from nacre.gradient_clipping.ghost import two_passes
from nacre.gradient_clipping.tape.uses import Use
from nacre.gradient_clipping.taped_sum import Finish, Forward, Taped


@dataclass(frozen=True, eq=False)
class Grouped(Taped):
    """Keeps the output gradients of the operations nearest to the input, up to a share of all.

    The second backward pass starts at the losses and ends where the kept operations begin, so its
    cost lies between those of `Ghost` and `BookKeeping`. Its memory does so only where what is kept
    of an operation is larger than what entered it (gradients of single units): it holds the graph
    until the second pass, as `Ghost` does, and what is kept besides.
    """

    kind: ClassVar[str] = "grouped"
    per_part: ClassVar[bool] = False

    share: float = 0.5
    """Of the bytes that book-keeping would keep."""

    def passes(self, forward: Forward, groups: list[list[str]]) -> tuple[Tensor, Finish]:
        """The norms, and the sum by half of a second backward pass."""
        left = self.share * sum(use.bytes for use in forward.tape.uses)
        kept: set[Use] = set()
        for use in forward.tape.uses:  # in the order of the forward pass
            left -= use.bytes
            if left < 0:
                break
            kept.add(use)
        return two_passes(forward, groups, kept)

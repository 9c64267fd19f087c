"""The direction that the server followed last: around it a centred aggregate clips."""

from __future__ import annotations

from nacre.core.tensors import detached
from nacre.core.types import Tensors


class LastDirection:
    """Adds the last direction to a released mean of differences from it, and keeps the result.

    It is the `Shape` of the server's step, so it works on what was released: post-processing. What
    it keeps belongs in the checkpoint, and a round that is taken again needs what it had then.
    """

    def __init__(self) -> None:
        self.last: Tensors | None = None  # None before the first release, which stands for zero

    def shape(self, mean: Tensors) -> Tensors:
        """The direction to follow, of the names and shapes of the weights."""
        last = self.last
        followed = mean if last is None else {n: value + last[n] for n, value in mean.items()}
        self.last = detached(followed)
        return followed

    def put_back(self, tensors: Tensors) -> None:
        """The direction that a checkpoint holds; {} where it was made before the first release."""
        self.last = dict(tensors) or None

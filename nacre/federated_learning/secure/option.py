"""What a recipe says about a secure sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nacre.core import require
from nacre.core.errors import BadArgument
from nacre.federated_learning.secure.grids.grid import Grid


@dataclass(frozen=True, kw_only=True)
class SecureGather:
    """The server sees the sum of the replies and none of them."""

    kind: Literal["secure"] = "secure"
    threshold: int
    """Parties that have to answer at every stage of a round; with fewer, no sum is opened."""
    colluders: int = 1
    """Parties that may be on the server's side without any other party's change being seen; at most
    `2 * threshold - parties - 1`, and `threshold - 2`."""
    bits: Literal[16, 24, 32] = 32
    """Of one entry on its way: fewer make messages smaller and the grid of the sum coarser."""
    reach: float = 1.0
    """The greatest that one entry of a party's change may be where no clip norm bounds it; entries
    beyond are clamped."""

    def __post_init__(self) -> None:
        require.at_least(2, threshold=self.threshold)
        require.at_least(0, colluders=self.colluders)
        require.positive(reach=self.reach)
        if self.bits not in (16, 24, 32):
            raise BadArgument(f"bits={self.bits} must be 16, 24 or 32")

    def sentence(self) -> str:
        """What the server takes of the changes."""
        return (
            f"their secure sum and sees none of them, as long as {self.threshold} of them answer "
            f"and at most {self.colluders} are on its side"
        )

    def trust(self) -> str:
        """What the secure sum rests on."""
        parties = f"{self.colluders} parties are" if self.colluders != 1 else "one party is"
        return (
            f"At most {parties} on the server's side, the roster's keys are the "
            "parties' own, and each party clips its own change: the server cannot check that, so a "
            "party that does not clip moves the sum as far as it likes."
        )

    def tolerated(self, parties: int) -> int:
        """How many parties may be on the side of a server that does as it likes; below 0 where it
        opens single changes alone.

        With `2 * threshold - parties` colluders it could show two lists of survivors; and of
        `threshold` survivors two honest ones have to be left, or the sum is one party's change.
        """
        return min(2 * self.threshold - parties - 1, self.threshold - 2)

    def grid(self, parties: int, norm: float | None) -> Grid:
        """The grid of a federation; `norm` is the longest a clipped change may be, None where no
        rule bounds it. Raises `ValueError` where the bits hold no sum."""
        largest = self.reach if norm is None else norm
        return Grid(bits=self.bits, parties=parties, largest=largest, norm=norm)

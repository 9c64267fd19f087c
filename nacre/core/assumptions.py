"""What an option says of itself where it has nothing of its own to say."""

from __future__ import annotations

from pathlib import Path


class NoAssumptions:
    """The part of data and models whose guarantees rest on nothing but what every run rests on."""

    def assumptions(self, folder: Path) -> list[str]:
        """Nothing: sentences on what has to hold for the guarantees, one each."""
        return []

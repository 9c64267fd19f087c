"""What a carrier has to do: bytes to its nodes and back. Who a node is, a signature says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol


class Channel(Protocol):
    """The server's end of a carrier, as `flower.superlink` has it; nothing in it is trusted."""

    def nodes(self) -> Mapping[int, str]:
        """The nodes that are there now -> since when, in any words: a node that came back has
        other ones, and has lost what was on its way to it."""
        ...

    def push(self, blobs: Mapping[int, bytes]) -> Mapping[str, int]:
        """Sends each node its bytes; the number of each message that is on its way -> its node."""
        ...

    def pull(self, messages: Collection[str]) -> Mapping[str, bytes | None]:
        """The answers that have arrived to messages of these numbers, at once and each once; None
        for one that will not come, as that of a node that is gone."""
        ...

"""How requests reach the parties. A deployment implements `core.parts.Transport`, nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from nacre.core.errors import PartyError
from nacre.core.parts import Handler


class InProcess:
    """All parties in this process, one after the other, and still every message as bytes.

    What a handler raises goes through to the caller: here a party that fails is a bug or a
    refusal with a reason, never silence.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = dict(handlers)
        self.parties: tuple[str, ...] = tuple(self._handlers)

    def ask(self, requests: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Each party's reply. Raises `PartyError` for a name that no handler has."""
        for name in requests:
            if name not in self._handlers:
                raise PartyError(f"no party {name!r} is here; there are {', '.join(self.parties)}")
        return {name: self._handlers[name](data) for name, data in requests.items()}

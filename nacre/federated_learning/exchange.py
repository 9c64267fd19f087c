"""One request to a whole cohort: as bytes, or as an object to parties in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from nacre.core.parts import Transport
from nacre.federated_learning.messages import Reply, RoundRequest


@runtime_checkable
class Direct(Protocol):
    """A transport to parties in the same process, which may hand objects on in place of bytes."""

    def exchange(self, request: RoundRequest, cohort: Sequence[str]) -> Mapping[str, Reply | bytes]:
        """What these parties reply; an absent name means no answer in time."""
        ...


def exchanged(
    transport: Transport, request: RoundRequest, cohort: Sequence[str]
) -> Mapping[str, Reply | bytes]:
    """What the cohort replies to one request, over whatever way the transport has."""
    if isinstance(transport, Direct):
        return transport.exchange(request, cohort)
    data = request.to_bytes()
    return transport.ask({name: data for name in cohort})

"""A federation with parties at fault in it: a transport around the true one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from nacre.core.errors import BadArgument
from nacre.core.parts import Transport
from nacre.core.random import Source
from nacre.data.dataset import Rows
from nacre.federated_learning.attackers.attacker import Attacker, Seen
from nacre.federated_learning.messages import Reply, RoundRequest


class Infiltrated:
    """The parties of `inner`, of which those at fault send what the attacker makes of the round.

    Every party is asked as usual, so those at fault have trained on what they hold; an omniscient
    attacker then reads all replies of the round before any of its own leaves. A party at fault that
    is silent stays silent. Requests to evaluate pass through. Where changes are compressed, a lie
    is not: it is written as it is, which a server reads as well.
    """

    def __init__(
        self,
        inner: Transport,
        bad: Collection[str],  # names of the parties at fault
        attacker: Attacker,
        source: Source,
    ) -> None:
        """Raises `BadArgument` for a name that is no party's."""
        if unknown := sorted(name for name in set(bad) if name not in inner.parties):
            raise BadArgument(f"bad={unknown} are no parties; there are {', '.join(inner.parties)}")
        self._inner, self._bad = inner, frozenset(bad)
        self._attacker, self._source = attacker, source
        self.parties: Sequence[str] = inner.parties

    def ask(self, requests: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """The replies, those of the parties at fault replaced."""
        answered = self._inner.ask(requests)
        bad = sorted(name for name in answered if name in self._bad)
        asked = RoundRequest.from_bytes(requests[bad[0]]) if bad else None
        if asked is None or asked.kind != "train":
            return answered
        replies = {n: Reply.from_bytes(data, asked.weights) for n, data in answered.items()}
        honest = sorted(name for name in replies if name not in self._bad)
        seen = Seen(
            own=[replies[name].tensors for name in bad],
            honest=[replies[n].tensors for n in honest] if self._attacker.omniscient else [],
            others=len(honest),
            source=self._source.child("round", replies[bad[0]].round),
        )
        lies = zip(bad, self._attacker.changes(seen), strict=True)
        return {
            **answered,
            **{
                name: replace(replies[name], tensors=lie, encoding="float32").to_bytes()
                for name, lie in lies
            },
        }


def infiltrated_rows(
    rows: Mapping[str, Rows], bad: Collection[str], attacker: Attacker, source: Source
) -> dict[str, Rows]:
    """Party -> what it trains on: its rows, or what the attacker makes of them."""
    return {
        name: attacker.rows(held, source.child("rows", name)) if name in bad else held
        for name, held in rows.items()
    }

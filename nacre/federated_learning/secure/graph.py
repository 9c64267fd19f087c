"""Who masks with whom, and who holds shares of whose secrets.

Up to `COMPLETE` parties, everyone with everyone. Beyond, a random Harary graph: the parties are put
on a ring in random order, and each has the k / 2 next ones on either side as neighbours.

What the graph has to give, for a server that may say of any party that it dropped out, with at
most `colluders` parties on its side. Write h = k + 1 for the holders of a party's shares (its
neighbours and itself), t for their threshold, and c for the colluders among them.

1. *One kind of share.* An honest holder gives shares of one kind a party and round. Both kinds of
   secret would take 2 t shares, and h + c are there at most: 2 t > h + c is needed.
2. *One sum.* Honest parties agree on the survivors (`survivors.py`). Let S be a set over which a
   sum is opened and u an honest party in it. The mask that u has with an honest surviving neighbour
   only goes away with that one in S too. So it is enough that u has an honest survivor among the
   k / 2 parties on its right: then S goes on to it, and round the ring to *all* honest survivors.
   Suppose there is none. The k / 2 on the right are dropped or colluders, and not all colluders
   (c < k / 2). Let w be the nearest that is honest; d - 1 colluders stand between. The mask of u
   with w is opened, so t - c honest survivors gave shares of w's key. But w has at most
   k / 2 - (d - 1) on its left, and on its right at most the d that lie more than k / 2 beyond u:
   k / 2 + 1 in all. So t - c > k / 2 + 1 is needed.
   Parties that a server shows a round without dropouts give self shares for all, the list's among
   them, and no share of a key: the masks of w go away by those alone who gave shares for the list.
   Who is in the sum though the list names it has no opened key, so there is no sum without it.

`t = k / 2 + c + 2` gives both. c is the least number that no party has more colluders among its
neighbours than, but with probability 2**-40 over the order on the ring; k is the least even number
for which as many dropouts as the run survives leave each party `t` holders, but with probability
2**-20, where dropouts strike at random. The second decides about rounds that fail, and about
nothing that is learnt.

*Needed:* the order has to be random to those who choose the colluders. It is drawn from numbers
that all parties commit to before any is shown, so one honest party suffices. Colluders that do not
show theirs cost an epoch, and so give 16 tries (`wire.EPOCHS`) and no more.

Source: Bell, Bonawitz, Gascón, Lepoint & Raykova 2020, "Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead", https://eprint.iacr.org/2020/704, section 3 (the graph); the bounds
above are our own, since there dropouts are chosen before the graph is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from nacre.federated_learning.secure.derived import derived_key

COMPLETE = 50
"""Parties up to which everyone is everyone's neighbour."""

_SECURE = 2.0**-40
_CORRECT = 2.0**-20


@dataclass(frozen=True)
class Neighbourhood:
    """The size of a neighbourhood."""

    neighbours: int  # k
    threshold: int  # t, of the k + 1 holders

    def complete(self, parties: int) -> bool:
        """Whether everyone is everyone's neighbour."""
        return self.neighbours == parties - 1


@lru_cache(maxsize=64)
def shape_of(parties: int, threshold: int, colluders: int) -> Neighbourhood:
    """The neighbourhoods of a run of which `threshold` parties have to survive each round."""
    whole = Neighbourhood(parties - 1, threshold)
    if parties <= COMPLETE:
        return whole
    for k in range(4, parties - 1, 2):
        among = _most_colluders(parties, colluders, k)
        needed = k // 2 + among + 2
        if among >= k // 2 or needed > k:
            continue
        lost = _below(parties - 1, threshold - 1, k, needed)
        if parties * lost <= _CORRECT:
            return Neighbourhood(k, needed)
    return whole


def neighbours_of(
    names: Sequence[str],
    shape: Neighbourhood,
    seed: bytes,  # 32; not used where the graph is complete
) -> Mapping[str, tuple[str, ...]]:
    """Each party's neighbours, in the order of their names."""
    ordered = sorted(names)
    if shape.complete(len(ordered)):
        return {own: tuple(n for n in ordered if n != own) for own in ordered}
    ring = sorted(ordered, key=lambda name: derived_key(seed, 32, "place", name))
    size, half = len(ring), shape.neighbours // 2
    return {
        own: tuple(sorted(ring[(i + d) % size] for d in range(-half, half + 1) if d))
        for i, own in enumerate(ring)
    }


def _most_colluders(parties: int, colluders: int, k: int) -> int:
    """c: no party has more of them among its neighbours, but with probability 2**-40."""
    for c in range(min(colluders, k) + 1):
        if parties * _above(parties - 1, colluders, k, c) <= _SECURE:
            return c
    return min(colluders, k)


def _above(population: int, marked: int, drawn: int, count: int) -> float:
    """P[more than `count` of `drawn` are marked], drawn without replacement."""
    return sum(_chance(population, marked, drawn, i) for i in range(count + 1, drawn + 1))


def _below(population: int, marked: int, drawn: int, count: int) -> float:
    """P[fewer than `count` of `drawn` are marked]."""
    return sum(_chance(population, marked, drawn, i) for i in range(count))


def _chance(population: int, marked: int, drawn: int, found: int) -> float:
    if not max(0, drawn - (population - marked)) <= found <= min(marked, drawn):
        return 0.0
    return math.exp(
        _log_choose(marked, found)
        + _log_choose(population - marked, drawn - found)
        - _log_choose(population, drawn)
    )


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

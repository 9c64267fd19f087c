"""Secrets that any `threshold` of their holders can give away, and fewer cannot.

Shamir's scheme over the field of p = 2**255 - 19 elements, with shares that are agreed and not
sent: dealer and holder j both derive share j from a key that the two have in common. Where h
holders have shares, the dealer draws the polynomial P of degree h with

    P(0) = the secret,    P(j) = share j for j = 1 … h

and makes its values at m = h + 1 - threshold further points known: P(h + 1) … P(h + m).

*Guarantee:* any `threshold` shares and the known values are h + 1 values of P, and give it. With
one share fewer nothing is learnt about the secret, as far as the other shares are uniform: given
the secret and those threshold - 1 shares, the known values are an affine map of the m unknown
shares, and a bijection, since P is fixed by any h + 1 of its values. So they are uniform whatever
the secret is.

No share has to be encrypted, sent or kept before it is asked for.

Source: Shamir 1979, "How to share a secret".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from nacre.core.errors import PartyError

PRIME = 2**255 - 19
"""Elements of the field."""
BYTES = 32
"""Of an element, big-endian."""
DRAWN = 48
"""Uniform bytes that give an element whose distance from uniform is at most 2**-128."""


def element(uniform: bytes) -> int:
    """The element that `DRAWN` uniform bytes stand for."""
    if len(uniform) != DRAWN:
        raise ValueError(f"an element is drawn from {DRAWN} bytes, got {len(uniform)}")
    return int.from_bytes(uniform, "big") % PRIME


def known_count(holders: int, threshold: int) -> int:
    """How many values the dealer makes known."""
    return holders + 1 - threshold


def known_values(
    secret: int,
    shares: Sequence[int],  # of the holders, in their order
    threshold: int,
) -> list[int]:  # (holders + 1 - threshold,)
    """What the dealer makes known."""
    values = (secret, *shares)
    rows = _onward(len(shares), threshold)
    return [sum(map(int.__mul__, row, values)) % PRIME for row in rows]


def recovered(
    shares: Mapping[int, int],  # place of a holder, from 1 -> its share; at least `threshold`
    known: Sequence[int],
    holders: int,
    threshold: int,
) -> int:
    """The secret. Raises `PartyError` for fewer shares than the threshold.

    Of more shares those of the first places are taken. A wrong share gives a wrong secret: the
    caller has something to compare it with.
    """
    if len(shares) < threshold:
        raise PartyError(
            f"{len(shares)} parties gave their shares of a secret that takes {threshold}"
        )
    places = tuple(sorted(shares))[:threshold]
    points = (*places, *range(holders + 1, holders + 1 + known_count(holders, threshold)))
    values = (*(shares[place] for place in places), *known)
    return sum(map(int.__mul__, _weights(points, 0), values)) % PRIME


def to_bytes(values: Sequence[int]) -> bytes:
    """Elements one after the other."""
    return b"".join(value.to_bytes(BYTES, "big") for value in values)


def from_bytes(data: bytes) -> list[int]:
    """What `to_bytes` wrote. Raises `ValueError` for bytes that are no elements."""
    if len(data) % BYTES:
        raise ValueError("shares are not whole elements of the field")
    found = [int.from_bytes(data[i : i + BYTES], "big") for i in range(0, len(data), BYTES)]
    if any(value >= PRIME for value in found):
        raise ValueError("a share is no element of the field")
    return found


@lru_cache(maxsize=64)
def _onward(holders: int, threshold: int) -> tuple[tuple[int, ...], ...]:
    """The weights of P(0) … P(h) in each value that is made known."""
    points = tuple(range(holders + 1))
    count = known_count(holders, threshold)
    return tuple(_weights(points, holders + 1 + i) for i in range(count))


@lru_cache(maxsize=1024)
def _weights(points: tuple[int, ...], at: int) -> tuple[int, ...]:
    """Lagrange's weights: P(at) is the sum of weight times P(point), for any P of that degree."""
    found: list[int] = []
    for own in points:
        above = below = 1
        for other in points:
            if other != own:
                above = above * (at - other) % PRIME
                below = below * (own - other) % PRIME
        found.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(found)

"""Any threshold of shares gives a secret, and one fewer gives every secret."""

import itertools
import random

import pytest

from nacre.core.errors import PartyError
from nacre.federated_learning.secure import sharing
from nacre.federated_learning.secure.sharing import PRIME, known_values, recovered

RNG = random.Random(1)


def drawn(count):
    return [RNG.randrange(PRIME) for _ in range(count)]


@pytest.mark.parametrize(("holders", "threshold"), [(1, 1), (3, 2), (5, 1), (5, 4), (6, 6)])
def test_any_threshold_of_shares_gives_the_secret(holders, threshold):
    secret, shares = drawn(1)[0], drawn(holders)
    known = known_values(secret, shares, threshold)
    assert len(known) == holders + 1 - threshold
    for some in itertools.combinations(range(holders), threshold):
        given = {i + 1: shares[i] for i in some}
        assert recovered(given, known, holders, threshold) == secret
    every = {i + 1: share for i, share in enumerate(shares)}
    assert recovered(every, known, holders, threshold) == secret
    with pytest.raises(PartyError):
        recovered(dict(list(every.items())[: threshold - 1]), known, holders, threshold)


@pytest.mark.parametrize(("holders", "threshold"), [(3, 2), (5, 4), (6, 6), (7, 3)])
def test_one_share_fewer_fits_every_secret(holders, threshold):
    """For any other secret there are other shares of those who keep theirs, and one choice of them
    only, with which the dealer would have made the same values known."""
    secret, shares = drawn(1)[0], drawn(holders)
    known = known_values(secret, shares, threshold)
    given = shares[: threshold - 1]
    for other in (0, 1, *drawn(5)):
        points = (0, *range(1, threshold), *range(holders + 1, holders + 1 + len(known)))
        values = (other, *given, *known)
        rest = [
            sum(w * v for w, v in zip(sharing._weights(points, at), values, strict=True)) % PRIME
            for at in range(threshold, holders + 1)
        ]
        assert known_values(other, [*given, *rest], threshold) == known


def test_a_wrong_share_gives_another_secret():
    secret, shares = drawn(1)[0], drawn(5)
    known = known_values(secret, shares, 3)
    for place in (1, 2, 3):
        given = {1: shares[0], 2: shares[1], 3: shares[2]}
        given[place] = (given[place] + 1) % PRIME
        assert recovered(given, known, 5, 3) != secret


def test_bytes_are_those_of_elements():
    values = [0, 1, PRIME - 1, *drawn(3)]
    assert sharing.from_bytes(sharing.to_bytes(values)) == values
    for data in (b"x", bytes(31), PRIME.to_bytes(32, "big"), bytes([255]) * 32):
        with pytest.raises(ValueError, match="share"):
            sharing.from_bytes(data)
    assert sharing.element(bytes(47) + b"\x05") == 5
    assert sharing.element(bytes([255]) * 48) < PRIME
    with pytest.raises(ValueError, match="48"):
        sharing.element(bytes(32))

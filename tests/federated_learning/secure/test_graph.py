"""Neighbourhoods that no server splits, with at most so few colluders in each."""

import itertools
import random

import pytest
from scipy import stats

from nacre.federated_learning.secure import graph
from nacre.federated_learning.secure.graph import COMPLETE, Neighbourhood, neighbours_of, shape_of

RUNS = [
    (51, 40, 1),
    (100, 70, 1),
    (100, 80, 5),
    (500, 400, 1),
    (500, 400, 25),
    (1000, 700, 10),
]


def test_few_parties_are_all_neighbours():
    for parties, threshold in ((3, 3), (10, 7), (COMPLETE, 40)):
        shape = shape_of(parties, threshold, 1)
        assert shape == Neighbourhood(parties - 1, threshold)
        names = [f"p{i}" for i in range(parties)]
        near = neighbours_of(names, shape, b"")
        assert all(set(near[name]) == set(names) - {name} for name in names)


@pytest.mark.parametrize(("parties", "threshold", "colluders"), RUNS)
def test_many_parties_have_few_neighbours_that_suffice(parties, threshold, colluders):
    shape = shape_of(parties, threshold, colluders)
    k, t = shape.neighbours, shape.threshold
    assert k % 2 == 0
    assert k < parties - 1
    among = t - k // 2 - 2
    assert 2 * t > k + 1 + among  # one kind of share
    assert among < k // 2
    tail = stats.hypergeom(parties - 1, colluders, k).sf(among)
    assert parties * tail <= 2**-40
    lost = stats.hypergeom(parties - 1, threshold - 1, k).cdf(t - 1)
    assert parties * lost <= 2**-20


def test_too_many_colluders_or_dropouts_need_everyone():
    assert shape_of(60, 31, 1).complete(60)
    assert shape_of(60, 60, 58).complete(60)


def test_the_ring_is_mutual_random_and_follows_its_seed():
    names = [f"p{i}" for i in range(60)]
    shape = Neighbourhood(10, 8)
    near = neighbours_of(names, shape, bytes(32))
    assert all(len(set(near[n])) == 10 and n not in near[n] for n in names)
    assert all(n in near[other] for n in names for other in near[n])
    assert neighbours_of(names[::-1], shape, bytes(32)) == near
    assert neighbours_of(names, shape, bytes([1]) * 32) != near


def _opened(ring, k, t, colluders, dropped):
    """Sets of honest survivors over which a server opens a sum, of a ring in order.

    It has the shares of honest survivors of one view, and those of the colluders."""
    size = len(ring)
    near = {i: [(i + d) % size for d in range(-k // 2, k // 2 + 1) if d] for i in ring}
    honest = [i for i in ring if i not in colluders and i not in dropped]

    def opens(i, own):
        holders = [*near[i], *([i] if own else [])]
        return sum(j in colluders or j not in dropped for j in holders) >= t

    left, found = set(honest), []
    while left:
        part, todo = set(), [next(iter(left))]
        while todo:
            i = todo.pop()
            if i in left:
                left.discard(i)
                part.add(i)
                todo += [j for j in near[i] if j in left]
        gone = {j for i in part for j in near[i] if j in dropped and j not in colluders}
        if all(opens(i, True) for i in part) and all(opens(j, False) for j in gone):
            found.append(part)
    return found, set(honest)


def _splits(t, k=6, size=18):
    """Views with which a server opens a sum over some honest survivors and not all."""
    ring, found = range(size), 0
    for bad in ((), (0,), (0, 9)):  # at most one among the neighbours of anyone
        arcs = [
            {(a + i) % size for i in range(la)} | {(b + i) % size for i in range(lb)}
            for a, b in itertools.combinations(ring, 2)
            for la in range(1, 6)
            for lb in range(1, 6)
        ]
        rng = random.Random(3)
        arcs += [set(rng.sample(ring, rng.randrange(1, 12))) for _ in range(2000)]
        for dropped in arcs:
            parts, honest = _opened(ring, k, t, set(bad), dropped - set(bad))
            found += any(part != honest for part in parts)
    return found


def test_no_choice_of_dropouts_opens_a_part_of_the_sum():
    """By search over pairs of arcs and random sets; with a threshold of half the neighbours there
    are such choices, so the search finds what there is to find."""
    k, among = 6, 1
    assert _splits(k // 2 + among + 2) == 0
    assert _splits(k // 2) > 0


def test_chances_are_those_of_draws_without_replacement():
    for population, marked, drawn in ((20, 5, 8), (99, 70, 40)):
        law = stats.hypergeom(population, marked, drawn)
        for count in range(drawn + 1):
            assert graph._above(population, marked, drawn, count) == pytest.approx(
                law.sf(count), abs=1e-12
            )
            assert graph._below(population, marked, drawn, count) == pytest.approx(
                law.cdf(count - 1), abs=1e-12
            )

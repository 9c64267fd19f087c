"""What holds for every aggregate: order does not matter, and how many liars it takes to win.

A wrapped rule is listed beside it, so that what holds of a rule holds behind buckets and mixing.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import trim_mean

from nacre.core.errors import BadArgument, PartyError, Unbounded
from nacre.core.random import Source
from nacre.core.tensors import norm, subtract
from nacre.core.types import BoundedSum
from nacre.differential_privacy.noise.independent import Gaussian
from nacre.federated_learning import (
    AGGREGATES,
    Bucketing,
    CentredClipping,
    FLTrust,
    GeometricMedian,
    Krum,
    MeanAggregate,
    Median,
    MultiKrum,
    NearestNeighbourMixing,
    NormBound,
    RoundFacts,
    TrimmedMean,
)

FAR = 1e6  # a length that no contribution below has, so a norm or radius of it changes nothing


@dataclass(frozen=True)
class Made:
    """A rule built for f parties at fault, and what is true of it beside what it says itself."""

    rule: object
    moves_along: bool = True  # all contributions plus one vector give the result plus that vector

    def __repr__(self):
        before = getattr(self.rule, "before", None)
        return self.rule.kind + ("" if before is None else f" before {before.kind}")


def made(bad):
    rules = [
        Made(MeanAggregate()),
        Made(NormBound(norm=FAR, bad=bad)),
        Made(Median(bad=bad)),
        Made(TrimmedMean(bad=bad)),
        Made(GeometricMedian(bad=bad)),
        Made(Krum(bad=bad)),
        Made(MultiKrum(bad=bad)),
        Made(CentredClipping(radius=FAR, bad=bad)),
        Made(CentredClipping(bad=bad)),
        Made(FLTrust(bad=bad), moves_along=False),
    ]
    withstood = [each for each in rules if each.rule.robust]
    rules += [Made(Bucketing(before=each.rule), each.moves_along) for each in withstood]
    if bad:
        rules += [Made(NearestNeighbourMixing(before=e.rule), e.moves_along) for e in withstood]
    return rules


aggregates = pytest.mark.parametrize("made", made(2), ids=repr)
numbers = st.floats(-100, 100, width=32)
rows_of_three = st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=13, max_size=17)


def _contributions(rows):
    return [{"a": torch.tensor(row[:2]), "b": torch.tensor(row[2:])} for row in rows]


def _drawn(count, size, seed, scale=1.0):
    stream = torch.Generator().manual_seed(seed)
    return [
        {
            "a": scale * torch.randn(size, generator=stream),
            "b": scale * torch.randn(1, generator=stream),
        }
        for _ in range(count)
    ]


def _direction(rule, contributions, expected=None, round_number=0):
    """The direction, with the first contribution as that of the public rows."""
    expected = float(len(contributions)) if expected is None else expected
    known = RoundFacts(round_number, root=contributions[0])
    total = rule.total(contributions, expected, known)
    return {name: value / expected for name, value in total.items()}


def _flat(tensors):
    return torch.cat([value.reshape(-1) for value in tensors.values()]).double()


def _matrix(contributions):
    return torch.stack([_flat(each) for each in contributions]).numpy()


def test_every_aggregate_is_among_them():
    assert {type(each.rule) for each in made(2)} == set(AGGREGATES)


# Order


@aggregates
def test_the_order_of_the_parties_does_not_matter(made):
    """Buckets follow the order of the names, in which a gather gives the contributions."""
    if isinstance(made.rule, Bucketing):
        return
    for seed in range(5):
        drawn = _drawn(13, 4, seed)
        order = np.random.default_rng(seed).permutation(12) + 1  # the first one is the root
        shuffled = [drawn[0], *(drawn[i] for i in order)]
        apart = subtract(_direction(made.rule, drawn), _direction(made.rule, shuffled))
        assert norm(apart) <= 1e-5


@pytest.mark.slow
@aggregates
@given(rows=rows_of_three, random=st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_nor_where_contributions_tie(made, rows, random):
    """As whole numbers do: those who tie count alike."""
    if isinstance(made.rule, Bucketing):
        return
    rows = [[float(round(value / 50)) for value in row] for row in rows]
    given_order = _contributions(rows)
    tail = given_order[1:]
    random.shuffle(tail)
    shuffled = [given_order[0], *tail]
    apart = subtract(_direction(made.rule, given_order), _direction(made.rule, shuffled))
    assert norm(apart) <= 1e-4


def test_buckets_follow_from_seed_and_round_alone():
    drawn, other = _drawn(10, 20, 0), _drawn(10, 20, 1)
    rule = Bucketing(size=3, before=Median())

    def members(contributions):
        """Of how many each bucket is the mean, and which they are."""
        inverse = np.linalg.pinv(_matrix(contributions).T)
        weights = [inverse @ _flat(each).numpy() for each in rule.buckets(contributions, 0)]
        return [sorted(np.flatnonzero(each > 0.1).tolist()) for each in weights]

    assert members(drawn) == members(other)
    assert sorted(place for each in members(drawn) for place in each) == list(range(10))
    assert [len(each) for each in members(drawn)] == [3, 3, 3, 1]
    first, again = rule.buckets(drawn, 4), rule.buckets(drawn, 4)
    assert all(torch.equal(_flat(a), _flat(b)) for a, b in zip(first, again, strict=True))
    others = [rule.buckets(drawn, 5), Bucketing(size=3, before=Median(), seed=1).buckets(drawn, 4)]
    for another in others:
        same = zip(first, another, strict=True)
        assert not all(torch.allclose(_flat(a), _flat(b)) for a, b in same)
    # Each contribution is in one bucket: the means times their sizes add up to the whole.
    sizes = [3.0, 3.0, 3.0, 1.0]
    whole = sum(size * _flat(bucket) for size, bucket in zip(sizes, first, strict=True))
    assert torch.allclose(whole, torch.tensor(_matrix(drawn).sum(0)), atol=1e-5)


# What a direction is of honest parties alone


@aggregates
def test_equal_contributions_aggregate_to_themselves(made):
    one = {"a": torch.tensor([3.0, -7.0]), "b": torch.tensor([0.5])}
    for count in (made.rule.least, made.rule.least + 3):
        direction = _direction(made.rule, [one] * count, expected=4.0 * count / 4)
        assert torch.allclose(_flat(direction), _flat(one), rtol=1e-5)


@aggregates
def test_names_and_shapes_stay_in_order(made):
    one = {"z": torch.ones(2, 3), "a": torch.ones(())}
    total = made.rule.total([one] * 13, 13.0, RoundFacts(root=one))
    assert [(name, value.shape, value.dtype) for name, value in total.items()] == [
        ("z", torch.Size([2, 3]), torch.float32),
        ("a", torch.Size([]), torch.float32),
    ]


@aggregates
def test_what_all_send_more_the_direction_has_more(made):
    if not made.moves_along:
        return
    for seed in range(3):
        drawn = _drawn(14, 4, seed)
        moved = [{name: value + 3.0 for name, value in each.items()} for each in drawn]
        before, after = _direction(made.rule, drawn), _direction(made.rule, moved)
        assert torch.allclose(_flat(before) + 3.0, _flat(after), atol=1e-4)


@aggregates
def test_the_expected_number_only_scales(made):
    """Of the sums it is the divisor, and of the others a factor that the update takes off."""
    drawn = _drawn(13, 4, 0)
    known = RoundFacts(root=drawn[0])
    one, other = (made.rule.total(drawn, expected, known) for expected in (13.0, 26.0))
    summed = isinstance(made.rule, MeanAggregate | NormBound | CentredClipping)
    assert torch.allclose(_flat(one) * (1.0 if summed else 2.0), _flat(other), rtol=1e-5)


# Parties at fault


def _honest_mean(contributions):
    return torch.tensor(_matrix(contributions).mean(0))


LIES = {
    "huge": lambda honest, drawn: [{n: torch.full_like(v, 1e30) for n, v in drawn.items()}],
    "opposite": lambda honest, drawn: [{n: -30 * v for n, v in drawn.items()}],
    "alike": lambda honest, drawn: [{n: v * 0 + 5.0 for n, v in drawn.items()}],
    "near": lambda honest, drawn: [{n: v + 1.2 for n, v in honest[0].items()}],
}


@pytest.mark.parametrize("lie", LIES)
@aggregates
def test_parties_at_fault_move_it_no_further_than_it_says(made, lie):
    """(f, kappa)-robustness, by its definition; of one without a kappa, what it states instead."""
    bad, count = 2, 15
    for seed in range(6):
        drawn = _drawn(count, 20, seed)
        honest = drawn[bad:]
        lies = LIES[lie](honest, drawn[0]) * bad
        direction = _flat(_direction(made.rule, [*honest, *lies]))
        mean = _honest_mean(honest)
        spread = float((torch.tensor(_matrix(honest)) - mean).square().sum(1).mean())
        apart = float((direction - mean).square().sum())
        kappa = made.rule.kappa(count)
        if math.isfinite(kappa):
            assert apart <= kappa * spread * 1.001
        farthest = float((torch.tensor(_matrix(honest)) - mean).norm(dim=1).max())
        if isinstance(made.rule, Bucketing) and math.isfinite(made.rule.before.kappa(8)):
            within = (1 + math.sqrt(made.rule.before.kappa(8))) * farthest
            assert math.sqrt(apart) <= within * 1.001
        if isinstance(made.rule, FLTrust):  # no longer than that of the public rows
            assert float(direction.norm()) <= float(_flat(honest[0]).norm()) * 1.0001


@pytest.mark.slow
@pytest.mark.parametrize("bad", [1, 2, 3, 5])
def test_kappa_holds_on_the_worst_of_many_draws(bad):
    """Adversarial placements by random search: the stated kappa is never passed, and the one of the
    mean would be."""
    count = 3 * bad + 3
    generator = np.random.default_rng(bad)
    rules = [each.rule for each in made(bad) if math.isfinite(each.rule.kappa(count))]
    assert {rule.kind for rule in rules} == {
        "median", "trimmed_mean", "geometric_median", "krum", "multi_krum",
        "nearest_neighbour_mixing",
    }  # fmt: skip
    for _ in range(150):
        honest = generator.normal(size=(count - bad, 3)) * generator.choice([0.01, 1, 30], size=3)
        honest = honest * (generator.random((count - bad, 1)) < generator.random()) + 1.0
        way = generator.normal(size=3) * 10 ** generator.uniform(-2, 6)
        lies = honest.mean(0) + np.repeat(way[None], bad, 0)
        rows = np.concatenate([honest, lies]).astype(np.float32)
        contributions = [{"a": torch.tensor(row)} for row in rows]
        mean = rows[: count - bad].astype(float).mean(0)
        spread = np.square(rows[: count - bad] - mean).sum(1).mean()
        for rule in rules:
            found = _flat(_direction(rule, contributions)).numpy()
            apart = np.square(found - mean).sum()
            assert apart <= rule.kappa(count) * spread * 1.01 + 1e-8, rule


def test_a_bounded_sum_is_moved_by_at_most_its_norm_a_party():
    honest = _drawn(10, 4, 0, scale=0.1)
    for rule in (NormBound(norm=0.5), CentredClipping(radius=0.5)):
        alone = rule.total(honest, 12.0)
        lies = [{"a": torch.full((4,), 1e30), "b": torch.ones(1)}] * 2
        moved = subtract(rule.total([*honest, *lies], 12.0), alone)
        assert norm(moved) <= 2 * 0.5 * (1 + 1e-6)


@pytest.mark.slow
@given(st.integers(1, 6), st.lists(numbers, min_size=13, max_size=13), st.data())
@settings(max_examples=50, deadline=None)
def test_fewer_than_half_cannot_move_the_median_out_of_the_honest_range(liars, values, data):
    honest = values[: liars + 1]
    lies = data.draw(
        st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=liars, max_size=liars)
    )
    contributions = [{"a": torch.tensor([value])} for value in honest + lies]
    slack = 1e-5 * max(1.0, *(abs(value) for value in honest))
    for rule in (Median(bad=liars), TrimmedMean(bad=liars)):
        found = float(_direction(rule, contributions, 1.0)["a"])
        assert min(honest) - slack <= found <= max(honest) + slack


def test_half_of_them_can_move_the_median_and_one_the_mean():
    def contributions(*values):
        return [{"a": torch.tensor([value])} for value in values]

    assert _direction(Median(), contributions(0.0, 0.0, 1e6, 1e6))["a"] > 1e5
    assert _direction(MeanAggregate(), contributions(0.0, 0.0, 0.0, 1e6))["a"] > 1e5


@aggregates
def test_large_numbers_never_become_no_number(made):
    """Sums of float32 that overflow both ways would: inf - inf."""
    signs = [1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, -1.0, 1.0, 1.0, 1.0, -1.0, 1.0]
    for largest in (3e38, 1e20):
        drawn = [
            {"a": torch.tensor([s * largest, 1.0]), "b": torch.ones(40) * s * largest}
            for s in signs
        ]
        total = made.rule.total(drawn, 13.0, RoundFacts(root=drawn[0]))
        assert all(bool(torch.isfinite(value).all()) for value in total.values())


@aggregates
def test_too_few_contributions_are_refused(made):
    """Where the sum is bounded, an error would tell of one party, and none is raised."""
    if made.rule.least < 2 or math.isfinite(made.rule.bound(1.0)):
        return
    drawn = _drawn(made.rule.least - 1, 3, 0)
    with pytest.raises(PartyError, match=f"needs {made.rule.least}; see that the parties run"):
        _direction(made.rule, drawn)
    assert _direction(made.rule, _drawn(made.rule.least, 3, 0))


# References


@given(rows_of_three)
@settings(max_examples=30, deadline=None)
def test_the_mean_is_the_arithmetic_mean(rows):
    mean = _direction(MeanAggregate(), _contributions(rows))
    assert torch.allclose(torch.cat([mean["a"], mean["b"]]), torch.tensor(rows).mean(0), atol=1e-4)


@given(rows_of_three, st.floats(0.5, 50))
@settings(max_examples=30, deadline=None)
def test_the_median_is_numpys_whatever_is_expected(rows, expected):
    median = _direction(Median(), _contributions(rows), expected)
    found = torch.cat([median["a"], median["b"]]).numpy()
    assert np.allclose(found, np.median(np.array(rows), axis=0), rtol=1e-4, atol=1e-5)


@given(rows_of_three, st.integers(0, 6))
@settings(max_examples=30, deadline=None)
def test_the_trimmed_mean_is_scipys(rows, bad):
    found = _flat(_direction(TrimmedMean(bad=bad), _contributions(rows))).numpy()
    theirs = trim_mean(np.array(rows), (bad + 0.5) / len(rows), axis=0)
    assert np.allclose(found, theirs, rtol=1e-4, atol=1e-4)


def _spelt_out(rule, rows, root, round_number):
    """The direction by the paper's words, one party at a time, in float64."""
    n, f = len(rows), rule.faults

    def apart(i, j):
        return float(sum((a - b) ** 2 for a, b in zip(rows[i], rows[j], strict=True)))

    def length(row):
        return math.sqrt(sum(value**2 for value in row))

    if isinstance(rule, MeanAggregate):
        return sum(rows) / n
    if isinstance(rule, NormBound):
        return sum(row * min(1.0, rule.norm / length(row)) for row in rows) / n
    if isinstance(rule, CentredClipping):
        radius = math.inf if rule.radius is None else rule.radius
        return sum(row * min(1.0, radius / length(row)) for row in rows) / n
    if isinstance(rule, Median):
        return np.array([np.median([row[k] for row in rows]) for k in range(len(rows[0]))])
    if isinstance(rule, TrimmedMean):
        columns = [sorted(row[k] for row in rows)[f : n - f] for k in range(len(rows[0]))]
        return np.array([sum(column) / len(column) for column in columns])
    if isinstance(rule, Krum | MultiKrum):
        scores = []
        for i in range(n):
            others = sorted(apart(i, j) for j in range(n) if j != i)
            scores.append(sum(others[: n - f - 2]))
        keep = 1 if isinstance(rule, Krum) else n - f
        last = sorted(scores)[keep - 1]
        best = [i for i in range(n) if scores[i] < last * (1 - 1e-9)]
        tied = [i for i in range(n) if abs(scores[i] - last) <= 1e-9 * last]
        share = (keep - len(best)) / len(tied)  # mixing makes contributions that are the same
        return (sum(rows[i] for i in best) + share * sum(rows[i] for i in tied)) / keep
    if isinstance(rule, FLTrust):
        trust = [max(0.0, float(row @ root) / length(row) / length(root)) for row in rows]
        scaled = [t * row * length(root) / length(row) for t, row in zip(trust, rows, strict=True)]
        return sum(scaled) / sum(trust) if sum(trust) > 0 else 0 * root
    if isinstance(rule, NearestNeighbourMixing):
        mixed = []
        for i in range(n):
            nearest = sorted(range(n), key=lambda j: apart(i, j))[: n - f]
            mixed.append(sum(rows[j] for j in nearest) / (n - f))
        return _spelt_out(rule.before, mixed, root, round_number)
    assert isinstance(rule, Bucketing)
    contributions = [{"a": torch.tensor(row)} for row in rows]
    buckets = [_flat(b).numpy() for b in rule.buckets(contributions, round_number)]
    return _spelt_out(rule.before, buckets, root, round_number)


@aggregates
def test_it_is_what_the_paper_says(made):
    inner = getattr(made.rule, "before", made.rule)
    if isinstance(inner, GeometricMedian):
        return  # by an oracle, below
    for seed in range(3):
        drawn = _drawn(14, 5, seed)
        rows = list(_matrix(drawn))
        found = _flat(_direction(made.rule, drawn, round_number=3)).numpy()
        assert np.allclose(found, _spelt_out(made.rule, rows, rows[0], 3), atol=1e-5)


@pytest.mark.parametrize("length", [0.5, 2.0])
def test_what_is_longer_is_scaled_down(length):
    for rule in (NormBound(norm=length), CentredClipping(radius=length)):
        drawn = _drawn(6, 5, 0)
        rows = list(_matrix(drawn))
        found = _flat(_direction(rule, drawn)).numpy()
        assert np.allclose(found, _spelt_out(rule, rows, None, 0), atol=1e-6)
        assert not np.allclose(found, sum(rows) / 6, atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_the_geometric_median_has_the_least_sum_of_distances(seed):
    """By a second route: scipy's minimiser, from several starts."""
    drawn = _drawn(9, 4, seed)
    rows = _matrix(drawn)
    rows[:3] += 20.0
    contributions = [{"a": torch.tensor(row, dtype=torch.float32)} for row in rows]

    def distances(point):
        return np.linalg.norm(rows - point, axis=1).sum()

    found = _flat(_direction(GeometricMedian(), contributions)).numpy()
    best = min(
        minimize(distances, start, method="BFGS", options={"gtol": 1e-9}).fun
        for start in (rows.mean(0), np.median(rows, axis=0))
    )
    assert distances(found) <= best + 1e-5


def test_the_geometric_median_of_a_line_is_its_median_and_of_a_triangle_fermats_point():
    line = [{"a": torch.tensor([value, 2 * value])} for value in (0.0, 1.0, 1e30)]
    assert torch.allclose(
        _direction(GeometricMedian(), line)["a"], torch.tensor([1.0, 2.0]), atol=1e-4
    )
    # Of an equilateral triangle it is the centre, and of an obtuse one its obtuse corner.
    corners = [[0.0, 0.0], [2.0, 0.0], [1.0, math.sqrt(3)]]
    triangle = [{"a": torch.tensor(corner)} for corner in corners]
    centre = torch.tensor([1.0, 1 / math.sqrt(3)])
    assert torch.allclose(_direction(GeometricMedian(), triangle)["a"], centre, atol=1e-5)
    corners = [[0.0, 0.1], [-5.0, 0.0], [5.0, 0.0]]
    obtuse = [{"a": torch.tensor(corner)} for corner in corners]
    found = _direction(GeometricMedian(), obtuse)["a"]
    assert torch.allclose(found, torch.tensor([0.0, 0.1]), atol=1e-3)


def test_nobody_who_disagrees_with_the_public_rows_is_trusted():
    root = {"a": torch.tensor([1.0, 0.0])}
    known = RoundFacts(root=root)
    against = [{"a": torch.tensor([-2.0, 0.3])}, {"a": torch.tensor([-1e30, 0.0])}]
    assert norm(FLTrust().total(against, 2.0, known)) == 0.0
    one = FLTrust().total([*against, {"a": torch.tensor([50.0, 0.0])}], 1.0, known)
    assert torch.allclose(one["a"], torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="public rows"):
        FLTrust().total(against, 2.0)


# Bounds and declared numbers


@aggregates
def test_a_finite_bound_is_kept_under_neighbours(made):
    bound = made.rule.bound(1.0)
    if math.isinf(bound):
        with pytest.raises(Unbounded):
            total = BoundedSum({"a": torch.zeros(1)}, bound)
            Gaussian(multiplier=1.0).add(total, None, Source(bytes(32)), "add_or_remove")
        return
    stream = torch.Generator().manual_seed(0)
    units = [
        torch.nn.functional.normalize(torch.randn(4, generator=stream), dim=0) for _ in "12345"
    ]
    contributions = [{"a": unit} for unit in units]
    whole, without = (made.rule.total(c, 5.0) for c in (contributions, contributions[1:]))
    assert norm(subtract(whole, without)) <= bound + 1e-6


@aggregates
def test_it_says_what_it_withstands_and_needs(made):
    rule, facts = made.rule, made.rule.facts(25)
    assert facts["kind"] == rule.kind
    assert facts["bad"] == rule.faults == (0 if isinstance(rule, MeanAggregate) else 2)
    assert facts["least"] == rule.least <= 25
    assert facts["kappa"] is None or 0 < facts["kappa"] < 100
    assert rule.limits().endswith(".") and len(rule.limits()) > 40
    at_half = rule.kappa(4)
    assert math.isinf(at_half), "half of the parties at fault are withstood by nobody"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: NormBound(norm=0.0), "norm=0.0 must be > 0"),
        (lambda: NormBound(norm=math.nan), "norm=nan must be > 0"),
        (lambda: CentredClipping(radius=-1.0), "radius=-1.0 must be > 0"),
        (lambda: TrimmedMean(bad=-1), "bad=-1 must be at least 0"),
        (lambda: Krum(bad=-1), "bad=-1 must be at least 0"),
        (lambda: MultiKrum(bad=1, keep=0), "keep=0 must be at least 1"),
        (lambda: GeometricMedian(smoothing=0.0), "smoothing=0.0 must be > 0"),
        (lambda: Bucketing(size=1, before=Median()), "size=1 must be at least 2"),
        (lambda: Bucketing(before=MeanAggregate()), "withstood by nobody"),
        (lambda: NearestNeighbourMixing(before=MeanAggregate()), "withstood by nobody"),
        (lambda: NearestNeighbourMixing(before=Median()), "declares no party at fault"),
    ],
)
def test_numbers_that_make_no_rule_are_refused(make, sentence):
    with pytest.raises(BadArgument, match=sentence):
        make()

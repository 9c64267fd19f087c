import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nacre.core.errors import DataError, Incompatible
from nacre.data.dataset import Rows
from nacre.data.partition import ByColumn, Dirichlet, Uniform

NAMES = ("east", "north", "south")
SIMULATED = [
    Uniform(names=NAMES),
    Dirichlet(names=NAMES, alpha=0.3),
    Dirichlet(names=NAMES, alpha=1e-3),
]


def rows(count, classes=3, groups=None, party=None):
    features = torch.arange(count, dtype=torch.float32)[:, None]
    group = None if groups is None else tuple(f"g{i % groups}" for i in range(count))
    return Rows(features, torch.arange(count) % classes, group, party)


def held(parts):
    return {name: part.features[:, 0].tolist() for name, part in parts.items()}


@pytest.mark.slow
@pytest.mark.parametrize("option", SIMULATED)
@given(count=st.integers(3, 60), seed=st.integers(0, 5))
def test_every_row_has_one_party_and_sizes_are_as_declared(option, count, seed):
    parts = option.split(rows(count), "example", seed)
    assert {name: len(part) for name, part in parts.items()} == option.declared_sizes(count)
    assert sorted(x for part in held(parts).values() for x in part) == list(range(count))


@pytest.mark.parametrize("option", SIMULATED)
def test_a_group_stays_in_one_party(option):
    parts = option.split(rows(60, groups=20), "group", 0)
    groups = [set(part.group) for part in parts.values()]
    assert sum(len(found) for found in groups) == 20
    assert [len(found) for found in groups] == list(option.declared_sizes(20).values())


@pytest.mark.parametrize("option", SIMULATED)
def test_the_seed_fixes_who_holds_what(option):
    first, again, other = (held(option.split(rows(60), "example", s)) for s in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("option", SIMULATED)
def test_fewer_units_than_parties_are_refused(option):
    with pytest.raises(DataError, match="fewer units than the 3 parties"):
        option.split(rows(2), "example", 0)


def largest_share(alpha):
    """The share of its commonest class, averaged over ten parties."""
    option = Dirichlet(names=tuple("abcdefghij"), alpha=alpha)
    parts = option.split(rows(2000, classes=5), "example", 0).values()
    return sum(float(torch.bincount(p.label).max()) / len(p) for p in parts) / 10


@pytest.mark.slow
def test_a_small_alpha_parts_the_classes_and_a_large_one_does_not():
    assert largest_share(0.05) > 0.7
    assert largest_share(1000.0) < 0.35


def test_a_regression_has_no_classes_to_part():
    values = Rows(torch.zeros(9, 1), torch.zeros(9))
    with pytest.raises(Incompatible, match="a regression has none"):
        Dirichlet(names=NAMES, alpha=1).split(values, "example", 0)


def test_a_column_says_who_holds_a_row():
    option = ByColumn(column="ward", sizes={"a": 2, "b": 1})
    assert option.names == ("a", "b")
    assert option.declared_sizes(3) == {"a": 2, "b": 1}
    parts = option.split(rows(3, party=("b", "a", "a")), "example", 0)
    assert held(parts) == {"a": [1, 2], "b": [0]}


@pytest.mark.parametrize(
    ("party", "message"),
    [
        (None, "the data name no parties"),
        (("a", "b", "c"), "names party 'c', which `sizes` does not declare"),
        (("a", "a", "a"), "belongs to party 'b'"),
    ],
)
def test_a_column_that_does_not_fit_is_refused(party, message):
    with pytest.raises(DataError, match=message):
        ByColumn(column="ward", sizes={"a": 2, "b": 1}).split(rows(3, party=party), "example", 0)


def test_declared_sizes_must_cover_the_data():
    with pytest.raises(Incompatible, match=r"add up to 3 and `data\.size` is 4"):
        ByColumn(column="ward", sizes={"a": 2, "b": 1}).declared_sizes(4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(names=()), "at least one party"),
        (lambda: Uniform(names=("a", "a")), "must differ"),
        (lambda: Uniform(names=("a/b",)), "without slashes"),
        (lambda: Dirichlet(names=("a",), alpha=0), "alpha=0 must lie between"),
        (lambda: ByColumn(column="x", sizes={}), "at least one party"),
        (lambda: ByColumn(column="x", sizes={"a": 0}), "a=0 must be at least 1"),
    ],
)
def test_impossible_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

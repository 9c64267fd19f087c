import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nacre.core.errors import DataError, Incompatible
from nacre.data.dataset import Rows
from nacre.data.partition import (
    PARTITIONS,
    ByColumn,
    Counted,
    Dirichlet,
    LabelSorted,
    QuantitySkew,
    Uniform,
)

NAMES = ("east", "north", "south")
SIMULATED = [
    Uniform(names=NAMES),
    Dirichlet(names=NAMES, alpha=0.3),
    Dirichlet(names=NAMES, alpha=1e-3),
    LabelSorted(names=NAMES, shards=1),
    QuantitySkew(names=NAMES),
    QuantitySkew(names=NAMES, law="log_normal", skew=2.0),
    Uniform(names=Counted(count=3)),
]


def test_every_simulated_partition_is_tested_here():
    assert {type(option) for option in SIMULATED} == {kind for kind in PARTITIONS if kind.simulated}


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
    assert {name: len(part) for name, part in parts.items()} == dict(option.declared_sizes(count))
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
    assert dict(option.declared_sizes(3)) == {"a": 2, "b": 1}
    parts = option.split(rows(3, party=("b", "a", "a")), "example", 0)
    assert held(parts) == {"a": [1, 2], "b": [0]}


@pytest.mark.parametrize(
    ("party", "message"),
    [
        (None, "the data name no parties"),
        (
            ("a", "b", "c"),
            "names party 'c', and `federated_learning.parties.sizes` does not declare it",
        ),
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
        (lambda: ByColumn(column="x"), "give the one or the other two"),
        (lambda: ByColumn(column="x", count=3), "give the one or the other two"),
        (lambda: ByColumn(column="x", size=3), "give the one or the other two"),
        (lambda: ByColumn(column="x", sizes={"a": 1}, count=3, size=2), "the one or the other"),
        (lambda: ByColumn(column="x", count=0, size=2), "count=0 must be at least 1"),
        (lambda: ByColumn(column="x", count=2, size=0), "size=0 must be at least 1"),
        (lambda: Counted(count=0), "count=0 must be at least 1"),
        (lambda: Counted(count=10**12), "must be at most 100000000"),
        (lambda: LabelSorted(names=("a",), shards=0), "shards=0 must be at least 1"),
        (lambda: QuantitySkew(names=("a",), skew=0), "skew=0 must be > 0"),
        (lambda: QuantitySkew(names=("a",), skew=float("nan")), "skew=nan must be > 0"),
        (lambda: QuantitySkew(names=("a",), skew=11), "skew=11 must be at most 10"),
    ],
)
def test_impossible_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_counted_names_are_a_list_that_is_never_made():
    names = Counted(count=10**8)
    assert len(names) == 10**8 and names[0] == "party-00000000" and names[-1] == "party-99999999"
    assert names.index("party-00000042") == 42 and "party-00000042" in names
    for other in ("party-42", "party-100000000", "party-0000004x", "east", 42):
        assert other not in names
    with pytest.raises(ValueError, match="is no party"):
        names.index("party-42")
    with pytest.raises(IndexError):
        names[10**8]
    assert list(Counted(count=2)) == list(Counted(count=2)[:]) == ["party-000000", "party-000001"]


def test_rows_of_a_party_are_taken_when_they_are_asked_for():
    option = Uniform(names=Counted(count=1000))
    parts = option.split(rows(5000), "example", 0)
    assert len(parts) == 1000 and len(parts["party-000999"]) == 5
    assert parts["party-000999"].features[:, 0].tolist() == sorted(
        parts["party-000999"].features[:, 0].tolist()
    )
    assert "party-001000" not in parts
    with pytest.raises(KeyError):
        parts["party-001000"]
    assert sorted(x for part in held(parts).values() for x in part) == list(range(5000))


def test_label_sorted_shards_are_runs_of_the_sorted_units():
    """McMahan et al. 2017, section 3: 100 parties with two shards of ten classes each."""
    option = LabelSorted(names=Counted(count=100))
    parts = option.split(rows(6000, classes=10), "example", 0)
    seen = [len(part.label.unique()) for part in parts.values()]
    assert max(seen) <= 2 and sum(seen) > 150  # shards of 30 units cut no class of 600 in two
    assert {len(part) for part in parts.values()} == {60}
    with pytest.raises(Incompatible, match="a shard would be empty"):
        LabelSorted(names=NAMES, shards=3).declared_sizes(8)


def test_sizes_fall_off_by_the_declared_law():
    power = QuantitySkew(names=Counted(count=50), skew=1.5).declared_sizes(100_050)
    sizes = list(power.values())
    assert sum(sizes) == 100_050 and min(sizes) >= 1
    weights = [i**-1.5 for i in range(1, 51)]
    for size, weight in zip(sizes, weights, strict=True):
        assert abs(size - 1 - 100_000 * weight / sum(weights)) <= 1
    spread = QuantitySkew(names=Counted(count=1001), law="log_normal", skew=0.5)
    logs = torch.tensor(list(spread.declared_sizes(10**8).values())).double().log()
    assert abs(float(logs.std()) - 0.5) < 0.01
    assert abs(float(logs.mean() - logs.median())) < 0.01


def test_a_class_that_runs_out_is_replaced_by_what_is_left():
    option = Dirichlet(names=Counted(count=40), alpha=0.01)
    parts = option.split(rows(400, classes=4), "example", 3)
    assert sorted(x for part in held(parts).values() for x in part) == list(range(400))
    assert {len(part) for part in parts.values()} == {10}


def test_values_of_a_column_are_parties_under_a_declared_count():
    option = ByColumn(column="device", count=3, size=2)
    assert not option.named and len(option.names) == 3
    sizes = option.declared_sizes(6)
    assert sizes["b"] == 2 and sizes.least == ("party-000000", 2)
    parts = option.split(rows(4, party=("b", "a/", "b", "a/")), "example", 0)
    assert held(parts) == {"a/": [1, 3], "b": [0, 2]}  # fewer than declared: nothing says so
    with pytest.raises(Incompatible, match="add up to 6"):
        option.declared_sizes(7)

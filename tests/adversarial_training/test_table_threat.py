"""A threat to a table: every row that comes back keeps all that is declared, to the last bit."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.adversarial_training import ColumnMove, LinearRelation, RatioRelation, TableThreat
from nacre.adversarial_training.threats.relations import contradictory
from nacre.core.errors import BadArgument, Incompatible
from nacre.core.random import Source
from nacre.data.columns.column import Column
from nacre.data.dataset import Rows, Schema
from nacre.data.scaling import DeclaredScaling, PublicScaling, fit_scaling

SCHEMA = Schema(
    (10,),
    (
        Column("income", "number", 0, 200_000),
        Column("debt", "number", 0, 300_000),
        Column("late", "number", 0, 9),
        Column("paid", "number", 0, 9),
        Column("rate", "number", 0.05, 0.2),
        Column("job", "category", categories=("none", "own", "office"), flag=True),
        Column("owner", "boolean", yes=("yes",), no=("no",)),
    ),
    "classification",
    ("good", "bad"),
)
NAMES = SCHEMA.feature_names()
THREAT = TableThreat(
    columns={
        "income": ColumnMove(reach=30_000, cost=0.001),
        "debt": ColumnMove(cost=0.0005),
        "late": ColumnMove(integer=True, only="decrease", cost=2),
        "paid": ColumnMove(integer=True, only="increase", reach=3, cost=1),
        "rate": ColumnMove(low=0.06),
        "job": ColumnMove(cost=5),
        "owner": ColumnMove(cost=4),
    },
    relations=(
        LinearRelation(terms={"late": 1, "paid": 1}, at_most=9),
        RatioRelation(of="debt", over="income", at_most=2.5, at_least=0.1),
        LinearRelation(terms={"rate": 1e6, "income": 1}, at_least=60_000),
    ),
    budget=20,
)


def _raw(count, seed=0):
    """Rows as a file would give them; some of them break a relation."""
    torch.manual_seed(seed)
    u = torch.rand(count, 10, dtype=torch.float64)
    raw = torch.zeros(count, 10)
    raw[:, 0], raw[:, 1] = (u[:, 0] * 200_000).round(), (u[:, 1] * 250_000)
    raw[:, 2], raw[:, 3] = (u[:, 2] * 6).round(), (u[:, 3] * 4).round()
    raw[:, 4] = 0.05 + 0.15 * u[:, 4]
    raw[torch.arange(count), 5 + (u[:, 5] * 2.999).long()] = 1
    raw[:, 8] = (u[:, 6] < 0.1).float()
    raw[:, 9] = (u[:, 7] < 0.5).float()
    return raw


def _space(option, raw):
    public = Rows(raw, torch.zeros(len(raw)), torch.arange(len(raw)))
    scaler = fit_scaling(option, SCHEMA, public)
    x = scaler.apply(public).features
    return scaler.space(SCHEMA), x


SCALINGS = [DeclaredScaling(), PublicScaling(clamp=2.0)]
scalings = pytest.mark.parametrize("option", SCALINGS, ids=["declared", "public"])


def _held(threat, space, x, clean):
    """Each declaration checked one by one in exact arithmetic, in the columns' own units; nothing
    of the region takes part."""

    def own(values):
        return [
            [Fraction(float(v)) * Fraction(float(s)) + Fraction(float(o)) for v, s, o in zip(
                row, space.scale, space.offset, strict=True)]
            for row in values
        ]  # fmt: skip

    whole = [NAMES.index(n) for n, m in threat.columns.items() if m.integer]
    for before, after in zip(own(clean), own(x), strict=True):
        for place in whole:  # what a file would have to say for this input
            rounded = Fraction(round(after[place]))
            assert after[place] == before[place] or abs(after[place] - rounded) < Fraction(1, 1000)
            for row in (before, after):
                if abs(row[place] - round(row[place])) < Fraction(1, 1000):
                    row[place] = Fraction(round(row[place]))
        spent = Fraction(0)
        for name, move in threat.columns.items():
            if name in ("job", "owner"):
                places = [i for i, entry in enumerate(NAMES) if entry.startswith(f"{name}=")]
                new = [after[i] for i in places]
                assert all(value in (0, 1) for value in new)
                assert name == "owner" or sum(new) == 1
                if new != [before[i] for i in places]:
                    spent += Fraction(move.cost)
                    assert name != "job" or before[NAMES.index("job (missing)")] == 0
                continue
            place = NAMES.index(name)
            old, new = before[place], after[place]
            column = SCHEMA.columns[place]
            if new != old:
                assert Fraction(column.low) <= new <= Fraction(column.high)
                assert move.low is None or new >= Fraction(move.low) or new >= old
            assert move.only != "increase" or new >= old
            assert move.only != "decrease" or new <= old
            if move.reach is not None:
                assert abs(new - old) <= Fraction(move.reach) * (1 + Fraction(1, 10**12))
            spent += Fraction(move.cost) * abs(new - old)
        assert spent <= Fraction(threat.budget) * (1 + Fraction(1, 10**12))
        for relation in threat.relations:
            for weights, bound in relation.halfspaces():
                values = [
                    sum(Fraction(w) * row[NAMES.index(n)] for n, w in weights.items())
                    for row in (before, after)
                ]
                size = sum(abs(Fraction(w) * after[NAMES.index(n)]) for n, w in weights.items())
                assert values[1] <= max(Fraction(bound), values[0]) + size / 10**15


@scalings
@given(seed=st.integers(0, 10_000), spread=st.sampled_from([0.01, 0.3, 3.0, 1e6]))
@settings(max_examples=60, deadline=None)
def test_whatever_goes_in_a_legal_row_comes_out(option, seed, spread):
    raw = _raw(6, seed)
    space, clean = _space(option, raw)
    region = THREAT.region(space)
    torch.manual_seed(seed)
    wild = clean + spread * torch.randn_like(clean)
    wild[0, seed % 10] = [math.nan, math.inf, -math.inf][seed % 3]
    x = region.project(wild, clean)
    _held(THREAT, space, x, clean)
    assert region.contains(x, clean).all()
    again = region.project(x, clean)
    assert region.contains(again, clean).all()
    uniform = torch.rand(6, region.draws, dtype=torch.float64)
    start = region.start(clean, uniform)
    _held(THREAT, space, start, clean)
    assert region.contains(start, clean).all()


@scalings
def test_a_legal_row_is_its_own_repair_and_the_clean_row_is_legal(option):
    space, clean = _space(option, _raw(300))
    region = THREAT.region(space)
    assert region.contains(clean, clean).all()
    assert torch.equal(region.project(clean, clean), clean)


@scalings
def test_moves_are_made_and_not_all_taken_back(option):
    """A repair that gave back the clean row would be legal as well."""
    space, clean = _space(option, _raw(300))
    region = THREAT.region(space)
    torch.manual_seed(1)
    x = region.project(clean + 0.5 * torch.randn_like(clean), clean)
    moved = (x != clean).float().mean(0)
    assert (moved[[0, 1, 4]] > 0.3).all()
    assert (moved[[2, 3, 5, 6, 7, 9]] > 0.02).all()
    assert moved[8] == 0  # whether a value was missing


@scalings
def test_what_breaks_one_declaration_is_not_contained(option):
    space, clean = _space(option, _raw(300))
    region, at = THREAT.region(space), {name: i for i, name in enumerate(NAMES)}
    ok = ~region.violated(clean)

    def with_raw(name, change):
        values = region.raw(clean)
        values[:, at[name]] = change(values[:, at[name]])
        x = clean.clone()
        x[:, at[name]] = region.inputs_of(values, clean)[:, at[name]]
        got = x.double() * space.scale + space.offset
        return x, (got - values)[:, at[name]].abs() < 0.1  # else the range's end was reached

    for name, change in (
        ("late", lambda v: v + 1),  # may only fall
        ("paid", lambda v: v + 0.5),  # a whole number
        ("paid", lambda v: v - 1),  # may only rise
        ("paid", lambda v: v + 4),  # too far
        ("income", lambda v: v + 30_001),
        ("debt", lambda v: v + 41_000),  # too dear
    ):
        x, moved = with_raw(name, change)
        assert moved.any(), name
        assert not region.contains(x, clean)[moved & ok].any(), name
    two = clean.clone()
    two[:, [5, 6, 7]] = 1.0
    assert not region.contains(two, clean).any()
    none = clean.clone()
    none[:, at["job (missing)"]] = 1 - none[:, at["job (missing)"]]
    assert not region.contains(none, clean).any()
    x = clean.clone()
    x[:, at["debt"]] = region.inputs_of(region.raw(clean) * 0, clean)[:, at["debt"]]
    fallen = region.raw(clean)[:, 1] > 0
    assert not region.contains(x, clean)[fallen & ok].any()  # debt below a tenth of the income


def test_a_clean_row_that_breaks_a_relation_is_held_to_its_own_excess():
    raw = _raw(50)
    raw[:, 2], raw[:, 3] = 7, 6  # 13, and 9 is allowed
    space, clean = _space(DeclaredScaling(), raw)
    region = THREAT.region(space)
    assert region.violated(clean).all()
    torch.manual_seed(0)
    x = region.project(clean + torch.randn_like(clean), clean)
    total = region.raw(x)[:, 2:4].sum(1)
    assert (total <= 13).all()
    assert (total < 13).any()


def test_a_value_that_was_missing_stays():
    raw = _raw(200)
    raw[:, 8] = 1
    space, clean = _space(DeclaredScaling(), raw)
    x = THREAT.region(space).project(clean + 3 * torch.randn_like(clean), clean)
    assert torch.equal(x[:, 5:8], clean[:, 5:8])


@scalings
def test_a_share_of_the_threat_lies_inside_a_larger_one(option):
    space, clean = _space(option, _raw(100))
    whole = THREAT.region(space)
    for share, larger in ((0.1, 0.3), (0.3, 1.0), (1.0, 4.0)):
        small, large = (THREAT.scaled(s).region(space) for s in (share, larger))
        torch.manual_seed(2)
        x = small.project(clean + torch.randn_like(clean), clean)
        assert small.contains(x, clean).all()
        assert large.contains(x, clean).all()
    x = whole.project(clean + torch.randn_like(clean), clean)
    assert not THREAT.scaled(0.1).region(space).contains(x, clean).all()


def test_one_number_and_one_relation_have_a_closed_form():
    """The nearest legal point, where there is only one relation and no budget."""
    schema = Schema(
        (2,), (Column("a", "number", -10, 10), Column("b", "number", -10, 10)),
        "classification", ("n", "y"),
    )  # fmt: skip
    space = fit_scaling(DeclaredScaling(), schema, None).space(schema)
    threat = TableThreat(
        columns={"a": ColumnMove(), "b": ColumnMove()},
        relations=(LinearRelation(terms={"a": 1, "b": 1}, at_most=0),),
    )
    clean = torch.tensor([[-0.5, -0.5]])
    x = threat.region(space).project(torch.tensor([[0.3, 0.1]]), clean)
    assert torch.allclose(x, torch.tensor([[0.1, -0.1]]), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"columns": {"incom": ColumnMove()}}, "'income'"),
        ({"columns": {"job": ColumnMove(integer=True)}}, "categories"),
        ({"columns": {"debt": ColumnMove(low=400_000)}}, "do not meet"),
        ({"relations": (LinearRelation(terms={"job": 1}, at_most=1),)}, "numbers"),
        ({"relations": (LinearRelation(terms={"dept": 1}, at_most=1),)}, "'debt'"),
    ],
)
def test_what_does_not_fit_the_columns_is_refused(change, word):
    space, _ = _space(DeclaredScaling(), _raw(5))
    threat = TableThreat(**{"columns": {"debt": ColumnMove()}, **change})
    with pytest.raises(Incompatible, match=word):
        threat.region(space)


def test_columns_without_a_range_need_a_reach_and_coded_ones_stay():
    columns = (Column("a", "number"), Column("b", "number", 0, 9, coding="bins", edges=(0, 5, 9)))
    space = Schema((3,), columns, "classification", ("n", "y")).space()
    with pytest.raises(Incompatible, match="reach"):
        TableThreat(columns={"a": ColumnMove()}).region(space)
    with pytest.raises(Incompatible, match="coded"):
        TableThreat(columns={"b": ColumnMove()}).region(space)
    with pytest.raises(Incompatible, match="negative"):
        schema = Schema((2,), (Column("a", "number"), Column("c", "number")), "regression", ())
        relation = RatioRelation(of="c", over="a", at_most=1)
        threat = TableThreat(columns={"a": ColumnMove(reach=1)}, relations=(relation,))
        threat.region(schema.space())
    assert TableThreat(columns={"a": ColumnMove(reach=2)}).region(space).radii.tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: ColumnMove(reach=0), "reach"),
        (lambda: ColumnMove(reach=math.nan), "reach"),
        (lambda: ColumnMove(cost=-1), "cost"),
        (lambda: ColumnMove(low=2, high=1), "low"),
        (lambda: LinearRelation(terms={}, at_most=1), "terms"),
        (lambda: LinearRelation(terms={"a": 1}), "at_most"),
        (lambda: RatioRelation(of="a", over="b", at_most=1, at_least=2), "at_least"),
        (lambda: RatioRelation(of="a", over="a", at_most=1), "two columns"),
        (lambda: TableThreat(columns={}), "at least one"),
        (lambda: TableThreat(columns={"a": ColumnMove(only="none")}), "at least one"),
        (lambda: TableThreat(columns={"a": ColumnMove(cost=1)}), "budget"),
        (lambda: TableThreat(columns={"a": ColumnMove()}, budget=1), "cost"),
        (lambda: TableThreat(columns={"a": ColumnMove(cost=1)}, budget=math.nan), "budget"),
    ],
)
def test_what_means_nothing_is_refused(make, word):
    with pytest.raises(BadArgument, match=word):
        make()


def test_random_starts_reach_ends_and_middles():
    space, clean = _space(DeclaredScaling(), _raw(1))
    threat = TableThreat(columns={"rate": ColumnMove(), "job": ColumnMove()})
    region = threat.region(space)
    units = torch.arange(400)
    uniform = Source(bytes(32)).stream().rows(units, region.draws)
    x = region.start(clean.expand(400, -1), uniform)
    rate = region.raw(x)[:, 4]
    assert ((rate < 0.0501).float().mean() - 1 / 6).abs() < 0.06
    assert ((rate > 0.1999).float().mean() - 1 / 6).abs() < 0.06
    assert ((x[:, 5:8].mean(0) - 1 / 3).abs() < 0.08).all()


@given(
    weights=st.lists(st.integers(-3, 3).filter(bool), min_size=3, max_size=3),
    bound=st.integers(-60, 60),
    key=st.sampled_from(["at_most", "at_least"]),
)
@settings(max_examples=200, deadline=None)
def test_a_linear_relation_is_refused_where_no_corner_of_the_declared_ranges_keeps_it(
    weights, bound, key
):
    ends = {"a": (-2.0, 3.0), "b": (1.0, 8.0), "c": (-9.0, -4.0)}
    columns = tuple(Column(name, "number", low, high) for name, (low, high) in ends.items())
    space = Schema((3,), columns, "classification", ("n", "y")).space()
    relation = LinearRelation(terms=dict(zip("abc", weights, strict=True)), **{key: bound})
    sums = [
        sum(w * end for w, end in zip(weights, corner, strict=True))
        for corner in itertools.product(*ends.values())
    ]
    kept = min(sums) <= bound if key == "at_most" else max(sums) >= bound
    # What an attacker may do of a column is less than what rows may hold: it refuses nothing.
    threat = TableThreat(columns={"a": ColumnMove(low=0, high=0.5)}, relations=(relation,))
    if kept:
        threat.region(space)
        return
    with pytest.raises(Incompatible, match="so no row keeps") as caught:
        threat.region(space)
    assert caught.value.key == f"relations[0].{key}"


@given(
    of=st.tuples(st.integers(-4, 4), st.integers(0, 4)),
    over=st.tuples(st.integers(0, 4), st.integers(1, 4)),
    bound=st.integers(-3, 3),
    key=st.sampled_from(["at_most", "at_least"]),
)
@settings(max_examples=200, deadline=None)
def test_a_ratio_is_refused_where_no_corner_of_the_declared_ranges_keeps_it(of, over, bound, key):
    ends = {"of": (of[0], of[0] + of[1]), "over": (over[0], over[0] + over[1])}
    columns = tuple(
        Column(name, "number", low - (low == high), high) for name, (low, high) in ends.items()
    )
    space = Schema((2,), columns, "classification", ("n", "y")).space()
    least = torch.tensor([float(low) for low, _ in ends.values()], dtype=torch.float64)
    space = replace(space, least=least)
    sign = 1 if key == "at_most" else -1
    kept = any(sign * (a - bound * b) <= 0 for a, b in itertools.product(*ends.values()))
    relation = RatioRelation(of="of", over="over", **{key: bound})
    threat = TableThreat(columns={"of": ColumnMove(reach=1)}, relations=(relation,))
    if kept:
        threat.region(space)
        return
    with pytest.raises(Incompatible, match="so no row keeps"):
        threat.region(space)


def _some_row_keeps(bounds):
    """Whether any rational numbers keep weights @ x <= bound, by Fourier and Motzkin: one number
    after the other is eliminated."""
    for place in range(len(bounds[0][0])):
        upper = [(w, b) for w, b in bounds if w[place] > 0]
        lower = [(w, b) for w, b in bounds if w[place] < 0]
        bounds = [(w, b) for w, b in bounds if w[place] == 0] + [
            ([p * -w[place] + q * v[place] for p, q in zip(v, w, strict=True)],
             b * v[place] - c * w[place])
            for v, c in upper for w, b in lower
        ]  # fmt: skip
    return all(bound >= 0 for _, bound in bounds)


@given(
    rows=st.lists(
        st.tuples(
            st.tuples(*[st.integers(-2, 2)] * 3).filter(any),
            st.integers(-4, 3),
            st.sampled_from(["at_most", "at_least"]),
        ),
        min_size=2,
        max_size=4,
    ),
    ratio=st.none() | st.integers(-1, 2),
    open_end=st.booleans(),
    size=st.sampled_from([1.0, 0.001, 30_000.0]),
)
@settings(max_examples=200, deadline=None)
def test_relations_are_refused_together_where_elimination_finds_no_row(rows, ratio, open_end, size):
    """In columns of sizes far apart; and none of those named can be left out."""
    sizes = {"a": 1.0, "b": size, "c": 1.0}
    low = {"a": -2.0, "b": 0.0, "c": -math.inf if open_end else -3.0}
    high = {"a": 2.0, "b": 3.0 * size, "c": math.inf if open_end else 3.0}
    relations = [
        LinearRelation(terms={n: w / sizes[n] for n, w in zip("abc", ws, strict=True) if w},
                       **{key: bound})
        for ws, bound, key in rows
    ]  # fmt: skip
    exact = [
        [([sign * w for w in ws], sign * bound)]
        for ws, bound, key in rows
        for sign in [1 if key == "at_most" else -1]
    ]
    if ratio is not None:
        relations.append(RatioRelation(of="a", over="b", at_most=ratio / size))
        exact.append([([1, -ratio, 0], 0)])
    ends = [([-1, 0, 0], 2), ([1, 0, 0], 2), ([0, -1, 0], 0), ([0, 1, 0], 3)]
    ends += [] if open_end else [([0, 0, -1], 3), ([0, 0, 1], 3)]

    def kept(places):
        return _some_row_keeps(ends + [one for place in places for one in exact[place]])

    found = contradictory(relations, low, high)
    assert kept(range(len(relations))) == (not found)
    assert not found or not kept(found)
    assert all(kept([other for other in found if other != place]) for place in found)


@pytest.mark.parametrize("most", [3.0, 1e6, math.inf])
def test_a_circle_of_relations_is_refused_and_named_if_it_has_a_gap(most):
    columns = tuple(
        Column(name, "number", 0 if most < math.inf else None, most if most < math.inf else None)
        for name in ("x", "y", "z", "w")
    )
    space = Schema((4,), columns, "classification", ("n", "y")).space()

    def region(gap):
        relations = (
            LinearRelation(terms={"w": 1, "x": -1}, at_least=-2, at_most=9),
            LinearRelation(terms={"x": 1, "y": -1}, at_most=0.1),
            LinearRelation(terms={"y": 1, "z": -1}, at_most=0.2 - gap),
            LinearRelation(terms={"z": 1, "x": -1}, at_most=-0.3),
        )
        TableThreat(columns={"x": ColumnMove(reach=1)}, relations=relations).region(space)

    region(0)  # although 0.1 + 0.2 - 0.3 is no 0 in floats
    with pytest.raises(Incompatible) as caught:
        region(1)
    assert caught.value.key == "relations[3]"
    assert str(caught.value).endswith(
        "no row within the declared ranges keeps relations[1] (x - y at most 0.1), relations[2] "
        "(y - z at most -0.8) and relations[3] (z - x at most -0.3) together: mend or leave out "
        "one of them"
    )


def test_relations_read_as_people_write_them():
    terms = {"paid": -1, "billed": 2.5, "owed": -3}
    for relation, said in (
        (LinearRelation(terms=terms, at_least=1), "- paid + 2.5 billed - 3 owed at least 1"),
        (RatioRelation(of="debt", over="income", at_least=0.1, at_most=4),
         "debt / income from 0.1 to 4"),
    ):  # fmt: skip
        assert relation.sentence() == said


def test_an_absent_bound_is_told_in_words_of_a_recipe():
    for make in (
        lambda: LinearRelation(terms={"a": 1}),
        lambda: RatioRelation(of="a", over="b"),
        lambda: TableThreat(columns={"a": ColumnMove(cost=1)}),
        lambda: LinearRelation(terms={"a": 0}, at_most=1),
    ):
        with pytest.raises(BadArgument) as caught:
            make()
        assert "None" not in str(caught.value) and "{" not in str(caught.value)


def test_what_numbers_cannot_say_is_no_contradiction():
    tiny = LinearRelation(terms={"a": 1e-290}, at_most=1e30)
    sums = LinearRelation(terms={"a": 1, "b": 1}, at_least=0)
    ends = {"a": 0.0, "b": 0.0}, {"a": 9.0, "b": 9.0}
    assert contradictory([tiny, sums], *ends) == ()

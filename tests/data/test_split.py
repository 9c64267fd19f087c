import hashlib
import hmac
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nacre.data.dataset import Rows, Schema
from nacre.data.split import (
    Holdout,
    PublicCohort,
    Test,
    apportioned,
    demonstration,
    held_out,
)

SCHEMA = Schema((1,), (), "classification", ("a", "b"))


def rows(count, groups=None):
    features = torch.arange(count, dtype=torch.float32)[:, None]
    group = None if groups is None else tuple(f"g{i % groups}" for i in range(count))
    return Rows(features, torch.arange(count) % 2, group)


@pytest.mark.slow
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8), st.floats(0, 1))
def test_shares_add_up_and_are_within_one_of_the_quota(counts, part):
    total = int(part * sum(counts))
    shares = apportioned(counts, total)
    assert sum(shares) == total
    for count, share in zip(counts, shares, strict=True):
        assert abs(share - total * count / sum(counts)) < 1
        assert share <= count


def test_without_strata_the_test_set_is_any_share():
    private, public, test = demonstration(rows(50), SCHEMA, Test(stratified=False), None, 3)
    assert (len(private), public, len(test)) == (40, None, 10)


def test_without_a_test_set_the_public_rows_come_from_all():
    private, public, test = demonstration(rows(50), SCHEMA, None, PublicCohort(share=0.4), 3)
    assert (len(private), len(public), test) == (30, 20, None)


def test_a_holdout_keeps_units_together():
    kept, out = held_out(rows(300, groups=60), Holdout(share=0.3), b"key")
    assert len(kept) + len(out) == 300 and len(out)
    assert not set(kept.group) & set(out.group)


def test_a_holdout_by_row_may_part_a_unit():
    kept, out = held_out(rows(300, groups=3), Holdout(share=0.3, by="row"), b"key")
    assert set(kept.group) & set(out.group)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.83])
def test_equal_rows_are_split_in_the_declared_share(share):
    """3,322 equal rows of 11,183 made a holdout of 0.2 into 0.14 or 0.44."""
    table = rows(900).take([*range(600), *[7] * 300])
    for key in range(20):
        kept, out = held_out(table, Holdout(share=share), bytes([key]))
        equal = int((out.features == 7).sum())
        assert abs(equal - 301 * share) < 1.001
        assert len(kept) + len(out) == 900
        assert abs(len(out) - 900 * share) < 80  # 599 coins: six deviations


@pytest.mark.slow
@given(st.lists(st.integers(0, 3), max_size=30), st.integers(0, 3), st.integers(0, 30), st.data())
def test_one_more_row_is_the_only_one_that_moves(values, more, place, data):
    """As multisets, whatever equals it and wherever it stands."""
    holdout = Holdout(share=data.draw(st.floats(0.01, 0.99)))
    place = min(place, len(values))
    few = _sides(values, holdout)
    many = _sides([*values[:place], more, *values[place:]], holdout)
    gained = [Counter(now) - Counter(before) for now, before in zip(many, few, strict=True)]
    assert sorted(sum(side.values()) for side in gained) == [0, 1]
    assert not any(Counter(b) - Counter(n) for n, b in zip(many, few, strict=True))
    assert (gained[0] + gained[1])[float(more)] == 1


def _sides(values, holdout):
    features = torch.tensor(values, dtype=torch.float32).reshape(-1, 1)
    parts = held_out(Rows(features, torch.zeros(len(values), dtype=torch.int64)), holdout, b"key")
    return [part.features[:, 0].tolist() for part in parts]


@pytest.mark.slow
def test_a_single_row_is_held_out_with_the_declared_chance():
    """4000 keys: six deviations of a coin of 0.3 are 174."""
    outs = sum(
        len(held_out(rows(1), Holdout(share=0.3), key.to_bytes(2))[1]) for key in range(4000)
    )
    assert abs(outs - 1200) < 174


def test_equal_rows_of_two_units_do_not_wait_for_each_other():
    """Held out by row, the side of a row depends on its own unit's equal rows alone."""
    one = Rows(torch.zeros(40, 1), torch.zeros(40, dtype=torch.int64), ("a",) * 40)
    two = Rows(torch.zeros(80, 1), torch.zeros(80, dtype=torch.int64), ("b", "a") * 40)
    holdout = Holdout(share=0.37, by="row")
    alone = len(held_out(one, holdout, b"key")[1])
    assert held_out(two, holdout, b"key")[1].group.count("a") == alone


def test_adding_a_row_moves_no_other():
    few = held_out(rows(100), Holdout(share=0.5), b"key")[1].features[:, 0].tolist()
    more = held_out(rows(101), Holdout(share=0.5), b"key")[1].features[:, 0].tolist()
    assert [x for x in more if x < 100] == few


@pytest.mark.slow
def test_the_share_held_out_is_as_declared_and_depends_on_the_key():
    # 4000 coins of 0.25: a deviation of 150 has probability below 1e-7 under a random key.
    outs = [held_out(rows(4000), Holdout(share=0.25), key)[1] for key in (b"a", b"b")]
    assert all(abs(len(out) - 1000) < 150 for out in outs)
    assert not np.array_equal(outs[0].features.numpy(), outs[1].features.numpy())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Test(share=1.0), "share=1.0 must lie between"),
        (lambda: Holdout(share=0), "share=0 must lie between"),
        (lambda: PublicCohort(share=2), "share=2 must lie between"),
        (lambda: PublicCohort(share=0.2, smallest=0, column="x"), "smallest=0 must be above 0"),
        (lambda: PublicCohort(share=0.2, smallest=0.5), "needs `column`"),
    ],
)
def test_impossible_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_outsiders_are_distributed_as_the_private_rows():
    """Over 40 seeds the mean of the cohort's column agrees within four standard errors."""
    from pathlib import Path

    from nacre.data.builtin import Builtin
    from nacre.data.split import PublicCohort, Test

    option = Builtin(
        name="breast_cancer",
        size=313,
        public_demonstration=True,
        test=Test(share=0.2),
        public=PublicCohort(share=0.25, column="mean radius", smallest=0.6),
    )
    gaps, shifts = [], []
    for seed in range(40):
        cohorts = option.read(Path(), seed, b"")
        mean = cohorts.private.features[:, 0].mean()
        gaps.append(float(cohorts.outsiders.features[:, 0].mean() - mean))
        shifts.append(float(cohorts.test.features[:, 0].mean() - mean))
    gaps, shifts = torch.tensor(gaps), torch.tensor(shifts)
    assert abs(gaps.mean()) < 4 * gaps.std() / 40**0.5
    assert shifts.mean() < -4 * shifts.std() / 40**0.5  # the whole test set is not: smaller tumours


@pytest.mark.parametrize("by", ["unit", "row"])
@pytest.mark.parametrize("named", [True, False])
def test_sides_are_those_of_one_row_at_a_time(by, named):
    """The split of earlier versions: an HMAC of the group, or of the row's own bytes."""
    draw = torch.Generator().manual_seed(5)
    features = torch.randint(0, 2, (80, 2), generator=draw).float() * -1.0  # has negative zeros
    label = torch.randint(0, 2, (80,), generator=draw)
    group = tuple("äbcdefgh"[i] for i in torch.randint(0, 8, (80,), generator=draw))
    rows = Rows(features, label, group if named else None)

    def uniform(name):
        code = hmac.new(bytes(32), b"nacre holdout" + name, hashlib.sha256).digest()
        return int.from_bytes(code[:8], "big") / 2**64

    sides, seen = [], Counter()
    for i in range(80):
        name = b"row" + features[i].numpy().tobytes() + label[i].numpy().tobytes()
        name += b"of" + group[i].encode() if named else b""
        start, before = uniform(name), seen[name]
        seen[name] += 1
        side = math.floor(start + 0.3 * (before + 1)) > math.floor(start + 0.3 * before)
        sides.append(
            uniform(b"group" + group[i].encode()) < 0.3 if named and by == "unit" else side
        )
    kept, out = held_out(rows, Holdout(share=0.3, by=by), bytes(32))
    for found, wanted in ((kept, False), (out, True)):
        places = [i for i, side in enumerate(sides) if side is wanted]
        assert found.features.equal(features[places]) and found.label.equal(label[places])

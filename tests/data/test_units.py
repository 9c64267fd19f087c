import hashlib
import hmac
from collections import Counter

import pytest
import torch

from nacre.core.errors import Incompatible
from nacre.core.random import Source
from nacre.data.dataset import Rows
from nacre.data.units import Units

KEY = Source(bytes(32))


def rows(groups=None):
    count = 6 if groups is None else len(groups)
    group = None if groups is None else tuple(groups)
    return Rows(torch.arange(count * 2.0).reshape(count, 2) + 1, torch.arange(count) % 3, group)


def test_a_row_is_a_unit():
    units = Units(rows(), "example", None, KEY)
    batch = units.batch(torch.tensor([4, 1]))
    assert len(units) == 6
    assert batch["features"].tolist() == [[9, 10], [3, 4]]
    assert batch["label"].tolist() == [1, 1]
    assert batch["present"].all()
    assert "rows" not in batch


def test_groups_are_padded_by_zeros():
    units = Units(rows("bab"), "group", 3, KEY)
    batch = units.batch(torch.tensor([0, 1]))  # a, then b
    assert batch["rows"].tolist() == [[True, False, False], [True, True, False]]
    assert batch["features"].shape == (2, 3, 2)
    assert batch["features"][1].tolist() == [[1, 2], [5, 6], [0, 0]]
    assert batch["label"].tolist() == [[1, 0, 0], [0, 2, 0]]


def test_without_a_declared_width_the_widest_group_decides():
    assert Units(rows("aabaa"), "group", None, KEY).batch(torch.tensor([1]))["rows"].shape == (1, 4)


def test_a_wide_group_keeps_a_subset_that_no_other_group_moves():
    def kept(groups, key=KEY):
        units = Units(rows(groups), "group", 2, key)
        return units.batch(torch.tensor([0]))["features"][0, :, 0].tolist()

    subset = kept("aaaaa")
    assert subset == sorted(set(subset)) and len(subset) == 2
    assert subset == kept("aaaaa") == kept("aaaaabb")
    assert len({tuple(kept("aaaaa", KEY.child(i))) for i in range(40)}) > 5


def test_every_row_of_a_wide_group_may_be_kept():
    # Each of 5 rows is kept with probability 2/5; 200 keys miss one with probability below 1e-40.
    seen = set()
    for i in range(200):
        units = Units(rows("aaaaa"), "group", 2, KEY.child(i))
        seen |= set(units.batch(torch.tensor([0]))["features"][0, :, 0].tolist())
    assert seen == {1, 3, 5, 7, 9}


def test_micro_batches_hold_every_drawn_unit_once():
    units = Units(rows(), "example", None, KEY)
    drawn = torch.tensor([5, 0, 3, 2])
    ids = units.batch(drawn)["unit"].tolist()
    assert [b["unit"].tolist() for b in units.micro(drawn, 3)] == [ids[:3], ids[3:]]
    assert [b["unit"].tolist() for b in units.micro(drawn, None)] == [ids]
    assert list(units.micro(drawn[:0], 3)) == list(units.micro(drawn[:0], None)) == []


def test_changing_a_batch_leaves_the_rows():
    units = Units(rows("ab"), "group", 2, KEY)
    units.batch(torch.tensor([0]))["features"].zero_()
    assert units.batch(torch.tensor([0]))["features"][0, 0].tolist() == [1, 2]


def test_no_rows_are_no_units():
    assert len(Units(rows("ab").take([]), "group", None, KEY)) == 0


def test_groups_need_a_column():
    with pytest.raises(Incompatible, match="needs a column that names each row's group"):
        Units(rows(), "group", None, KEY)


def test_a_unit_has_at_least_one_row():
    with pytest.raises(ValueError, match="rows_per_unit=0 must be at least 1"):
        Units(rows("a"), "group", 0, KEY)


@pytest.mark.parametrize("unit", ["example", "group"])
@pytest.mark.parametrize("gone", [0, 2, 5])
def test_a_units_number_is_its_own_whoever_else_is_there(unit, gone):
    """The random start of an attack is keyed by it: taking one unit away must not move others'."""
    all_rows = rows("abcdef" if unit == "group" else None)
    left = [i for i in range(6) if i != gone]

    def numbers(some):
        units = Units(some, unit, 2 if unit == "group" else None, KEY)
        return units.batch(torch.arange(len(units)))["unit"].tolist()

    every = numbers(all_rows)
    assert numbers(all_rows.take(left)) == [every[i] for i in left]
    assert len(set(every)) == 6
    assert max(every) < 2**48


def test_equal_rows_have_numbers_of_their_own():
    twins = Rows(torch.ones(3, 2), torch.zeros(3, dtype=torch.int64))
    three = Units(twins, "example", None, KEY).batch(torch.arange(3))["unit"].tolist()
    two = Units(twins.take([0, 2]), "example", None, KEY).batch(torch.arange(2))["unit"].tolist()
    assert len(set(three)) == 3
    assert two == three[:2]  # whichever of them goes, the same numbers are left


def test_numbers_and_places_are_those_of_one_unit_at_a_time():
    """In arrays or one by one: the same kept rows, and numbers by HMAC of the unit's own name."""
    draw = torch.Generator().manual_seed(3)
    names = [
        ["", "a", "b", "ä", "a b", "Z", "10", "9"][i]
        for i in torch.randint(0, 8, (60,), generator=draw)
    ]
    some = Rows(
        torch.randn(60, 3, generator=draw).round(), torch.randint(0, 2, (60,)), tuple(names)
    )
    some = some.take([*range(60), 3, 3])  # equal rows have numbers of their own
    key = hmac.new(bytes(32), b"child" + b"s" + (4).to_bytes(8, "big") + b"unit", "sha256").digest()

    def number(name, seen):
        labels = [(b"b", name), (b"i", str(seen).encode())]
        message = b"".join(kind + len(body).to_bytes(8, "big") + body for kind, body in labels)
        code = hmac.new(key, b"number" + message, "sha256").digest()
        return int.from_bytes(code[:8], "big") >> 1 >> 15

    units = Units(some, "group", 4, Source(bytes(32)))
    order = sorted(set(some.group))
    assert units.numbers(torch.arange(len(units))).tolist() == [
        number(n.encode(), 1) for n in order
    ]
    batch = units.batch(torch.arange(len(units)))
    for i, name in enumerate(order):
        places = [place for place, other in enumerate(some.group) if other == name]
        if len(places) > 4:
            drawn = Source(bytes(32)).child("rows", name).stream().permutation(len(places))[:4]
            places = [places[j] for j in sorted(drawn.tolist())]
        assert batch["features"][i, batch["rows"][i]].equal(some.features[places])
    seen, expected = Counter(), []
    for feature, label in zip(some.features, some.label, strict=True):
        name = hashlib.sha256(feature.numpy().tobytes() + label.numpy().tobytes()).digest()
        seen[name] += 1
        expected.append(number(name, seen[name]))
    assert (
        Units(some, "example", None, Source(bytes(32))).numbers(torch.arange(62)).tolist()
        == expected
    )


def test_many_numbers_at_once_are_those_of_each_name():
    names = [b"ann", b"", b"bob", b"ann", "\u00e9".encode(), b"ann", b"i" * 300, b"bob"]
    which = [1, 1, 1, 2, 1, 3, 1, 2]
    expected = [KEY.number(name, each) for name, each in zip(names, which, strict=True)]
    assert KEY.numbers(iter(names)).tolist() == expected
    assert KEY.numbers([]).tolist() == []

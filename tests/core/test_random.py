import hashlib
import hmac
import math

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from scipy import stats

from nacre.core.random import Source, _Tag, digest

ROOT = Source(bytes(range(32)))


def test_a_key_has_32_bytes():
    with pytest.raises(ValueError, match="32 bytes"):
        Source(b"short")


def test_a_key_is_never_printed():
    assert "secret" in repr(ROOT)


def test_fresh_roots_differ():
    assert not torch.equal(Source.fresh().stream().uniform(4), Source.fresh().stream().uniform(4))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (("noise", 1), ("noise", 2)),
        (("noise", 1), ("sampling", 1)),
        (("ab", "c"), ("a", "bc")),
        ((1,), ("1",)),
        (("1",), (b"1",)),
    ],
)
def test_other_labels_give_independent_streams(a, b):
    x, y = (ROOT.child(*labels).stream().uniform(1000) for labels in (a, b))
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.2  # 6 deviations of an independent pair


def test_a_stream_continues_where_it_stopped():
    whole = ROOT.stream().uniform(6)
    stream = ROOT.stream()
    assert torch.equal(torch.cat([stream.uniform(2), stream.uniform(4)]), whole)


def test_uniforms_are_uniform_and_normals_normal():
    """False alarm: 1e-6 each, under a fixed key."""
    stream = ROOT.child("law").stream()
    assert stats.kstest(stream.uniform(200_000).numpy(), "uniform").pvalue > 1e-6
    assert stats.kstest(stream.normal(200_000).numpy(), "norm").pvalue > 1e-6


def test_uniforms_never_touch_the_ends():
    from nacre.core.random import _open_unit

    ends = _open_unit(np.array([0, 2**64 - 1], dtype=np.uint64))
    assert 0 < float(ends[0]) < float(ends[1]) < 1
    assert torch.isfinite(torch.special.ndtri(ends)).all()


def test_rows_belong_to_their_unit_not_to_their_place():
    stream = ROOT.stream()
    a = stream.rows(torch.tensor([5, 9, 2]), 7)
    b = stream.rows(torch.tensor([2, 5]), 7)
    assert torch.equal(a[0], b[1])
    assert torch.equal(a[2], b[0])
    assert a.shape == (3, 7)


def test_turns_of_a_row_are_its_own_and_differ():
    units, turns = torch.tensor([7, 7, 9, 7]), torch.tensor([0, 3, 3, 4])
    stream = Source(bytes(32)).stream()
    drawn = stream.rows(units, 5, turns)
    assert torch.equal(drawn[:1], stream.rows(units[:1], 5))  # turn 0 is the row without turns
    assert torch.equal(drawn[1:3], stream.rows(units[1:3], 5, turns[1:3]))
    assert drawn.unique().numel() == 20  # no number is shared between rows or turns


def test_rows_of_nobody():
    assert ROOT.stream().rows(torch.zeros(0, dtype=torch.int64), 3).shape == (0, 3)


def test_heads_come_as_often_as_they_should():
    """Ties of the first 16 bits included, which decide all where the probability is small."""
    coins = 3 * 10**6
    for probability in (2**-16, 2.5 * 2**-16, 0.4 * 2**-16, 1e-3, 0.3, 0.5, 1 - 2**-17):
        expected, spread = coins * probability, (coins * probability * (1 - probability)) ** 0.5
        assert (
            abs(len(ROOT.child(probability.hex()).stream().heads(coins, probability)) - expected)
            < 5 * spread
        )
    assert len(ROOT.stream().heads(1000, 0.0)) == 0
    assert ROOT.stream().heads(1000, 1.0).tolist() == list(range(1000))
    with pytest.raises(ValueError, match=r"probability=1.5 must lie in \[0, 1\]"):
        ROOT.stream().heads(3, 1.5)


def test_heads_grow_with_the_probability_and_do_not_depend_on_the_number_of_coins():
    """A coin compares one number of 52 bits with the probability: it is settled once for all."""
    several = [ROOT.stream().heads(300_000, share * 2**-52) for share in (2**20, 2**36, 2**50)]
    assert set(several[0]) <= set(several[1]) < set(several[2])
    few = ROOT.stream().heads(1001, 0.25)
    assert few.tolist() == [coin for coin in several[2] if coin < 1001]
    stream = ROOT.stream()
    first, then = stream.heads(1001, 0.25), stream.heads(1001, 0.25)
    assert first.tolist() == few.tolist() != then.tolist()
    assert ROOT.stream().heads(0, 0.5).tolist() == []


def test_a_permutation_holds_each_number_once():
    assert sorted(ROOT.stream().permutation(100).tolist()) == list(range(100))
    assert ROOT.stream().permutation(0).tolist() == []


def test_a_seed_fits_torch():
    assert 0 <= ROOT.stream().seed() < 2**63


def test_the_digest_sees_names_values_shapes_types_and_order():
    w = torch.arange(6.0)
    same = digest({"a": w, "b": w}, 3, "x", b"y", [1, 2])
    assert same == digest({"b": w.clone(), "a": w.clone()}, 3, "x", b"y", (1, 2))
    others = [
        digest({"a": w, "c": w}, 3, "x", b"y", [1, 2]),
        digest({"a": w, "b": w + 1e-7}, 3, "x", b"y", [1, 2]),
        digest({"a": w, "b": w.reshape(2, 3)}, 3, "x", b"y", [1, 2]),
        digest({"a": w, "b": w.double()}, 3, "x", b"y", [1, 2]),
        digest({"a": w, "b": w}, 4, "x", b"y", [1, 2]),
        digest({"a": w, "b": w}, 3, b"x", b"y", [1, 2]),
        digest({"a": w, "b": w}, 3, "x", b"y", [12]),
        digest(w, {"b": w}, 3, "x", b"y", [1, 2]),
    ]
    assert len({same, *others}) == len(others) + 1


def test_a_scalar_tensor_has_a_digest():
    assert digest(torch.tensor(1.0)) != digest(torch.tensor(2.0))


def test_secrets_differ_by_label_and_from_children():
    a, b = ROOT.secret("a"), ROOT.secret("b")
    assert len({a, b, ROOT.secret("a", "b"), ROOT.child("a").secret("a")}) == 4
    assert a == Source(bytes(range(32))).secret("a")


def test_the_keyed_digest_sees_names_values_shapes_types_order_and_the_key():
    w = torch.arange(6.0)
    same = ROOT.digest({"a": w, "b": w}, 3, "x", b"y", [1, 2])
    assert same == ROOT.digest({"b": w.clone(), "a": w.clone()}, 3, "x", b"y", (1, 2))
    others = [
        ROOT.digest({"a": w, "c": w}, 3, "x", b"y", [1, 2]),
        ROOT.digest({"a": w, "b": w + 1e-7}, 3, "x", b"y", [1, 2]),
        ROOT.digest({"a": w, "b": w.reshape(2, 3)}, 3, "x", b"y", [1, 2]),
        ROOT.digest({"a": w, "b": w.double()}, 3, "x", b"y", [1, 2]),
        ROOT.digest({"a": w, "b": w}, 4, "x", b"y", [1, 2]),
        ROOT.digest({"a": w, "b": w}, 3, b"x", b"y", [1, 2]),
        ROOT.digest({"a": w, "b": w}, 3, "x", b"y", [12]),
        ROOT.digest(w, {"b": w}, 3, "x", b"y", [1, 2]),
        ROOT.child("other").digest({"a": w, "b": w}, 3, "x", b"y", [1, 2]),
        digest({"a": w, "b": w}, 3, "x", b"y", [1, 2]),
    ]
    assert len({same, *others}) == len(others) + 1
    assert all(len(each) == 32 for each in others)


def test_the_keyed_digest_is_an_hmac_of_a_tag():
    """Computed by another interface: a message of no bytes, all of it associated data."""
    encoded = b"s" + (4).to_bytes(8, "big") + b"text"
    tag = AESGCM(ROOT.secret("digest", "tag")).encrypt(bytes(12), b"", encoded)
    key = ROOT.secret("digest", "out")
    assert ROOT.digest("text") == hmac.new(key, tag, hashlib.sha256).digest()


def test_one_flipped_bit_anywhere_changes_the_keyed_digest():
    w = torch.zeros(1000, dtype=torch.uint8)
    found = {ROOT.digest(w)}
    for place in range(0, 1000, 37):
        for bit in (1, 128):
            w[place] = bit
            found.add(ROOT.digest(w))
            w[place] = 0
    assert len(found) == 1 + 2 * len(range(0, 1000, 37))


def test_the_keyed_digest_does_not_depend_on_how_data_is_cut(monkeypatch):
    w = torch.randn(10_001, generator=torch.Generator().manual_seed(0))
    whole = ROOT.digest({"w": w, "half": w.bfloat16()})
    monkeypatch.setattr(_Tag, "LIMIT", 1000)  # where the cipher takes no more at once
    assert ROOT.digest({"w": w, "half": w.bfloat16()}) == whole


def test_a_tag_sees_every_bit_and_the_key_however_data_is_cut(monkeypatch):
    w = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    tag = ROOT.tagging()
    found = {tag(w), ROOT.child("other").tagging()(w)}
    assert tag(w.clone()) == tag(torch.stack([w, w], 1)[:, 0]) == ROOT.tagging()(w)
    for place in range(0, 1000, 111):
        for bit in (0, 17, 31):
            moved = w.clone()
            moved.view(torch.int32)[place] ^= 1 << bit if bit < 31 else -(2**31)
            found.add(tag(moved))
    assert len(found) == 2 + 10 * 3
    assert tag(torch.zeros(0)) == tag(torch.zeros(0, 3))
    monkeypatch.setattr(_Tag, "LIMIT", 1000)
    cut = ROOT.tagging()
    assert len(cut(w)) == 4 * 16 and cut(w) != cut(w.flip(0))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 2**-16])
def test_coins_fall_as_often_as_they_should(share):
    """False alarm: 1e-6 each, under a fixed key."""
    found = ROOT.child("coins").stream().below(torch.arange(400), 2503, share)
    assert found.dtype == torch.bool and found.shape == (400, 2503)
    count = found.numel()
    assert abs(float(found.sum()) - count * share) < 4.9 * math.sqrt(count * share) + 1
    rows = found.double() - share
    for lag in (1, 7, 8, 16):
        product = float((rows[:, :-lag] * rows[:, lag:]).mean()) / (share * (1 - share))
        assert abs(product) < 4.9 / math.sqrt(count - 400 * lag) + 2**-10
    between = float((rows[1:] * rows[:-1]).mean()) / (share * (1 - share))
    assert abs(between) < 4.9 / math.sqrt(399 * 2503) + 2**-10


@pytest.mark.parametrize("width", [1, 7, 8, 9, 1000, 70_000])
def test_coins_belong_to_their_unit_not_to_their_place(width):
    stream = ROOT.stream()
    a = stream.below(torch.tensor([5, 9, 2, 1 << 62]), width, 0.5)
    b = stream.below(torch.tensor([2, 5]), width, 0.5)
    assert torch.equal(a[0], b[1])
    assert torch.equal(a[2], b[0])
    wide = stream.below(torch.arange(300), 1000, 0.5)  # several chunks of rows
    assert torch.equal(wide[257], stream.below(torch.tensor([257]), 1000, 0.5)[0])


def test_coins_are_not_the_rows():
    stream, units = ROOT.stream(), torch.arange(50)
    coins = stream.below(units, 400, 0.5).double() - 0.5
    for uniform in (stream.rows(units, 400), stream.rows(units, 100).repeat_interleave(4, 1)):
        assert abs(float((coins * (uniform - 0.5)).mean()) * math.sqrt(48)) < 4.9 / math.sqrt(5000)


def test_coins_at_the_ends():
    stream, units = ROOT.stream(), torch.arange(3)
    assert not stream.below(units, 5, 0.0).any()
    assert stream.below(units, 5, 1.0).all()
    assert stream.below(units[:0], 5, 0.5).shape == (0, 5)
    assert stream.below(units, 0, 0.5).shape == (3, 0)
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="share="):
            stream.below(units, 5, share)

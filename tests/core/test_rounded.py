"""A noised sum is the exact one rounded: by intervals, near the edge, and in its law."""

import hashlib
import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from nacre.core.normals import box_muller, intervals, plain, refined, rounded
from nacre.core.random import Source

ROOT = Source(bytes(range(1, 33)))


def noised(value, deviation=1.7, source=ROOT):
    out = torch.empty_like(value)
    rounded.add_rounded_noise(source, deviation, [value], [out])
    return out


def exactly(source, deviation, value, places):
    """The same by intervals of 300 bits alone, one by one."""
    spread, step = rounded.grid(deviation)
    blocks, fine = box_muller.Blocks(source, len(value)), refined.Fine(source)
    found, start, block = {}, 0, blocks.next()
    for place in sorted(places):
        while place >= start + len(block.normals):
            start += len(block.normals)
            block = blocks.next()
        bits = block.bits(np.array([place - start]))
        x = float(value[place]) / step
        whole = float(np.rint(x))
        row = fine.words(bits.pairs, 4)[0]
        more = lambda count, row=row: [int(word) for word in row]  # noqa: E731
        found[place] = np.float32(
            (whole + intervals.rounding(x - whole, spread, bits, more)) * step
        )
    return found


@pytest.mark.parametrize("deviation", [1.7, 1.0, 2.0**-60 * 1.999, 3e9])
def test_every_result_is_that_of_real_numbers(deviation):
    """Over sums from far below the step to far beyond 2**24 steps, certain at first or not."""
    count = (1 << 17) + 300
    value = ROOT.child("sum").stream().normal(count).float() * torch.logspace(-6, 9, count)
    value *= deviation
    out = noised(value, deviation)
    some = [*range(0, count, 1000), *range(count - 20, count)]
    found = exactly(ROOT, deviation, value, some)
    assert {i: out[i].numpy().tobytes() for i in some} == {i: x.tobytes() for i, x in found.items()}


def test_what_float32_leaves_open_is_settled_too():
    """All places whose margin is crossed, and those of rare words."""
    count = 1 << 17
    value = torch.zeros(count)
    out, room = np.empty(count, np.float32), np.empty(count, np.int32)
    block = box_muller.Blocks(ROOT, count).next()
    spread, step = rounded.grid(1.0)
    left = box_muller.rounded(block.normals, value.numpy(), spread, step, 1e-3, out, room)
    places = [int(place) for place in room[:left]]
    rare = np.flatnonzero(plain.rare(block.words))
    assert left > 100 and len(rare) > 0 and set(rare) <= set(places)
    result = noised(value, 1.0)
    assert {i: result[i].item() for i in places} == exactly(ROOT, 1.0, value, places)


@pytest.mark.parametrize("zeros", [0, 1, 3])
def test_bits_are_asked_for_until_the_rounding_is_certain(zeros):
    """U begins with 32 + 64 zeros and more: until a one is among its bits, it may be 0 itself."""
    columns = ((0, "u8"), (0, "u4"), (0, "u4"), (0, "?"))
    bits = refined.Bits(*(np.array([value], kind) for value, kind in columns))
    asked = []

    def more(count):
        asked.append(count)
        words = [0] * 2 * zeros + [1 << 63, 0] + [0] * 100
        return words[: 2 * count]

    radius = math.sqrt(2 * (33 + 64 * zeros) * math.log(2))
    assert intervals.rounding(0.25, 20.0, bits, more) == round(0.25 + 20 * radius)
    assert asked == list(range(1, zeros + 2)), "no sooner and no later"


def test_a_tie_of_all_known_digits_asks_for_more():
    """0.5 + a normal next to 0: the angle's bits decide, 64 more at a time."""
    columns = ((0, "u8"), (1 << 31, "u4"), (1 << 30, "u4"), (0, "?"))  # U = 1/2, cos(pi / 2) = 0
    bits = refined.Bits(*(np.array([value], kind) for value, kind in columns))
    for zeros in (0, 2):
        asked = []

        def more(count, zeros=zeros, asked=asked):
            asked.append(count)
            return [*[0, 0] * zeros, 0, 1, *[0] * 100][: 2 * count]

        # Beyond a quarter turn a cosine lies below 0, but it may be 0 until a one is seen.
        assert intervals.rounding(0.5, 20.0, bits, more) == 0
        assert asked == list(range(1, zeros + 2))


def test_vague_normals_go_to_intervals(monkeypatch):
    """A U that begins with 57 zeros, by a keystream that is made to say so."""
    monkeypatch.setattr(refined.Fine, "words", lambda self, pairs, count=1: np.array(
        [[1 << 39, 5, 7, 7, 9, 9][: 2 * count]] * len(pairs), dtype=np.uint64))  # fmt: skip
    columns = (([0], "u8"), ([0], "u4"), ([0], "u4"), ([False], "?"))
    bits = refined.Bits(*(np.array(value, kind) for value, kind in columns))
    found = rounded.settled(bits, np.zeros(1, np.float32), 20.0, 0.5, refined.Fine(ROOT))
    assert found[0] == 0.5 * round(20 * math.sqrt(2 * 57 * math.log(2)))


@pytest.mark.slow
def test_what_float64_leaves_open_goes_to_intervals(monkeypatch):
    """With a margin of nearly a half nothing is certain in float64, and the results are equal."""
    value = ROOT.child("few").stream().normal(900).float()
    before = noised(value)
    called = []
    original = intervals.rounding
    monkeypatch.setattr(intervals, "rounding", lambda *args: called.append(1) or original(*args))
    monkeypatch.setattr(rounded, "_FINE", 0.49)
    monkeypatch.setattr(rounded, "_slack", lambda spread: 0.4)
    assert torch.equal(noised(value), before)
    assert len(called) > 300


def test_results_lie_on_a_grid_that_the_deviation_alone_decides():
    for deviation in (1e-3, 0.7, 1.0, 1.5, 2.0, 1e6):
        spread, step = rounded.grid(deviation)
        assert 16 <= spread < 32 and math.frexp(step)[0] == 0.5 and spread * step == deviation
        out = noised(torch.randn(1000, generator=torch.Generator().manual_seed(0)), deviation)
        assert torch.equal(out, (out / step).round() * step)


def test_the_law_is_the_normal_one_rounded():
    """A million draws, by chi-squared over the cells of the grid; p below 1e-6 fails."""
    deviation, count = 1.25, 1 << 20
    spread, step = rounded.grid(deviation)
    cells = (noised(torch.full((count,), 0.37), deviation) / step).long().numpy()
    edges = np.arange(-100, 102)
    shift = 0.37 / step
    law = np.diff(stats.norm.cdf((np.append(edges, 102) - 0.5 - shift) / spread))
    seen = np.array([(cells == edge).sum() for edge in edges])
    enough = law * count > 10
    assert enough.sum() > 100
    statistic = ((seen - law * count) ** 2 / (law * count))[enough].sum()
    assert stats.chi2.sf(statistic, enough.sum()) > 1e-6


@pytest.mark.parametrize("share", [0.0, -0.0, -1e-30, -0.3, -0.5, 0.3])
def test_a_result_of_zero_has_no_sign(share, monkeypatch):
    """-0 would come of sums just below 0 alone, and tell them from those above."""
    step = rounded.grid(1.0)[1]
    value = torch.full((1 << 16,), share * step)
    for made_by in (box_muller.rounded, plain.rounded):
        monkeypatch.setattr(box_muller, "rounded", made_by)
        for slack in (None, 0.6):  # 0.6: every place is settled in float64
            if slack is not None:
                monkeypatch.setattr(rounded, "_slack", lambda spread: 0.6)
            out = noised(value, 1.0)
            assert int((out == 0).sum()) > 100
            assert not torch.signbit(out[out == 0]).any()
        monkeypatch.undo()


def test_other_types_are_refused():
    for dtype in (torch.float16, torch.float64, torch.int32):
        with pytest.raises(ValueError, match="float32"):
            noised(torch.zeros(4, dtype=dtype))


def test_the_half_is_not_rounded_away(monkeypatch):
    """A normal of 1/2 - 2**-193 rounds to 0, which adding a half with fewer digits would miss."""
    columns = ((0, "u8"), (1, "u4"), (0, "u4"), (0, "?"))
    bits = refined.Bits(*(np.array([value], kind) for value, kind in columns))
    monkeypatch.setattr(
        intervals, "normal", lambda *_: mpmath.iv.mpf(0.5) - mpmath.iv.mpf(2) ** -193
    )
    before = mpmath.iv.prec, mpmath.mp.prec
    assert intervals.rounding(0.0, 1.0, bits, lambda count: [0, 0] * count) == 0
    assert (mpmath.iv.prec, mpmath.mp.prec) == before


def test_known_answers():
    """The same on every processor and with every library: keys and sums alone decide."""
    count = 200_000
    value = torch.arange(count) % 1009 / 64 - 7
    found = hashlib.sha256(noised(value, 0.7).numpy().tobytes()).hexdigest()
    assert found == "aba31b48e0e432aba0a796e6742f44d61d0e48ac05348863f900b825d7acb7f8"


def test_numbers_do_not_depend_on_how_they_are_cut_and_what_is_not_finite_stays():
    value = ROOT.child("cut").stream().normal(300_000).float()
    value[5], value[150_000], value[-1] = math.inf, -math.inf, math.nan
    whole = noised(value)
    parts = list(value.clone().split([1, 70_000, 131_072, 5, 98_922]))
    rounded.add_rounded_noise(ROOT, 1.7, parts, parts)  # in place
    joined = torch.cat(parts)
    assert torch.equal(joined.nan_to_num(7), whole.nan_to_num(7))
    assert whole[5] == math.inf and whole[150_000] == -math.inf and whole[-1].isnan()
    assert int(whole.isfinite().sum()) == len(value) - 3


def test_huge_sums_stay_what_they_are():
    value = torch.tensor([3e38, -3e38, 1e30, 0.0])
    out = noised(value, 1e-20)
    assert torch.equal(out[:3], value[:3]) and 0 < abs(float(out[3])) < 1e-18


@pytest.mark.parametrize("deviation", [1e-31, 2e30, 0.0, math.nan, math.inf])
def test_deviations_without_a_grid_are_refused(deviation):
    with pytest.raises(ValueError, match="clipping norm nearer to 1"):
        noised(torch.zeros(3), deviation)


def test_an_empty_sum_is_no_error():
    assert noised(torch.zeros(0)).numel() == 0


@pytest.mark.skipif(not box_muller.COMPILED, reason="not built")
def test_compiled_digits_are_those_of_numpy():
    """Both are within 1e-12 of the exact normal, and nothing that is released differs."""
    words = ROOT.stream().words(6000).reshape(3, 2000)
    bits = refined.Bits(
        np.arange(2000, dtype=np.uint64), words[0].astype(np.uint32),
        (words[0] >> np.uint64(32)).astype(np.uint32), words[1] % 2 == 0,
    )  # fmt: skip
    bits.words[:4] = 0, 1, (1 << 31) - 1, (1 << 32) - 1
    fine = np.ascontiguousarray(words[1:].T)
    assert rounded._compiled is not None
    found = rounded._doubles(bits, fine)
    assert np.abs(found - refined.doubles(bits, fine)).max() < 1e-12


def test_a_release_is_the_same_without_the_compiled_digits(monkeypatch):
    value = ROOT.child("sums").stream().normal(60_000).float()
    before = noised(value)
    monkeypatch.setattr(rounded, "_compiled", None)
    assert torch.equal(noised(value), before)

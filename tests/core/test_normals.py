"""The law of fast normals, their tails, their independence, and what they depend on.

Keys are fixed, so a test passes always or never. With fresh keys each statistical check here would
fail about once in 10**6 runs: 4.9 deviations of its figure, or a p-value of 10**-6.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from nacre.core.normals import box_muller, plain
from nacre.core.normals.box_muller import Normals
from nacre.core.normals.refined import Bits, Fine, doubles, vague
from nacre.core.random import Source

ROOT = Source(bytes(range(32)))
KOLMOGOROV = 2.7  # sqrt(n) D exceeds it with probability 2 exp(-2 * 2.7**2) = 9e-7


def draw(source, count):
    return Normals(source, count).onto(torch.zeros(count), 1.0, torch.empty(count))


@pytest.fixture(scope="module")
def many():
    return draw(ROOT.child("law"), 10**7)


@pytest.mark.slow
def test_ten_million_draws_follow_the_normal_law(many):
    found = torch.special.ndtr(many.sort().values.double())
    count = len(many)
    steps = torch.arange(count + 1, dtype=torch.float64) / count
    distance = max(float((steps[1:] - found).max()), float((found - steps[:-1]).max()))
    assert distance * math.sqrt(count) < KOLMOGOROV


@pytest.mark.parametrize(
    ("power", "moment", "variance"),
    [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)],
)
def test_moments(many, power, moment, variance):
    found = float(many.double().pow(power).mean())
    assert abs(found - moment) < 4.9 * math.sqrt(variance / len(many))


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0, 4.0, 4.5])
def test_frequencies_beyond(many, sigma):
    expected = len(many) * stats.norm.sf(sigma)
    for tail in (many > sigma, many < -sigma):
        assert abs(int(tail.sum()) - expected) < 4.9 * math.sqrt(expected) + 1


@pytest.fixture(scope="module")
def rare():
    """Draws given that U < 2**-14: every pair is one of those that need more bits."""
    words = ROOT.child("rare").stream().words(1 << 20)
    bits = Bits(
        np.arange(len(words), dtype=np.uint64), (words >> np.uint64(46)).astype("<u4"),
        words.astype("<u4"), np.zeros(len(words), np.bool_),
    )  # fmt: skip
    fine = Fine(ROOT).words(bits.pairs)
    both = [doubles(replace(bits, second=bits.second | sine), fine) for sine in (False, True)]
    return torch.from_numpy(np.stack(both))


@pytest.mark.slow
def test_rare_radii_go_on_where_32_bits_end(rare):
    """R² / 2 beyond 14 ln 2 is exponential again, as it has no memory."""
    excess = rare.square().sum(0) / 2 - 14 * math.log(2)
    assert stats.kstest(excess.numpy(), "expon").pvalue > 1e-6
    assert float(excess.max()) > 18 * math.log(2), "else nothing followed the 32 bits"


@pytest.mark.parametrize("sigma", [4.45, 5.0, 5.5, 6.0])
def test_frequencies_far_out(rare, sigma):
    """Who lies beyond sqrt(28 ln 2) = 4.41 deviations has U < 2**-14: weigh by that, exactly."""
    expected = rare.numel() * 2 * stats.norm.sf(sigma) * 2**14
    found = int((rare.abs() > sigma).sum())
    assert abs(found - expected) < 4.9 * math.sqrt(expected) + 1


ENDS = np.array(
    [0, 1, plain.LEAST - 1, plain.LEAST, 1 << 31, plain.MOST - 1, plain.MOST, (1 << 32) - 1,
     3_037_000_499, 3_037_000_500], dtype="<u4",
)  # fmt: skip
TURNS = np.array([k * (1 << 29) + d & 0xFFFFFFFF for k in range(9) for d in (-1, 0, 1)], "<u4")


def edges():
    """Words where a formula changes, with angles where one does, and many between them."""
    words, angles = (grid.reshape(-1).copy() for grid in np.meshgrid(ENDS, TURNS))
    more = ROOT.child("bits").stream().words(1 << 17)
    return (
        np.concatenate([words, more.astype("<u4")]),
        np.concatenate([angles, (more >> np.uint64(32)).astype("<u4")]),
    )


def test_no_bits_give_anything_but_a_number():
    words, angles = edges()
    pairs = np.arange(len(words), dtype=np.uint64)
    for spare in (0, 1 << 40, (1 << 64) - 1):
        fine = np.full((len(words), 2), spare, dtype=np.uint64)
        for second in (False, True):
            found = doubles(Bits(pairs, words, angles, np.full(len(words), second)), fine)
            assert np.isfinite(found).all()
            assert np.abs(found).max() <= math.sqrt(2 * 97 * math.log(2))


def test_only_what_begins_with_56_zeros_is_vague():
    bits = Bits(*(np.array(some, kind) for some, kind in (([0, 1], "u8"), ([0, 1], "u4"),
                ([0, 0], "u4"), ([0, 0], "?"))))  # fmt: skip
    for first, expected in ((1 << 40, [False, False]), ((1 << 40) - 1, [True, False])):
        fine = np.array([[first, 0], [0, 0]], np.uint64)
        assert vague(bits, fine).tolist() == expected


def test_float32_lies_within_its_error_of_the_exact_normals():
    words, angles = edges()
    found = np.empty(2 * len(words), np.float32)
    box_muller.normals(words, angles, found)
    pairs = np.arange(len(words), dtype=np.uint64)
    for second, half in ((False, found[: len(words)]), (True, found[len(words) :])):
        for more in (0, (1 << 64) - 1):  # whatever the bits that follow
            fine = np.full((len(words), 2), more, dtype=np.uint64)
            exact = doubles(Bits(pairs, words, angles, np.full(len(words), second)), fine)
            known = ~plain.rare(words)
            assert np.isnan(half[~known]).all() and not np.isnan(half[known]).any()
            assert np.abs(half - exact)[known].max() < 0.6 * box_muller.ERROR


def test_compiled_and_plain_give_the_same_bits():
    if not box_muller.COMPILED:
        assert "CI" not in os.environ, "CI needs a C compiler"
        pytest.skip("no C compiler was there when Nacre was installed")
    words, angles = edges()
    found = [np.empty(2 * len(words), np.float32) for _ in range(2)]
    box_muller.normals(words, angles, found[0])
    plain.normals(words, angles, found[1])
    assert (found[0].view("<u4") == found[1].view("<u4")).all()
    scale = 10.0 ** np.linspace(-6, 30, len(found[0]))
    sums = (found[0][::-1] * scale).astype(np.float32)
    sums[:6] = [np.inf, -np.inf, np.nan, 0, -0.0, 1e-45]
    for spread, step in ((16.0, 2.0**-20), (24.3, 2.0**-5), (31.9, 2.0**10), (20.0, 2.0**-110)):
        results, places = [], []
        for rounded in (box_muller.rounded, plain.rounded):
            out, room = np.empty_like(sums), np.empty(len(sums), np.int32)
            count = rounded(found[0], sums, spread, step, 1e-3, out, room)
            results.append(out.view("<u4"))
            places.append(room[:count].tolist())
        assert (results[0] == results[1]).all()
        assert places[0] == places[1] and len(places[0]) > 10


@pytest.mark.parametrize("lag", [1, 2, 3, 8, 16, 4096, 1 << 16, 1 << 17, 1 << 19])
def test_neighbours_know_nothing_of_each_other(many, lag):
    """Not their values, nor their sizes: the two of a pair share a radius, 2**16 apart."""
    some, others = many[:-lag].double(), many[lag:].double()
    limit = 4.9 / math.sqrt(len(some))
    assert abs(float((some * others).mean())) < limit
    size = (some.square() - 1) * (others.square() - 1) / 2
    assert abs(float(size.mean())) < limit


@pytest.mark.parametrize(
    ("a", "b"), [(("noise", 1), ("noise", 2)), (("noise", 1), ("noise", 1, b"entered"))]
)
def test_other_labels_give_independent_normals(a, b):
    count = 1 << 20
    x, y = (draw(ROOT.child(*labels), count).double() for labels in (a, b))
    assert abs(float((x * y).mean())) < 4.9 / math.sqrt(count)


def test_numbers_do_not_depend_on_how_they_are_cut_into_tensors():
    count = (1 << 19) + 77
    whole = draw(ROOT, count)
    parts = Normals(ROOT, count)
    sizes = [1, 1000, 1 << 18, 5, count - (1 << 18) - 1006]
    cut = [parts.onto(torch.zeros(size), 1.0, torch.empty(size)) for size in sizes]
    assert torch.equal(torch.cat(cut), whole)


def test_numbers_do_not_depend_on_threads():
    sources = [ROOT.child(i) for i in range(6)]
    alone = [draw(source, 300_001) for source in sources]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda source: draw(source, 300_001), sources))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        two = draw(sources[0], 300_001)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert torch.equal(alone[0], two)


@pytest.mark.parametrize("count", [1, 2, 3, 17, 130, 4097])
def test_any_count(count):
    found = draw(ROOT, count)
    assert found.shape == (count,)
    assert torch.isfinite(found).all() and float(found.abs().min()) > 0


def test_the_sum_and_its_noise_may_share_memory():
    value = torch.arange(1000.0)
    apart = Normals(ROOT, 1000).onto(value, 0.3, torch.empty(1000))
    assert torch.equal(value, torch.arange(1000.0))
    assert torch.equal(Normals(ROOT, 1000).onto(value, 0.3, value), apart)


def test_normals_whose_memory_was_taken_are_refused():
    first, other = Normals(ROOT, 10), Normals(ROOT.child("other"), 10)
    first.onto(torch.zeros(4), 1.0, torch.empty(4))
    other.onto(torch.zeros(4), 1.0, torch.empty(4))
    with pytest.raises(RuntimeError, match="took the memory"):
        first.onto(torch.zeros(4), 1.0, torch.empty(4))


def test_more_than_announced_is_refused():
    numbers = Normals(ROOT, 3)
    with pytest.raises(ValueError, match="announced"):
        numbers.onto(torch.zeros(4), 1.0, torch.empty(4))


@pytest.mark.parametrize("counter", [True, False])
def test_bits_are_aes_256_in_counter_mode(counter, monkeypatch):
    """The same blocks, one by one: the nonce, then a counter that GCM starts at 2; by either mode,
    whichever is quicker here."""
    monkeypatch.setattr(box_muller, "counter_is_quicker", lambda: counter)
    blocks = box_muller.Blocks(ROOT, 2 * (box_muller.PAIRS + 20_000))
    found = b""
    for _ in range(2):
        block = blocks.next()
        found += block.words.tobytes() + block.angles.tobytes()
    counters = b"".join(bytes(12) + (2 + j).to_bytes(4, "big") for j in range(-(-len(found) // 16)))
    key = algorithms.AES256(ROOT.secret("normals", 2))
    assert found == Cipher(key, modes.ECB()).encryptor().update(counters)[: len(found)]
    with pytest.raises(ValueError, match="announced"):
        blocks.next()


def test_a_process_asks_once_which_mode_is_quicker():
    assert len({box_muller.counter_is_quicker() for _ in range(20)}) == 1
    assert box_muller.counter_is_quicker.cache_info().misses == 1

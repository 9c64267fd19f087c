"""The law of fast normals, their tails, their independence, and what they depend on.

Keys are fixed, so a test passes always or never. With fresh keys each statistical check here would
fail about once in 10**6 runs: 4.9 deviations of its figure, or a p-value of 10**-6.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from nacre.core import normals
from nacre.core.normals import Normals
from nacre.core.random import Source

ROOT = Source(bytes(range(32)))
KOLMOGOROV = 2.7  # sqrt(n) D exceeds it with probability 2 exp(-2 * 2.7**2) = 9e-7


def draw(source, count):
    return Normals(source, count).onto(torch.zeros(count), 1.0, torch.empty(count))


@pytest.fixture(scope="module")
def many():
    return draw(ROOT.child("law"), 10**7)


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
    """Draws given that U < 2**-12: every pair takes the path of one in 4096."""
    drawn = []
    for number in range(8):
        words = ROOT.child("rare", number).stream().words(3 << 17)
        low = words[: 1 << 17].astype("<u4") >> np.uint32(12)
        angles = (words[1 << 17 : 2 << 17] >> np.uint64(32)).astype("<u4").view("<i4")
        drawn.append(normals._pairs(low, angles, words[2 << 17 :]).clone() * normals._SCALE)
    return torch.stack(drawn).double()


def test_rare_radii_go_on_where_32_bits_end(rare):
    """R² / 2 beyond 12 ln 2 is exponential again, as it has no memory."""
    first, second = rare.chunk(2, dim=1)
    excess = (first.square() + second.square()).reshape(-1) / 2 - 12 * math.log(2)
    assert stats.kstest(excess.numpy(), "expon").pvalue > 1e-6
    assert float(excess.max()) > 20 * math.log(2), "else nothing followed the 32 bits"


@pytest.mark.parametrize("sigma", [4.1, 5.0, 5.5, 6.0])
def test_frequencies_far_out(rare, sigma):
    """Who lies beyond sqrt(24 ln 2) = 4.08 deviations has U < 2**-12: weigh by that, exactly."""
    expected = rare.numel() * 2 * stats.norm.sf(sigma) * 2**12
    found = int((rare.abs() > sigma).sum())
    assert abs(found - expected) < 4.9 * math.sqrt(expected) + 1


def test_no_bits_give_anything_but_a_number():
    ends = np.array([0, 1, (1 << 20) - 1, 1 << 20, 1 << 31, (1 << 32) - 1], dtype="<u4")
    turns = np.array([-(1 << 31), -1, 0, 1, 1 << 30, (1 << 31) - 1], dtype="<i4")
    words, angles = (grid.reshape(-1).copy() for grid in np.meshgrid(ends, turns))
    for spare in (0, (1 << 64) - 1):
        fresh = np.full(len(words), spare, dtype="<u8")
        found = normals._pairs(words.copy(), angles, fresh) * normals._SCALE
        assert torch.isfinite(found).all()
        assert float(found.abs().max()) <= math.sqrt(2 * 97 * math.log(2))


def test_each_pair_is_the_exact_one_rounded():
    """Against float64, for the same bits: a few units in the last place of the radius."""
    words = ROOT.child("exact").stream().words(1 << 16)
    u, angle = words.astype("<u4"), (words >> np.uint64(32)).astype("<u4").view("<i4")
    u = np.maximum(u, 1 << 20)
    radius = np.sqrt(-2 * np.log(u * 2.0**-32))
    turn = angle * (2 * math.pi / 2**32)
    found = normals._pairs(u.copy(), angle, np.zeros(0, dtype="<u8")).double().numpy()
    first, second = np.split(found * normals._SCALE, 2)
    # Where U is nearly 1 the radius is nearly 0, and is rounded by some 2**-24 / radius.
    slack = 1e-6 * radius + 4e-7 / np.maximum(radius, 1e-3)
    assert (np.abs(first - radius * np.cos(turn)) < slack).all()
    assert (np.abs(second - radius * np.sin(turn)) < slack).all()


@pytest.mark.parametrize("lag", [1, 2, 3, 8, 16, 4096, 1 << 17, 1 << 18, 1 << 19])
def test_neighbours_know_nothing_of_each_other(many, lag):
    """Not their values, nor their sizes: the two of a pair share a radius, 2**18 apart."""
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


def test_more_than_announced_is_refused():
    numbers = Normals(ROOT, 3)
    with pytest.raises(ValueError, match="announced"):
        numbers.onto(torch.zeros(4), 1.0, torch.empty(4))


def test_bits_are_aes_256_in_counter_mode():
    """The same blocks, one by one: the nonce, then a counter that GCM starts at 2."""
    key = bytes(range(32))
    words, angles, fresh = normals._words(algorithms.AES256(key), 5, 20_000)
    found = words.tobytes() + angles.tobytes() + fresh.tobytes()
    count = -(-len(found) // 16)
    blocks = b"".join((5).to_bytes(12, "big") + (2 + j).to_bytes(4, "big") for j in range(count))
    encrypted = Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update(blocks)
    assert found == encrypted[: len(found)]

"""Masks cancel, look uniform, and those of two rounds have nothing in common."""

import numpy as np
import pytest
from scipy import stats

from nacre.federated_learning.secure.masks import add_masks, ring_type, unpacked
from tests.federated_learning.secure.rounds import Federation

FALSE_ALARM = 1e-6
"""Of each statistical test here."""


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("size", [0, 1, 7, 65536, 70001])
def test_a_mask_is_taken_away_by_its_own_seed(bits, size):
    start = np.arange(size).astype(ring_type(bits))
    vector = start.copy()
    add_masks(vector, [(bytes(32), 1)])
    assert size < 2 or not (vector == start).all()
    other = vector.copy()
    add_masks(other, [(bytes([1]) * 32, -1)])
    add_masks(vector, [(bytes(32), -1)])
    assert (vector == start).all()
    assert size < 2 or not (other == start).all()


def test_a_mask_is_one_keystream_from_the_start():
    """Chunks follow each other in the keystream of AES-256 in counter mode."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    vector = np.zeros(100_000, dtype="<u4")
    add_masks(vector, [(bytes(range(32)), 1)])
    stream = Cipher(algorithms.AES256(bytes(range(32))), modes.CTR(bytes(16))).encryptor()
    assert vector.tobytes() == stream.update(bytes(400_000))


def _masked(seed, bits):
    """Each party's masked vector in two rounds, of changes that are zero."""
    made = Federation(3, 3, seed=seed, scale=0.0, bits=bits)
    for number in (0, 1):
        made.round(number)
    found = {}
    from nacre.federated_learning.secure import wire
    from nacre.federated_learning.signed import addressed, enclosed

    for way, kind, name, data in made.wire.seen:
        if (way, kind) == ("reply", wire.MASK):
            body = wire.read_body(enclosed(data), "commitment", "how")[1]
            size = 17 * bits // 8
            found[name, addressed(data).round] = bytes(body[len(body) - size :])
    return found


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_masked_changes_look_uniform_and_rounds_are_independent(bits):
    """All changes are zero here, so any structure that is seen would be that of the masks. Bytes by
    chi-square; pairs of bytes of one entry in two rounds, and of two parties in one round, by
    chi-square of their difference modulo 256, which is uniform for independent ones."""
    found = [_masked(seed, bits) for seed in range(60)]
    single = b"".join(data for masked in found for data in masked.values())
    rounds = [(m[name, 0], m[name, 1]) for m in found for name in ("p000", "p001", "p002")]
    parties = [(m["p000", n], m["p001", n]) for m in found for n in (0, 1)]

    def differences(pairs):
        first, second = (np.frombuffer(b"".join(x), np.uint8) for x in zip(*pairs, strict=True))
        return (first.astype(int) - second) % 256

    for values in (np.frombuffer(single, np.uint8), differences(rounds), differences(parties)):
        counts = np.bincount(values, minlength=256)
        assert stats.chisquare(counts).pvalue > FALSE_ALARM


def test_the_vector_of_a_party_differs_from_its_change_and_the_sum_does_not():
    made = Federation(3, 3)
    total = made.round()
    want = made.expected(made.names)
    assert all((total.total[name] == want[name]).all() for name in want)
    masked = _masked(0, 32)["p000", 0]
    assert (unpacked(masked, 32) != made.encoded("p000")).sum() >= 16

"""The compiled hash against the tags of OpenSSL, and digests under way against whole ones."""

import pytest
import torch
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from nacre.core.digests import ghash
from nacre.core.random import Source

ROOT = Source(bytes(range(32)))
DATA = ROOT.stream().words(700).tobytes()

compiled = pytest.mark.skipif(not ghash.COMPILED, reason="no such instructions, or not built")


@compiled
@pytest.mark.parametrize("key", [bytes(32), bytes(range(32)), b"\xff" * 32])
def test_tags_are_those_of_openssl(key):
    """Every length up to two times what shares a reduction, and some above."""
    cipher = AESGCM(key)
    of = ghash.tagging(key)
    for size in [*range(1, 530), 1023, 1024, 1025, 4111, len(DATA)]:
        assert of(memoryview(DATA)[:size]) == cipher.encrypt(bytes(12), b"", DATA[:size])


@compiled
def test_tags_do_not_depend_on_how_data_is_cut_nor_on_where_it_lies():
    whole = AESGCM(bytes(32)).encrypt(bytes(12), b"", DATA[3:1500])
    for first in range(0, 40):
        for second in (first, first + 1, first + 15, first + 16, 700):
            tag = ghash.Tag(bytes(32))
            for part in (
                DATA[3 : 3 + first],
                DATA[3 + first : 3 + second],
                DATA[3 + second : 1500],
            ):
                tag.update(part)
            other = tag.copy()
            assert tag.finish() == tag.finish() == whole
            other.update(b"more")
            assert other.finish() != whole == tag.finish()


@compiled
def test_a_state_is_nothing_else():
    for wrong in (bytearray(3), b"x" * 296, "state"):
        with pytest.raises(TypeError, match="a state is what"):
            ghash.compiled.finish(wrong)
    with pytest.raises(ValueError, match="16 bytes"):
        ghash.compiled.begin(bytes(15))


def test_a_digest_under_way_ends_as_the_whole_one(monkeypatch):
    tensors = {"b": torch.arange(5.0), "a": torch.ones(3, 700), "none": torch.zeros(0)}
    whole = ROOT.digest("entering", tensors, 7, "clip", b"")
    running = ROOT.running()
    assert (running is not None) == ghash.COMPILED
    if running is not None:
        marks = running.marks("entering", tensors)
        assert list(marks) == ["a", "b", "none"]
        assert running.ended(7, "clip", b"") == whole == running.ended(7, "clip", b"")
        assert running.ended(8, "clip", b"") != whole
    monkeypatch.setattr(ghash, "COMPILED", False)
    assert ROOT.running() is None and ROOT.digest("entering", tensors, 7, "clip", b"") == whole


@compiled
def test_marks_change_from_the_first_tensor_that_differs_on():
    tensors = {name: torch.zeros(50) for name in "abcd"}
    before = ROOT.running().marks("entering", tensors)
    tensors["c"][49] = -0.0
    after = ROOT.running().marks("entering", tensors)
    assert [name for name in before if before[name] != after[name]] == ["c", "d"]

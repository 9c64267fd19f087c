import numpy as np
import pytest
import torch
from scipy import stats

from nacre.core.random import Source, digest

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


def test_rows_of_nobody():
    assert ROOT.stream().rows(torch.zeros(0, dtype=torch.int64), 3).shape == (0, 3)


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

import gzip
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nacre.core.errors import DataError
from nacre.data import Arrays, Holdout, Images, NoScaling, PublicFile, PublicScaling
from nacre.data.arrays import read_idx

ARRAYS = Arrays(path="rows.npz", shape=(3,), classes=2, low=0, high=9, size=4)
X = np.arange(12).reshape(4, 3) % 10
Y = np.array([0, 1, 0, 1])


def read(folder, option=ARRAYS, **arrays):
    np.savez(folder / "rows.npz", **{"x": X, "y": Y, **arrays})
    return option.read(folder, 0, b"k")


def test_arrays_become_rows(tmp_path):
    cohorts = read(tmp_path)
    assert cohorts.private.features.tolist() == X.tolist()
    assert cohorts.private.features.dtype == torch.float32
    assert cohorts.private.label.tolist() == Y.tolist()
    assert (cohorts.private.group, cohorts.test, cohorts.public) == (None, None, None)


def test_groups_and_parties_come_from_arrays(tmp_path):
    option = replace(ARRAYS, unit="who", party="site")
    rows = read(tmp_path, option, who=np.array([7, 7, 8, 9]), site=np.array(list("abab"))).private
    assert rows.group == ("7", "7", "8", "9") and rows.party == ("a", "b", "a", "b")


def test_grey_images_need_no_channel_and_labels_may_stand_in_a_column(tmp_path):
    option = replace(ARRAYS, shape=(1, 2, 2))
    rows = read(tmp_path, option, x=np.zeros((4, 2, 2), np.uint8), y=Y[:, None]).private
    assert rows.features.shape == (4, 1, 2, 2) and rows.label.shape == (4,)


def test_public_rows_and_a_holdout(tmp_path):
    np.savez(tmp_path / "public.npz", x=X[:2], y=Y[:2])
    option = replace(
        ARRAYS,
        public=PublicFile(path="public.npz"),
        scaling=PublicScaling(),
        holdout=Holdout(share=0.5),
    )
    x = np.random.default_rng(0).uniform(0, 9, (40, 3))
    cohorts = read(tmp_path, option, x=x, y=np.arange(40) % 2)
    assert len(cohorts.public) == 2 and len(cohorts.private) + len(cohorts.test) == 40
    assert option.has_public and option.has_test


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X[:, :2]}, r"inputs of shape \(2,\) where \(3,\) is declared"),
        ({"x": np.float64(3)}, r"inputs of shape \(\)"),
        ({"y": Y[:3]}, r"4 inputs and labels of shape \(3,\)"),
        ({"y": Y.astype(float)}, "labels of type float64"),
        ({"x": X.astype(str)}, "features of type <U"),
        ({"x": X.astype(object)}, "without running code"),
        ({"x": np.where(X == 5, np.nan, X)}, "not a finite number in row 2"),
        ({"x": X * 1e300}, "not a finite number in 4 rows"),
        ({"x": X * 2}, r"outside \[0.*, 9.*\] in 3 rows \(first: row 2\)"),
        ({"y": Y + 1}, "the label is none of 0 … 1 in 2 rows"),
        ({"y": Y * 0}, "no private row has class '1'"),
        ({"x": X[:0], "y": Y[:0]}, "leaves no private rows"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, **arrays)


def test_a_missing_array_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no array 'z' \(it has x, y\)"):
        read(tmp_path, replace(ARRAYS, features="z"))


@pytest.mark.parametrize(
    ("who", "message"),
    [(np.array([1, 2]), "one value a row"), (np.array(["a", "", "b", "c"]), "no value in row 2")],
)
def test_a_group_array_that_does_not_fit_is_refused(tmp_path, who, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, replace(ARRAYS, unit="who"), who=who)


def test_a_single_array_is_not_enough(tmp_path):
    with (tmp_path / "rows.npz").open("wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match="is a single array"):
        ARRAYS.read(tmp_path, 0, b"k")


@pytest.mark.slow
@given(st.binary(max_size=100), st.integers(0, 400))
def test_no_bytes_at_all_escape_as_another_error(tmp_path_factory, content, cut):
    folder = tmp_path_factory.mktemp("fuzz")
    np.savez_compressed(folder / "whole.npz", x=X, y=Y)
    whole = (folder / "whole.npz").read_bytes()
    for damaged in (content, whole[:cut], whole[:cut] + content + whole[cut + len(content) :]):
        (folder / "rows.npz").write_bytes(damaged)
        try:
            assert len(ARRAYS.read(folder, 0, b"k").private)
        except DataError as refusal:
            assert "\n" not in str(refusal)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 0}, "size=0"),
        ({"shape": ()}, "shape="),
        ({"shape": (3, 0)}, "shape="),
        ({"classes": 1}, "classes=1 must be at least 2"),
        ({"low": 9}, "low=9 must be below high=9"),
        ({"low": None}, "the inputs has none"),
        ({"scaling": PublicScaling()}, "needs public rows"),
    ],
)
def test_impossible_arrays_are_refused_before_a_row_is_read(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(ARRAYS, **fields)


def test_ranges_may_stay_open(tmp_path):
    open_range = replace(ARRAYS, low=None, high=None, scaling=NoScaling())
    assert len(read(tmp_path, open_range, x=X * 1000).private) == 4


IMAGES = Images(images="x.idx", labels="y.idx", shape=(1, 2, 2), classes=2, size=3)
PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 2, 2) * 20
CLASSES = np.array([0, 1, 1], dtype=np.uint8)


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def put(folder, names="x.idx y.idx"):
    images, labels = names.split()
    (folder / images).write_bytes(idx(PIXELS))
    (folder / labels).write_bytes(idx(CLASSES))


def test_idx_files_become_rows(tmp_path):
    put(tmp_path)
    rows = IMAGES.read(tmp_path, 0, b"k").private
    assert rows.features.shape == (3, 1, 2, 2)
    assert rows.features.flatten().tolist() == PIXELS.flatten().tolist()
    assert rows.label.tolist() == [0, 1, 1]
    assert (IMAGES.unit, IMAGES.party, IMAGES.has_test) == (None, None, False)


def test_idx_files_may_be_packed_whatever_their_name(tmp_path):
    put(tmp_path)
    (tmp_path / "x.idx").write_bytes(gzip.compress(idx(PIXELS), mtime=0))
    assert len(IMAGES.read(tmp_path, 0, b"k").private) == 3


def test_test_and_public_files(tmp_path):
    for names in ("x.idx y.idx", "tx ty", "px py"):
        put(tmp_path, names)
    option = replace(
        IMAGES, test_images="tx", test_labels="ty", public_images="px", public_labels="py",
        scaling=PublicScaling(),
    )  # fmt: skip
    cohorts = option.read(tmp_path, 0, b"k")
    assert len(cohorts.test) == len(cohorts.public) == 3
    assert option.has_test and option.has_public


def test_a_holdout_of_images(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "x.idx").write_bytes(idx(rng.integers(0, 256, (40, 2, 2))))
    (tmp_path / "y.idx").write_bytes(idx(np.arange(40) % 2))
    cohorts = replace(IMAGES, holdout=Holdout(share=0.5)).read(tmp_path, 0, b"k")
    assert len(cohorts.private) + len(cohorts.test) == 40


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no IDX file of bytes"),
        (b"\x00\x00", r"it starts with 0x0000\)"),
        (b"\x00\x00\x0d\x01" + bytes(8), "is no IDX file of bytes"),
        (b"\x00\x00\x08\x09" + bytes(99), "is no IDX file of bytes"),
        (idx(PIXELS)[:-1], "declares 12 bytes in its header and holds 11"),
        (idx(PIXELS) + b"x", "declares 12 bytes in its header and holds more"),
        (idx(PIXELS)[:9], "holds 0"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "so it is damaged"),
        (gzip.compress(idx(PIXELS), mtime=0)[:-9], "is a damaged gzip file"),
        (b"\x1f\x8bnonsense", "is a damaged gzip file"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, content, message):
    (tmp_path / "x.idx").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "x.idx")


def test_a_vanished_idx_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path / "gone")


@pytest.mark.slow
@given(st.binary(max_size=60))
def test_no_idx_bytes_escape_as_another_error(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("fuzz") / "x.idx"
    for damaged in (content, b"\x00\x00\x08\x01" + content, b"\x1f\x8b\x08" + content):
        file.write_bytes(damaged)
        try:
            assert read_idx(file).dtype == np.uint8
        except DataError as refusal:
            assert "\n" not in str(refusal)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"test_images": "t"}, "test_images and test_labels need each other"),
        ({"public_labels": "t"}, "public_images and public_labels need each other"),
        (
            {"test_images": "t", "test_labels": "u", "holdout": Holdout()},
            "holdout and test_images exclude each other",
        ),
        ({"scaling": PublicScaling()}, "needs public rows"),
        ({"classes": 0}, "classes=0"),
    ],
)
def test_impossible_images_are_refused_before_a_row_is_read(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(IMAGES, **fields)

import json
import struct

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris

from nacre.core.errors import DataError
from nacre.data import Arrays, Builtin, Bytes, ColumnSpec, Holdout, Images, Table, Text
from nacre.data.dataset import Cohorts, Column, Rows, Schema, checked
from nacre.data.split import Test as Share

SCHEMA = Schema((1,), (Column("x", "number", 0, 1),), "classification", ("no", "yes"))


def rows(labels, **columns):
    return Rows(torch.zeros(len(labels), 1), torch.tensor(labels, dtype=torch.int64), **columns)


def test_take_keeps_everything_together():
    all_rows = rows([0, 1, 0], group=("a", "b", "c"), party=("p", "q", "r"))
    taken = all_rows.take([2, 1])
    assert (taken.label.tolist(), taken.group, taken.party) == ([0, 1], ("c", "b"), ("r", "q"))
    assert len(all_rows.take(torch.tensor([], dtype=torch.int64))) == 0
    assert rows([0]).take([0]).group is None


def test_a_regression_has_one_output():
    assert Schema((2,), (), "regression", ()).outputs() == 1


def test_images_have_no_feature_names_but_one_range():
    schema = Schema((1, 8, 8), (), "classification", ("a", "b"), 0, 16)
    assert schema.feature_names() == ()
    assert schema.bounds() == [("the inputs", 0, 16)]


def test_only_numbers_have_a_range():
    sex = Column("sex", "category", categories=("f", "m"))
    schema = Schema((3,), (*SCHEMA.columns, sex), "classification", ("a", "b"))
    assert schema.bounds() == [("column 'x'", 0, 1)]


@pytest.mark.parametrize("empty", ["private", "public", "test"])
def test_an_empty_cohort_is_refused(empty):
    parts = {name: rows([0, 1]) for name in ("private", "public", "test")} | {empty: rows([])}
    with pytest.raises(DataError, match=f"leaves no {empty} rows"):
        checked(Cohorts(**parts, test_is_public=False, private_is_public=False), SCHEMA, "file")


def test_a_class_that_no_private_row_has_is_refused():
    cohorts = Cohorts(rows([0, 0]), rows([1]), None, False, False)
    with pytest.raises(DataError, match="no private row has class 'yes'"):
        checked(cohorts, SCHEMA, "file")


def test_a_regression_needs_no_class():
    cohorts = Cohorts(Rows(torch.zeros(1, 1), torch.zeros(1)), None, None, False, False)
    assert checked(cohorts, Schema((1,), (), "regression", ()), "file") is cohorts


COUNT = 40
HOLDOUT = Holdout(share=0.4, by="row")
LEFT_OUT = (3, 17, 18)  # rows of a table and of texts that lack a value


def builtin(folder):
    option = Builtin(name="iris", size=120, public_demonstration=True, test=Share(share=0.2))
    return option, load_iris(return_X_y=True)[0]


def table(folder):
    lines = [f"{'' if i in LEFT_OUT else i / COUNT},{'ab'[i % 2]}" for i in range(COUNT)]
    (folder / "rows.csv").write_text("\n".join(["x,y", *lines[:9], "", *lines[9:]]) + "\n")
    option = Table(
        path="rows.csv", target="y", classes=("a", "b"), columns={"x": ColumnSpec(low=0, high=1)},
        size=20, on_missing="drop", holdout=HOLDOUT,
    )  # fmt: skip
    return option, np.arange(COUNT)[:, None] / COUNT


def arrays(folder):
    x = np.random.default_rng(0).uniform(0, 9, (COUNT, 3))
    np.savez(folder / "rows.npz", x=x, y=np.arange(COUNT) % 2, who=np.arange(COUNT) // 2)
    option = Arrays(
        path="rows.npz", shape=(3,), classes=2, low=0, high=9, size=20, unit="who", holdout=HOLDOUT
    )
    return option, x


def images(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 1, 2, 2), np.uint8)
    for name, array in (("x", pixels[:, 0]), ("y", (np.arange(COUNT) % 2).astype(np.uint8))):
        header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        (folder / name).write_bytes(header + array.tobytes())
    option = Images(images="x", labels="y", shape=(1, 2, 2), classes=2, size=20, holdout=HOLDOUT)
    return option, pixels


def texts(folder):
    rows = [{"note": "" if i in LEFT_OUT else f"{i:02}", "y": "ab"[i % 2]} for i in range(COUNT)]
    (folder / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    option = Text(
        path="notes.jsonl", text="note", label="y", classes=("a", "b"), tokenizer=Bytes(), size=20,
        length=3, on_missing="drop", holdout=HOLDOUT,
    )  # fmt: skip
    end = 256  # what stands behind a text of bytes
    return option, np.array([[*map(ord, f"{i:02}"), end] for i in range(COUNT)])


@pytest.mark.parametrize("made", [builtin, table, arrays, images, texts], ids=lambda f: f.__name__)
def test_each_row_keeps_its_number_in_the_file(tmp_path, made):
    """Whatever is left out of the file or held out of training."""
    option, given = made(tmp_path)
    cohorts = option.read(tmp_path, 0, b"k" * 32)
    there = set(range(len(given))) - (set(LEFT_OUT) if made in (table, texts) else set())
    private, test = cohorts.private.place.tolist(), cohorts.test.place.tolist()
    assert len(test) > 5 and sorted(private + test) == sorted(there)
    for rows in (cohorts.private, cohorts.test):
        np.testing.assert_allclose(rows.features.numpy(), given[rows.place], rtol=1e-6)
        back = rows.take([2, 0])
        assert back.place.tolist() == rows.place[[2, 0]].tolist()
    assert (cohorts.private + cohorts.test).place is None  # of two cohorts, or of two files

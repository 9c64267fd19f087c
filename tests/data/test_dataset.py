import pytest
import torch

from nacre.core.errors import DataError
from nacre.data.dataset import Cohorts, Column, Rows, Schema, checked

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

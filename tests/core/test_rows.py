import pytest
import torch
from torch import nn

from nacre.core import rows
from nacre.core.errors import UnsupportedLayer


def _groups():
    return {
        "features": torch.arange(12.0).reshape(2, 3, 2),
        "label": torch.tensor([[0, 1, 0], [1, 0, 0]]),
        "present": torch.tensor([True, True]),
        "unit": torch.tensor([4, 7]),
        "rows": torch.tensor([[True, True, False], [False, False, False]]),
    }


def test_flatten_numbers_rows_by_their_unit():
    flat = rows.flatten(_groups())
    assert flat["features"].shape == (6, 2)
    assert flat["unit"].tolist() == [12, 13, 14, 21, 22, 23]
    assert flat["present"].tolist() == [True, True, False, False, False, False]
    assert not rows.grouped(flat)


def test_flatten_leaves_single_rows_alone():
    batch = {"features": torch.ones(2, 3), "present": torch.ones(2, dtype=torch.bool)}
    assert rows.flatten(batch) is batch


def test_per_unit_averages_over_a_units_own_rows():
    values = torch.tensor([2.0, 4.0, 99.0, 99.0, 99.0, 99.0])
    assert rows.per_unit(values, _groups()).tolist() == [3.0, 0.0]
    assert rows.per_unit(values, {"present": torch.ones(6)}) is values


def test_a_padded_nan_does_not_reach_the_mean():
    values = torch.tensor([2.0, 4.0, float("nan"), 0.0, 0.0, 0.0])
    assert rows.per_unit(values, _groups())[0] == 3.0


def test_select_takes_units():
    assert rows.select(_groups(), torch.tensor([1]))["unit"].tolist() == [7]


def test_batch_norm_in_training_mixes_rows():
    inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    rows.assert_rowwise(nn.Linear(3, 2), inputs, "the model")
    with pytest.raises(UnsupportedLayer, match="the model mixes rows"):
        rows.assert_rowwise(nn.BatchNorm1d(3), inputs, "the model")
    with pytest.raises(UnsupportedLayer, match="returns 1 rows for 4"):
        rows.assert_rowwise(lambda x: x.mean(0, keepdim=True), inputs, "the loss")


def test_a_model_that_answers_nan_is_refused():
    with pytest.raises(UnsupportedLayer):
        rows.assert_rowwise(lambda x: x * float("nan"), torch.ones(2, 2), "the model")

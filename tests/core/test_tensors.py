import pytest
import torch
from torch import nn

from nacre.core import tensors


def test_trainable_names_shared_tensors_once_and_frozen_ones_never():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    assert list(tensors.trainable(model)) == ["0.weight", "0.bias", "1.bias"]


def test_arithmetic():
    a, b = {"x": torch.tensor([3.0, 4.0])}, {"x": torch.tensor([1.0, 1.0])}
    assert tensors.subtract(a, b)["x"].tolist() == [2.0, 3.0]
    assert tensors.scale(a, 2.0)["x"].tolist() == [6.0, 8.0]
    assert tensors.norm(a) == 5.0
    assert tensors.norm({}) == 0.0
    assert tensors.finite(a)
    assert not tensors.finite({"x": torch.tensor([float("inf")])})


def test_other_names_do_not_subtract():
    with pytest.raises(ValueError, match="different names"):
        tensors.subtract({"x": torch.ones(1)}, {"y": torch.ones(1)})


def test_assign_writes_values_and_refuses_what_does_not_fit():
    model = nn.Linear(2, 1)
    tensors.assign(model, {"bias": torch.tensor([7.0])})
    assert model.bias.tolist() == [7.0]
    with pytest.raises(ValueError, match="no parameter 'other'"):
        tensors.assign(model, {"other": torch.ones(1)})
    with pytest.raises(ValueError, match="differ in shape"):
        tensors.assign(model, {"bias": torch.ones(2)})


def test_detached_shares_nothing():
    w = torch.ones(2, requires_grad=True)
    copy = tensors.detached({"w": w})["w"]
    copy += 1
    assert w.tolist() == [1.0, 1.0]
    assert not copy.requires_grad

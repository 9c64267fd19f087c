import pytest
import torch

from nacre.models.tabular import MLP, mlp


def test_layers_follow_the_option():
    model = mlp(MLP(hidden=(5, 4), activation="tanh", dropout=0.5), (2, 3), 7)
    names = [name for name, _ in model.named_children()]
    assert names == [
        "flatten", "hidden0", "activation0", "dropout0", "hidden1", "activation1", "dropout1",
        "head",
    ]  # fmt: skip
    assert model(torch.zeros(3, 2, 3)).shape == (3, 7)


def test_without_hidden_layers_the_model_is_linear():
    assert [name for name, _ in mlp(MLP(hidden=()), (4,), 2).named_parameters()] == [
        "head.weight",
        "head.bias",
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden": (0,)}, "widths of at least 1"),
        ({"dropout": 1.0}, "dropout=1.0 must be"),
        ({"activation": "gelu"}, "activation='gelu' must be one of relu, tanh"),
    ],
)
def test_impossible_options_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        MLP(**fields)

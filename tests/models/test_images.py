import pytest
import torch

from nacre.core.errors import Incompatible
from nacre.models.images import CNN, cnn


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 5)])
def test_each_block_halves_the_picture(shape):
    model = cnn(CNN(channels=(4, 8), hidden=6), shape, 3)
    assert model(torch.zeros(2, *shape)).shape == (2, 3)
    assert model.get_submodule("hidden").in_features == 8 * (shape[1] // 4) * (shape[2] // 4)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((30,), "needs inputs of shape"), ((1, 3, 8), "3 by 8 pixels 2 times")],
)
def test_inputs_that_do_not_fit_are_refused(shape, message):
    with pytest.raises(Incompatible, match=message):
        cnn(CNN(), shape, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": ()}, "at least one number above 0"),
        ({"channels": (0,)}, "at least one number above 0"),
        ({"groups": 0}, "groups=0 must be at least 1"),
        ({"groups": 3}, "groups=3 must divide"),
        ({"hidden": 0}, "hidden=0"),
        ({"activation": "x"}, "activation='x'"),
    ],
)
def test_impossible_options_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CNN(**fields)

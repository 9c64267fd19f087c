import pytest
import torch

from nacre.core.optimizers import SGD, Adam, AdamW


@pytest.mark.parametrize("option", [SGD(lr=0.5, momentum=0.9), Adam(lr=0.5), AdamW(lr=0.5)])
def test_an_optimizer_moves_against_the_gradient(option):
    w = torch.nn.Parameter(torch.zeros(1))
    optimizer = option.build([w])
    w.grad = torch.ones(1)
    optimizer.step()
    assert w.item() == pytest.approx(-0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "values"),
    [(SGD, {"lr": 0}), (SGD, {"momentum": 1.0}), (Adam, {"beta1": -0.1}), (AdamW, {"lr": -1})],
)
def test_values_out_of_range_are_refused(kind, values):
    with pytest.raises(ValueError, match="must be"):
        kind(**values)

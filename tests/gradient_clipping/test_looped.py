import torch
from torch import nn

from nacre.adversarial_training import Standard
from nacre.core.random import Source
from nacre.core.tensors import norm
from nacre.gradient_clipping import Flat, Looped, Unclipped
from tests.laws.zoo import MLP

SOURCE = Source(bytes(32))


def _looped(model, batch, clip):
    return Looped(Standard(MLP.task))(model, batch, clip, SOURCE)


def test_norms_are_those_of_single_backward_passes():
    model, batch = MLP.model(), MLP.batch(3)
    total = _looped(model, batch, Unclipped())
    for unit in range(3):
        model.zero_grad()
        MLP.task.losses(model, batch)[unit].backward()
        length = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
        torch.testing.assert_close(total.local.norms[unit, 0], length)


def test_it_takes_models_that_look_at_values():
    class Curious(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            return self.head(x) if x.sum() > 0 else self.head(-x)

    total = _looped(Curious(), MLP.batch(4), Flat(norm=0.1))
    assert 0 < norm(total.total) <= 0.4


def test_a_row_that_overflows_inside_the_model_is_dropped():
    batch = MLP.batch(3)
    batch["features"][1] = torch.tensor([3e38, -3e38, 3e38, -3e38, 3e38, -3e38])
    total = _looped(MLP.model(), batch, Flat(norm=0.1))
    assert total.local.dropped == 1
    assert 0 < norm(total.total) <= 0.2

"""Per-unit gradients and clipped sums against Opacus 1.6 (hooks on layers, another route)."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from nacre.adversarial_training import StandardTraining
from nacre.core.random import Source
from nacre.core.tensors import norm
from nacre.core.types import FeatureSpace
from nacre.gradient_clipping import Flat, Looped, Vmapped
from nacre.models.tasks import Classification
from tests.laws.zoo import distance

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Opacus imports parts of torch that torch deprecates
    from opacus import GradSampleModule


def _mlp():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)), (8,)


def _cnn():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.GroupNorm(2, 4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 3),
    )
    return model, (1, 8, 8)


def _opacus(model, features, label):
    """name -> (B, *shape): Opacus's gradient of each row's own loss."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its module hooks warn about inputs without a gradient
        watched = GradSampleModule(model, loss_reduction="sum")
        functional.cross_entropy(watched(features), label, reduction="sum").backward()
    found = {name: p.grad_sample.clone() for name, p in model.named_parameters()}
    watched.to_standard_module()
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("build", [_mlp, _cnn])
@pytest.mark.parametrize("kind", [Looped, Vmapped])
def test_the_clipped_sum_is_that_of_opacus(kind, build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model, shape = build()
        features, label = torch.randn(32, *shape), torch.arange(32) % 3
    each = _opacus(model, features, label)
    lengths = torch.stack([g.double().flatten(1).norm(dim=1) for g in each.values()]).norm(dim=0)
    bound = float(lengths.median())  # half of the rows are clipped, the others are not
    factors = (bound / lengths).clamp(max=1.0)
    expected = {n: torch.einsum("b,b...->...", factors, g.double()) for n, g in each.items()}

    batch = {
        "features": features,
        "label": label,
        "present": torch.ones(32, dtype=torch.bool),
        "unit": torch.arange(32),
    }
    objective = StandardTraining().build(Classification(3), FeatureSpace(shape))
    total = kind(objective)(model, batch, Flat(norm=bound), Source(bytes(32)))

    assert distance(total.total, expected) <= 1e-6 * norm(expected)
    torch.testing.assert_close(
        total.local.norms[:, 0].double(), lengths, rtol=1e-5, atol=0, check_dtype=False
    )

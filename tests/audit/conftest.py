import pytest
import torch
from torch import nn

from nacre.audit.target import Target
from nacre.core.random import Source
from nacre.core.types import FeatureSpace
from nacre.models.tasks import Classification


def batch(features, label):
    count = len(label)
    return {
        "features": features,
        "label": label,
        "present": torch.ones(count, dtype=torch.bool),
        "unit": torch.arange(count),
    }


@pytest.fixture
def rows():
    """Rows without any meaning: features and labels are independent coins."""

    def make(count, seed, width=6, classes=2):
        numbers = Source(seed.to_bytes(32, "big")).stream()
        label = (numbers.uniform(count) * classes).long()
        return batch(numbers.normal(count, width).float(), label)

    return make


@pytest.fixture
def linear():
    """Two classes told apart by w·x + b, at zero."""

    def make(weights, bias=0.0):
        model = nn.Linear(len(weights), 2)
        with torch.no_grad():
            model.weight.copy_(torch.stack([torch.zeros(len(weights)), torch.tensor(weights)]))
            model.bias.copy_(torch.tensor([0.0, bias]))
        return model

    return make


@pytest.fixture
def target():
    """A target with defaults for what a test does not speak of."""

    def make(model, width=6, seed=7, **rest):
        settings = {
            "task": Classification(2),
            "space": FeatureSpace((width,)),
            "source": Source(seed.to_bytes(32, "big")),
        }
        return Target(model=model, **{**settings, **rest})

    return make

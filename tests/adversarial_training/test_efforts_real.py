"""The rules of an effort on a published net that was trained against attacks."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from nacre.adversarial_training import Ball
from nacre.adversarial_training.evaluation.access import Scorer
from nacre.adversarial_training.evaluation.cascade import STANDING
from nacre.adversarial_training.evaluation.efforts import cascade
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.core.random import Source
from nacre.core.types import FeatureSpace

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
WEIGHTS = DATA / "weights" / "mnist_cnn_a_adv.safetensors"
POINTS = 50

pytestmark = pytest.mark.skipif(not WEIGHTS.exists(), reason="the published weights are not here")


def _bytes(name, header):
    with gzip.open(DATA / "images" / "mnist" / f"{name}.gz") as file:
        return torch.tensor(np.frombuffer(file.read(), np.uint8)[header:].copy())


def _net():
    layers = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip
    layers.load_state_dict(load_file(WEIGHTS))
    return layers.eval().requires_grad_(False)


def test_the_rules_lose_no_row_and_spare_most_of_the_queries():
    x = _bytes("t10k-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28)[:POINTS].float() / 255
    y = _bytes("t10k-labels-idx1-ubyte", 8)[:POINTS].long()
    shape = x.shape[1:]
    space = FeatureSpace(tuple(shape), low=torch.zeros(shape), high=torch.ones(shape))
    rows = Inputs(torch.arange(POINTS), torch.arange(POINTS), x, y)
    standing, forwards, backwards = [], [], []
    for ruled in (True, False):
        scorer = Scorer(_net())
        attack = cascade("standard", ruled=ruled)
        found = attack(scorer, Ball(radius=0.3).region(space), rows, Source(bytes(32)))
        standing.append(found.by == STANDING)
        forwards.append(scorer.queries.forwards)
        backwards.append(scorer.queries.backwards)
    assert torch.equal(*standing)
    assert 0.5 < standing[0].float().mean() < 0.95
    assert forwards[0] < 0.5 * forwards[1]
    assert backwards[0] < 0.8 * backwards[1]

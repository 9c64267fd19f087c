"""Attacks on finished linear models against the closed form: how near the boundary is.

A row of margin m under logits (0, w·x) is broken by a move of p-norm |m| / ‖w‖_q at least, with
1/p + 1/q = 1 (Hölder). All rows here have one margin, so that one radius is the minimum of all.
"""

import pytest
import torch
from torch import nn

from nacre.adversarial_training import Ball
from nacre.adversarial_training.evaluation.access import Scorer
from nacre.adversarial_training.evaluation.cascade import STANDING, Cascade
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.evaluation.stages.column_search import ColumnSearch
from nacre.adversarial_training.evaluation.stages.listed import STAGES
from nacre.adversarial_training.evaluation.stages.square import Square
from nacre.adversarial_training.threats.region import Box
from nacre.core.random import Source
from nacre.core.types import FeatureSpace

ROWS, FEATURES, MARGIN = 16, 9, 0.5
DUAL = {"linf": 1, "l2": 2, "l1": float("inf")}
SPACE = FeatureSpace((FEATURES,))
OF_BALLS = [stage for stage in STAGES if stage is not ColumnSearch]
"""The search among a table's columns draws values at random, and is held against all legal rows in
`test_table_attacks.py`."""


class Linear(nn.Module):
    """Logits (0, w·x)."""

    def __init__(self):
        super().__init__()
        self.weight = torch.randn(FEATURES, generator=torch.Generator().manual_seed(3))

    def forward(self, x):
        margin = x.flatten(1) @ self.weight.to(x)
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


def _rows(weight):
    """Inputs whose margin is `MARGIN` on the right side."""
    clean = torch.randn(ROWS, FEATURES, generator=torch.Generator().manual_seed(4))
    label = torch.arange(ROWS) % 2
    wanted = torch.where(label == 1, MARGIN, -MARGIN)
    clean += ((wanted - clean @ weight) / weight.square().sum())[:, None] * weight
    return Inputs(torch.arange(ROWS), torch.arange(ROWS), clean, label)


def _broken(stage, kind, share):
    model = Linear()
    radius = share * MARGIN / float(torch.linalg.vector_norm(model.weight, DUAL[kind]))
    region = Ball(kind=kind, radius=radius).region(SPACE)
    found = Cascade((stage,))(Scorer(model), region, _rows(model.weight), Source(bytes(32)))
    return found.by != STANDING


@pytest.mark.parametrize("kind", DUAL)
@pytest.mark.parametrize("made", OF_BALLS, ids=lambda stage: stage.__name__)
def test_a_boundary_a_quarter_inside_the_ball_is_crossed_and_one_outside_never(made, kind):
    assert _broken(made(), kind, 1.25).all()
    assert not _broken(made(), kind, 0.99).any()


def test_square_in_a_box_goes_to_corners_alone():
    region = Box(torch.full((3, 8, 8), 0.1), torch.zeros(3, 8, 8), torch.ones(3, 8, 8))
    clean = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    rows = Inputs(torch.arange(5), torch.arange(5), clean, torch.ones(5, dtype=torch.int64))
    asked = []

    def predict(x):
        asked.append(x)
        return torch.stack([torch.zeros(len(x)), 100 + x.sum((1, 2, 3))], 1)

    Cascade((Square(queries=30),))(Scorer(predict), region, rows, Source(bytes(32)))
    low, high = (clean - 0.1).clamp(0, 1), (clean + 0.1).clamp(0, 1)
    queries = torch.cat(asked[1:])  # some of each row together
    corners = ((queries[:, None] == low) | (queries[:, None] == high)).flatten(2).all(2)
    assert (corners.sum(1) == 1).all()
    # Query by query another patch, of one sign a channel.
    assert (corners.sum(0) >= 30).all()
    assert len({x.sum().item() for x in queries[corners[:, 0]]}) > 20

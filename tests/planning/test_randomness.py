"""Randomness inside a model: dropout is the only one that a plan lets pass."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from nacre.models.stock.pooling import Pooled
from nacre.models.stock.transformer import Transformer
from nacre.planning.refusals.randomness import draws

TOKENS, ROWS, T = 20, 64, 6

SOURCES = {
    "torch": lambda: float(torch.rand(())),
    "NumPy": lambda: float(np.random.random()),
    "Python": random.random,
}


class Rarely(nn.Module):
    """Moves its inputs at one draw in two hundred."""

    def __init__(self, source):
        super().__init__()
        self.source, self.drawn = source, 0

    def forward(self, x):
        self.drawn += 1
        return x + 1.0 if self.source() < 0.005 else x


def encoder(layer=None):
    """A stock classifier, with `layer` behind its embeddings."""
    config = BertConfig(
        vocab_size=TOKENS, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=8,
    )  # fmt: skip
    network = BertModel(config)
    if layer is not None:
        network.embeddings.dropout = nn.Sequential(network.embeddings.dropout, layer)
    return Transformer(Pooled(network, "mean", 2), "classification", {})


def rows(count=ROWS):
    return torch.randint(TOKENS, (count, T), generator=torch.Generator().manual_seed(1))


def read(model, inputs):
    """How many rows the model was given in all."""
    seen = []
    with_count = model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    found = draws(model, inputs)
    with_count.remove()
    return found, seen


def test_a_stock_encoder_with_dropout_is_tried_on_a_few_rows():
    found, seen = read(encoder(), rows())
    assert not found and seen == [4]


@pytest.mark.parametrize("source", SOURCES)
def test_a_draw_in_a_stock_encoder_sends_all_rows_through(source):
    """A draw that shows in no answer yet is seen by the generator that it moves, in one pass."""
    _, seen = read(encoder(Rarely(SOURCES[source])), rows())
    assert seen == [4, ROWS, ROWS]


class ByRow(nn.Module):
    """Stochastic depth: a row in fifty loses this layer."""

    def forward(self, x):
        return x * (torch.rand(len(x), 1, 1) > 0.02)


def test_rare_randomness_in_a_stock_encoder_is_found():
    """Though its head starts at zero, and so answers zero whatever it reads."""
    assert draws(encoder(ByRow()), rows())


class OwnGenerator(nn.Module):
    def __init__(self):
        super().__init__()
        self.own = np.random.default_rng(0)

    def forward(self, x):
        return x * torch.from_numpy(self.own.random(len(x)) > 0.02)[:, None]


def test_a_generator_of_ones_own_is_found_by_the_answers():
    """Nothing that torch, NumPy or Python keep moves."""
    assert draws(OwnGenerator(), torch.randn(ROWS, 3))

"""A model that answers all inputs alike is noticed, and one that has not begun is let be."""

import torch
from torch import nn

from nacre.adversarial_training.collapse import CollapseWatch
from nacre.models.tasks import Classification
from tests.laws.zoo import snapshot


def _watched():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    return model, CollapseWatch(Classification(3), torch.randn(8, 4))


def _constant(model):
    with torch.no_grad():
        model[3].weight.zero_()


def test_what_was_apart_and_is_alike_twice_has_collapsed():
    model, watch = _watched()
    before = snapshot(model)
    assert not watch.collapsed(model)
    assert snapshot(model) == before
    _constant(model)
    assert not watch.collapsed(model)
    assert watch.collapsed(model)


def test_a_head_that_starts_at_zero_has_not_collapsed():
    model, watch = _watched()
    _constant(model)
    assert not any(watch.collapsed(model) for _ in range(3))


def test_a_constant_that_is_left_again_counts_anew():
    model, watch = _watched()
    kept = model[3].weight.detach().clone()
    assert not watch.collapsed(model)
    _constant(model)
    assert not watch.collapsed(model)
    with torch.no_grad():
        model[3].weight.copy_(kept)
    assert not watch.collapsed(model)
    _constant(model)
    assert not watch.collapsed(model)


def test_answers_that_are_no_numbers_are_another_fault():
    model, watch = _watched()
    assert not watch.collapsed(model)
    with torch.no_grad():
        model[3].bias.fill_(float("nan"))
    assert not any(watch.collapsed(model) for _ in range(3))

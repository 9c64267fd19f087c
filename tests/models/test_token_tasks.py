"""Losses over positions: each row by its own counted tokens, and rows made up to try a model on."""

import pytest
import torch
from torch.nn import functional

from nacre.data.dataset import Schema
from nacre.models import CausalLM, TokenClassification, random_inputs, task_for
from nacre.models.random_inputs import other

K, T = 9, 5
LABEL = torch.tensor([[1, 2, 3, 4, 5], [-100, -100, 7, 1, -100], [-100] * 5, [4] + [-100] * 4])


def logits():
    return torch.randn(len(LABEL), T, K, generator=torch.Generator().manual_seed(0))


def test_a_causal_loss_is_the_mean_over_the_rows_own_tokens():
    losses = CausalLM(K).row_losses(logits(), LABEL)
    for row, (answer, label) in enumerate(zip(logits(), LABEL, strict=True)):
        counted = [t for t in range(1, T) if label[t] >= 0]
        each = [functional.cross_entropy(answer[t - 1], label[t]) for t in counted]
        expected = torch.stack(each).mean() if each else torch.tensor(0.0)
        assert torch.allclose(losses[row], expected), row


def test_a_loss_of_positions_is_the_mean_over_those_that_count():
    losses = TokenClassification(K).row_losses(logits(), LABEL)
    for row, (answer, label) in enumerate(zip(logits(), LABEL, strict=True)):
        real = label >= 0
        expected = functional.cross_entropy(answer[real], label[real]) if real.any() else 0.0
        assert torch.allclose(losses[row], torch.as_tensor(expected)), row


@pytest.mark.parametrize("task", [CausalLM(K), TokenClassification(K)])
def test_a_row_that_counts_nothing_has_no_gradient_and_is_not_right(task):
    answers = logits().requires_grad_(True)
    task.row_losses(answers, LABEL)[2].backward()
    assert torch.equal(answers.grad, torch.zeros_like(answers))
    assert not task.correct(answers, LABEL)[2]


@pytest.mark.parametrize("task", [CausalLM(K), TokenClassification(K)])
def test_a_row_does_not_move_anothers_loss(task):
    changed = LABEL.clone()
    changed[0] = -100
    before, after = (task.row_losses(logits(), label) for label in (LABEL, changed))
    assert torch.equal(before[1:], after[1:])


def test_a_row_is_right_where_most_of_its_counted_tokens_are():
    label = torch.tensor([[0, 1, 2, 3, -100], [0, 1, 2, -100, -100]])
    said = torch.tensor([[1, 2, 0, 0, 0], [1, 0, 0, 0, 0]])
    answers = functional.one_hot(said, K).float()
    assert CausalLM(K).correct(answers, label).tolist() == [True, False]
    assert TokenClassification(K).correct(answers, label).tolist() == [False, False]
    assert TokenClassification(K).correct(answers, said).tolist() == [True, True]


@pytest.mark.parametrize("task", [CausalLM(K), TokenClassification(K)])
def test_the_divergence_of_a_row_from_itself_is_zero(task):
    assert torch.allclose(task.divergence(logits(), logits()), torch.zeros(len(LABEL)), atol=1e-6)
    assert (task.divergence(logits(), logits().flip(0)) > 0).all()


def test_each_kind_of_task_is_found_by_its_name():
    for kind in ("classification", "regression", "causal_lm", "token_classification"):
        task = task_for(kind, 1)
        assert (task.kind, task.outputs) == (kind, 1)


def test_made_up_tokens_are_padded_on_the_right_alone():
    rows = random_inputs((T,), K, 50, seed=1)
    real = rows >= 0
    assert torch.equal(rows, random_inputs((T,), K, 50, seed=1))
    assert bool((real[:, :-1] >= real[:, 1:]).all())
    assert bool(real[:, 0].all())
    assert set(rows.unique().tolist()) == {-1, *range(K)}
    assert set(real.sum(1).tolist()) == set(range(1, T + 1))
    assert random_inputs((2, T), K, 3).shape == (3, 2, T)


@pytest.mark.parametrize("tokens", [K, 2, None])
def test_other_rows_differ_in_every_real_entry_and_keep_their_lengths(tokens):
    rows = random_inputs((T,), tokens, 20)
    changed = other(rows, tokens)
    if tokens is None:
        assert bool((changed != rows).all())
        return
    assert torch.equal(rows < 0, changed < 0)
    assert bool((changed != rows)[rows >= 0].all())
    assert int(changed.max()) < tokens


def test_the_width_of_the_output_follows_the_task():
    def width(task, classes=(), tokens=None):
        return Schema((T,), (), task, classes, tokens=tokens).outputs()

    assert width("causal_lm", tokens=K) == K
    assert width("token_classification", ("a", "b"), K) == 2
    assert width("classification", ("a", "b", "c"), K) == 3
    assert width("regression") == 1
    with pytest.raises(ValueError, match="needs inputs that are tokens"):
        width("causal_lm")

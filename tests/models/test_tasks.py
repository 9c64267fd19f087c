import pytest
import torch
from torch.nn import functional

from nacre.models import Classification, Regression, task_for

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
OTHER = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])


def test_classification():
    task = Classification(3)
    label = torch.tensor([0, 2])
    losses = task.row_losses(LOGITS, label)
    torch.testing.assert_close(losses, -LOGITS.log_softmax(1)[torch.arange(2), label])
    assert task.correct(LOGITS, label).tolist() == [True, False]
    assert task.outputs == 3


def test_divergence_is_the_kl_of_torch():
    known = functional.kl_div(
        OTHER.log_softmax(1), LOGITS.log_softmax(1), log_target=True, reduction="none"
    ).sum(1)
    torch.testing.assert_close(Classification(3).divergence(LOGITS, OTHER), known)
    assert known[0] > 0 and known[1] == 0


def test_regression():
    task = Regression()
    outputs, label = torch.tensor([[1.0], [3.0]]), torch.tensor([1.5, 0.0])
    assert task.row_losses(outputs, label).tolist() == [0.25, 9.0]
    assert task.divergence(outputs, outputs + 2).tolist() == [4.0, 4.0]
    assert task.correct(outputs, label).tolist() == [True, False]
    assert Regression(tolerance=3.0).correct(outputs, label).all()
    assert task.outputs == 1


@pytest.mark.parametrize("task", [Classification(3), Regression()])
def test_predict_is_the_model(task):
    assert torch.equal(task.predict(torch.nn.Identity(), LOGITS), LOGITS)


def test_the_task_of_a_schema():
    assert task_for("classification", 4) == Classification(4)
    assert task_for("regression", 1) == Regression()

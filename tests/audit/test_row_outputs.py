"""Rows of tokens go through a stock transformer beside rows of about their own length."""

from pathlib import Path

import pytest
import torch

from nacre.audit.answers import row_outputs
from nacre.models import Pretrained
from nacre.models.stock.pretrained import pretrained
from nacre.models.tasks import Classification
from tests.models.transformer_folders import TOKENS, folder_of


class Watched:
    """A task that notes the shapes that its model is asked for."""

    def __init__(self):
        self.task, self.shapes = Classification(3), []

    def predict(self, model, x):
        self.shapes.append(tuple(x.shape))
        return self.task.predict(model, x)


def _texts(lengths, width=30):
    torch.manual_seed(1)
    rows = torch.randint(TOKENS, (len(lengths), width))
    return torch.where(torch.arange(width) < torch.tensor(lengths)[:, None], rows, -1)


@pytest.fixture(params=["Bert", "GPT2"])
def model(request, tmp_path):
    # GPT2's places end at 20.
    option = Pretrained(name=str(folder_of(request.param, tmp_path)), dropout=0.0)
    torch.manual_seed(2)
    found = pretrained(option, 3, Path("/")).eval()
    with torch.no_grad():
        for name, weights in found.named_parameters():
            if name.startswith(found.new_head()):
                weights.normal_()
    return found


def test_each_row_has_its_own_answer_and_is_padded_by_less_than_eight(model):
    lengths = [20, 3, 8, 9, 0, 17, 16, 1, 3, 12]
    rows, task = _texts(lengths), Watched()
    with torch.no_grad():
        found = row_outputs(model, task)(rows)
        alone = torch.cat(
            [model(row[None, : max(1, n)]) for row, n in zip(rows, lengths, strict=True)]
        )
    assert torch.allclose(found, alone, atol=1e-5)
    assert len(set(map(tuple, found.tolist()))) > 8
    assert task.shapes == [(5, 8), (3, 16), (2, 20)]


def test_no_row_and_one_row(model):
    task = Watched()
    with torch.no_grad():
        assert row_outputs(model, task)(_texts([])).shape == (0, 3)
        assert row_outputs(model, task)(_texts([5])).shape == (1, 3)
    assert task.shapes == [(1, 1), (1, 5)]


def test_other_models_are_asked_as_they_are():
    """Nothing says that they mask what pads a row."""
    task, rows = Watched(), _texts([3, 9])
    row_outputs(torch.nn.Sequential(torch.nn.Embedding(TOKENS, 3)), task)(rows.clamp(min=0))
    assert task.shapes == [(2, 30)]

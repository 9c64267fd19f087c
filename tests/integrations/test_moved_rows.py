"""A loop of one's own over a model that puts rows in an order of their values: the step stops."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from nacre.core.errors import UnsupportedLayer
from tests.integrations.declared import private, sgd, table


class Dispatched(nn.Module):
    """Rows are ordered by a flag with a one-hot matrix, and put back: each answer is its row's."""

    def __init__(self, width):
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = nn.Linear(width, 8), nn.Linear(8, 2)

    def forward(self, x):
        order = (x[:, 0] > 50).long().argsort(stable=True)
        turn = functional.one_hot(order, len(x)).to(x.dtype)
        hidden = torch.einsum("ij,jd->id", turn, self.enter(x).tanh())
        return torch.einsum("ji,jd->id", turn, self.leave(hidden))


@pytest.mark.parametrize("flagged", [False, True])
def test_one_flagged_row_stops_the_run_before_its_step_is_released(flagged, tmp_path):
    """Without the flag every sum is right, and the run comes to its end."""
    features, label = table().tensors
    features = features.clone()
    if flagged:
        features[len(features) // 2, 0] = 99.0
    model, taken = Dispatched(features.shape[1]), []
    given = {"dataset": TensorDataset(features, label), "steps": 60, "folder": tmp_path / "run"}
    with private(tmp_path, model, sgd(model), **given) as run:
        if not flagged:
            assert len(list(run)) == 60
            return
        with pytest.raises(UnsupportedLayer, match="answer to other units"):
            for number in run:
                taken.append(number)
    record = tmp_path / "run" / "released.jsonl"  # none where the first step was stopped
    lines = record.read_text().splitlines() if record.exists() else []
    assert len(lines) == len(taken) < 60

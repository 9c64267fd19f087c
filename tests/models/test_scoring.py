import pytest
import torch
from torch import nn

from nacre.models import CausalLM, Classification, scoring
from nacre.models.scoring import scored


class Next(nn.Module):
    """Logits of each next token, from a table; counts how many rows it sees at once."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 7)
        self.shapes = []

    def forward(self, features):
        self.shapes.append(tuple(features.shape))
        return self.table(features.clamp(min=0))


@pytest.fixture
def tokens():
    features = torch.randint(7, (40, 9), generator=torch.Generator().manual_seed(0))
    lengths = torch.arange(40) % 9 + 1
    features[torch.arange(9) >= lengths[:, None]] = -1
    return features, features.masked_fill(features < 0, -100)


def test_pieces_give_what_the_whole_gives(tokens, monkeypatch):
    features, label = tokens
    model, task = Next(), CausalLM(7)
    with torch.no_grad():
        outputs = model(features)
    monkeypatch.setattr(scoring, "_TOKENS", 45)
    losses, right = scored(model, task, features, label)
    whole = task.row_losses(outputs, label)  # float32: sums of another width round otherwise
    torch.testing.assert_close(losses.float(), whole, rtol=1e-6, atol=0)
    assert torch.equal(right, task.correct(outputs, label))
    assert max(rows for rows, _ in model.shapes[1:]) == 5
    assert min(width for _, width in model.shapes[1:]) < 9  # padding is not computed


def test_an_answer_that_is_no_number_is_wrong():
    model = nn.Linear(2, 2, bias=False)
    features = torch.tensor([[1.0, 0.0], [torch.inf, 0.0]])
    label = model(features[:1]).argmax(1).repeat(2)
    _, right = scored(model, Classification(2), features, label)
    assert right.tolist() == [True, False]
    assert scored(model, Classification(2), features[:0], label[:0])[0].shape == (0,)

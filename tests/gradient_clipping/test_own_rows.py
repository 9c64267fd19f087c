"""Types of tokens: rows of a table that are looked up once for each unit and added to rows of the
batch. And what a trial hears of gradients while they pass."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from nacre.core.random import Source
from nacre.gradient_clipping import BookKeeping, Flat, Ghost, Grouped, Looped, PerLayer
from nacre.gradient_clipping.tape.carried_rows.single import OwnRows
from nacre.gradient_clipping.tape.layout import UNANSWERED, Layout, loss_answers

SOURCE = Source(bytes(32))


class Typed(nn.Module):
    """Words and their types, which are constants: (B, T) ids -> (B, 2)."""

    def __init__(self, sign: float, padding: int | None) -> None:
        super().__init__()
        self.words, self.types = nn.Embedding(7, 3), nn.Embedding(4, 3, padding_idx=padding)
        self.head = nn.Linear(3, 2)
        self.sign = sign

    def forward(self, ids):
        types = (torch.arange(ids.shape[1]) % 3).expand(len(ids), -1)
        words, kinds = self.words(ids), self.types(types)
        both = words + kinds if self.sign > 0 else words - kinds
        return self.head(both.tanh().mean(1))


class Objective:
    def perturb(self, model, batch, source):
        return batch

    def losses(self, model, batch):
        return functional.cross_entropy(model(batch["x"]), batch["label"], reduction="none")


def _batch(units=5):
    torch.manual_seed(1)
    present = torch.ones(units, dtype=torch.bool)
    return {"x": torch.randint(0, 7, (units, 6)), "label": torch.randint(0, 2, (units,)),
            "unit": torch.arange(units), "present": present}  # fmt: skip


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("padding", [None, 1])
def test_a_tensor_looked_up_for_each_unit_gives_each_its_own_rows(sign, padding, monkeypatch):
    def squared(self):
        raise AssertionError("the square of the batch")

    monkeypatch.setattr(OwnRows, "instances", squared)
    torch.manual_seed(0)
    model, batch = Typed(sign, padding), _batch()
    for kind in (BookKeeping, Ghost, Grouped):
        for clip in (Flat(norm=0.05), PerLayer(norm=0.05)):
            if kind.refuses(clip) is not None:
                continue
            seen = kind(Objective(), verify="always")(model, batch, clip, SOURCE).total
            true = Looped(Objective())(model, batch, clip, SOURCE).total
            for name, value in true.items():
                torch.testing.assert_close(seen[name], value, rtol=1e-4, atol=1e-7)


class Whole(nn.Module):
    """A weight that is made for the whole batch by no lookup: its backward needs all its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.head = nn.Parameter(torch.ones(1, 3)), nn.Linear(3, 2)

    def forward(self, x):
        return self.head((x + self.weight.exp().repeat(len(x), 1)).tanh())


def test_what_is_no_lookup_goes_through_its_own_backward():
    torch.manual_seed(0)
    model, batch = Whole(), _batch()
    batch["x"] = torch.randn(5, 3)
    for kind in (BookKeeping, Ghost):
        seen = kind(Objective(), verify="always")(model, batch, Flat(norm=0.05), SOURCE).total
        true = Looped(Objective())(model, batch, Flat(norm=0.05), SOURCE).total
        for name, value in true.items():
            torch.testing.assert_close(seen[name], value, rtol=1e-4, atol=1e-7)


def test_a_trial_asks_for_the_gradients_nearest_to_the_leaves_and_hears_all(monkeypatch):
    asked: list[int] = []
    plain = torch.autograd.grad

    def grad(loss, inputs, **options):
        asked.append(len(inputs))
        return plain(loss, inputs, **options)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    x, w = torch.randn(3, 4, requires_grad=True), torch.randn(4, 4, requires_grad=True)
    turned = w.t()
    first = x @ turned
    parts = (first * 2).split(2, dim=1)  # two outputs of one node
    aside = (first[1:] * 3).sum()  # no loss depends on it
    shared = turned.exp()
    last = parts[0] + parts[1] + shared.sum()
    outputs = [x, turned, first, *parts, aside, shared, last]
    found = loss_answers(last.sum(1).unbind(), outputs)
    assert asked == [2] * 3  # x and turned
    assert [found.owner([t]) for t in (x, first, *parts, last)] == [Layout(0)] * 5
    assert found.owner([aside]) == UNANSWERED
    assert found.owner([turned]) == found.owner([shared]) == "shared"

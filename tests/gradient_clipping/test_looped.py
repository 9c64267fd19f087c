import pytest
import torch
from torch import nn

from nacre.adversarial_training import Standard
from nacre.core import rows
from nacre.core.errors import UnsupportedLayer
from nacre.core.random import Source
from nacre.core.tensors import norm
from nacre.gradient_clipping import BookKeeping, Flat, Looped, Unclipped
from nacre.gradient_clipping.choose import choose_sum
from nacre.models import task_for
from tests.laws.zoo import MLP

SOURCE = Source(bytes(32))


def _looped(model, batch, clip):
    return Looped(Standard(MLP.task))(model, batch, clip, SOURCE)


def test_norms_are_those_of_single_backward_passes():
    model, batch = MLP.model(), MLP.batch(3)
    total = _looped(model, batch, Unclipped())
    for unit in range(3):
        model.zero_grad()
        MLP.task.losses(model, batch)[unit].backward()
        length = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
        torch.testing.assert_close(total.local.norms[unit, 0], length)


def test_it_takes_models_that_look_at_values():
    class Curious(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            return self.head(x) if x.sum() > 0 else self.head(-x)

    total = _looped(Curious(), MLP.batch(4), Flat(norm=0.1))
    assert 0 < norm(total.total) <= 0.4


def test_a_row_that_overflows_inside_the_model_is_dropped():
    batch = MLP.batch(3)
    batch["features"][1] = torch.tensor([3e38, -3e38, 3e38, -3e38, 3e38, -3e38])
    total = _looped(MLP.model(), batch, Flat(norm=0.1))
    assert total.local.dropped == 1
    assert 0 < norm(total.total) <= 0.2


# -- what is kept between passes ---------------------------------------------------------------


class Remembers(nn.Module):
    """From some pass on it computes with the row that it saw before."""

    def __init__(self, since):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.seen, self.passes, self.since = nn.Linear(6, 3), None, 0, since

    def forward(self, x):
        self.passes += 1
        before, self.seen = self.seen, x.detach().mean(0)
        if before is None or self.passes < self.since:
            return self.head(x)
        return self.head(x - before)


@pytest.mark.parametrize("units", [1, 2, 8])
def test_a_model_that_remembers_the_unit_before_is_refused(units):
    with pytest.raises(UnsupportedLayer, match="keeps what it saw from one pass to the next"):
        _looped(Remembers(0), MLP.batch(units), Flat(norm=1.0))


def test_memory_that_begins_later_is_seen_in_a_later_sum():
    looped, model, batch = Looped(Standard(MLP.task)), Remembers(50), MLP.batch(4)
    with pytest.raises(UnsupportedLayer, match="nothing of this step was released"):
        for number in range(2000):  # missed once in 5e8
            looped(model, batch, Flat(norm=1.0), SOURCE.child(number))
    assert looped.armed.done > 3


@pytest.mark.parametrize("units", [0, 1, 3])
@pytest.mark.parametrize("clip", [Flat(norm=0.1), Unclipped()])
def test_an_honest_model_passes_every_check(units, clip):
    always = Looped(Standard(MLP.task), verify="always")
    model, batch = MLP.model(), rows.select(MLP.batch(3), slice(units))
    total = always(model, batch, clip, SOURCE)
    plain = Looped(Standard(MLP.task), verify="never")(model, batch, clip, SOURCE)
    assert all(torch.equal(total.total[name], plain.total[name]) for name in total.total)


def test_verify_reaches_the_loop():
    chosen, _ = choose_sum(
        "looped", model=MLP.model(), objective=Standard(MLP.task), clip=Flat(norm=1.0),
        sample=MLP.batch(3), verify="always",
    )  # fmt: skip
    assert isinstance(chosen, Looped) and chosen.verify == "always"


# -- packed sequences --------------------------------------------------------------------------


class PackedReader(nn.Module):
    """Rows of different lengths, packed; a step of zeros alone is padding."""

    def __init__(self, inside=0.0):
        super().__init__()
        torch.manual_seed(1)
        self.cells = nn.LSTM(5, 6, num_layers=2, dropout=inside, batch_first=True)
        self.drop, self.out = nn.Dropout(0.3), nn.Linear(6, 3)

    def forward(self, x):
        lengths = (x.abs().sum(-1) > 0).sum(1).clamp(min=1)
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
        _, (last, _) = self.cells(packed)
        return self.out(self.drop(last[-1]))


def _sequences():
    x = torch.randn(5, 6, 5, generator=torch.Generator().manual_seed(0))
    for row, length in enumerate((6, 3, 1, 5, 2)):
        x[row, length:] = 0
    return {
        "features": x,
        "label": torch.arange(5) % 3,
        "present": torch.ones(5, dtype=torch.bool),
        "unit": torch.arange(5) + 7,
    }


def test_packed_sequences_are_taken_one_unit_at_a_time():
    """Exact, dropout beside the packed layer included: a unit's share does not hang on others."""
    model, batch, clip = PackedReader().train(), _sequences(), Flat(norm=1e6)
    task = Standard(task_for("classification", 3))
    sums, why = choose_sum("auto", model=model, objective=task, clip=clip, sample=batch)
    assert isinstance(sums, BookKeeping), why
    sums = Looped(task)
    sums.learn(model, batch, Source(bytes(32)))
    source = Source(bytes(32))
    whole = sums(model, batch, clip, source).total
    parts = [sums(model, rows.select(batch, slice(i, i + 1)), clip, source).total for i in range(5)]
    for name, value in whole.items():
        torch.testing.assert_close(value, sum(part[name] for part in parts), rtol=1e-5, atol=1e-6)
    model.eval()
    plain = torch.autograd.grad(task.losses(model, batch).sum(), list(model.parameters()))
    still = sums(model, batch, clip, source).total
    for value, gradient in zip(still.values(), plain, strict=True):
        torch.testing.assert_close(value, gradient, rtol=1e-4, atol=1e-5)


def test_dropout_inside_a_packed_layer_is_refused():
    model = PackedReader(inside=0.5).train()
    task = Standard(task_for("classification", 3))
    with pytest.raises(UnsupportedLayer, match="pass padded sequences"):
        choose_sum("auto", model=model, objective=task, clip=Flat(norm=1.0), sample=_sequences())

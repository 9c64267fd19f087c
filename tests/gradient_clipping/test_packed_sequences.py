"""Recurrent layers over packed sequences: the sum of single units, whatever order lengths make."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
)

from nacre.core import rows
from nacre.core.errors import UnsupportedLayer
from nacre.core.random import Source
from nacre.core.tensors import norm
from nacre.gradient_clipping import BookKeeping, Flat, Ghost, Grouped, Looped, choose_sum
from tests.laws.networks import Computed, Objective
from tests.laws.zoo import distance

SOURCE, CLIP = Source(bytes(32)), Flat(norm=0.5)
OBJECTIVE = Objective(lambda model, batch: model.function(model, batch))
LENGTHS = [[4, 6, 2, 1, 6], [1, 2, 3, 6, 5], [3, 3, 3], [1, 1], [1], [5, 4, 3, 2]]
"""Permuted, with ties, of one step, of one unit, in order; the longest is another one than on
trial, and so are the numbers of units and of steps."""


def _batch(lengths, kind=torch.float64, seed=0):
    generator, units = torch.Generator().manual_seed(seed), len(lengths)
    x = torch.randn(units, 6, 4, generator=generator).to(kind)
    present = torch.ones(units, dtype=torch.bool)
    numbers = {"present": present, "unit": torch.arange(units) + 3}
    return {"x": x, "lengths": torch.tensor(lengths)} | numbers


def _packed(batch, first=True, **more):
    x = batch["x"] if first else batch["x"].transpose(0, 1)
    return pack_padded_sequence(x, batch["lengths"].cpu(), first, enforce_sorted=False, **more)


def _read(found):
    return (1.3 * found + 0.2).sin().flatten(1).sum(1)


def _outputs(s, batch, total=6):
    packed, _ = s.cells(_packed(batch))
    found, _ = pad_packed_sequence(packed, batch_first=True, total_length=total)
    return _read(found)


def _steps_first(s, batch):
    """By steps; without a total length the longest sequence says how many there are."""
    packed, last = s.cells(_packed(batch, first=False))
    found, lengths = pad_packed_sequence(packed)
    last = last[0] + last[1].sum(-1, keepdim=True) if isinstance(last, tuple) else last
    return found.sin().sum((0, 2)) / lengths + _read(last.transpose(0, 1))


def _last(s, batch):
    _, last = s.cells(_packed(batch))
    last = last[0] if isinstance(last, tuple) else last
    return _read(s.drop(last[-1]))


def _sorted_by_hand(s, batch):
    lengths, order = batch["lengths"].sort(descending=True)
    packed, last = s.cells(pack_padded_sequence(batch["x"][order], lengths, batch_first=True))
    found, _ = pad_packed_sequence(packed, batch_first=True)
    back = order.argsort()
    return _read(last[:, back].transpose(0, 1)) + (found[back] ** 2).sum((1, 2))


def _sequences(s, batch):
    inside = torch.arange(6) < batch["lengths"][:, None]
    parts = [row[kept] for row, kept in zip(batch["x"], inside, strict=True)]
    packed, last = s.cells(pack_sequence(parts, enforce_sorted=False))
    found, _ = pad_packed_sequence(packed, batch_first=True)
    return _read(last.transpose(0, 1)) + (found**2).sum((1, 2)).sin()


def _dense_between(s, batch):
    """A layer on the packed rows themselves, start states of the units, dropout behind."""
    packed, start = _packed(batch), batch["x"][:, :2, 0].mT[..., None].expand(2, -1, 5)
    packed = PackedSequence(s.enter(packed.data).tanh(), *packed[1:])
    packed, last = s.cells(packed, start.contiguous())
    found, _ = pad_packed_sequence(packed, batch_first=True)
    return (s.drop(found) ** 2).sum((1, 2)) + _read(s.drop(last).transpose(0, 1))


def _learnt_start(s, batch):
    lengths, order = batch["lengths"].sort(descending=True)
    packed = pack_padded_sequence(batch["x"][order], lengths, batch_first=True)
    _, last = s.cells(packed, s.start.expand(-1, len(order), -1))
    return _read(last.transpose(0, 1)[order.argsort()])


def _several_each(s, batch):
    """Two sequences of each unit."""
    x, lengths = batch["x"].unflatten(1, (2, 3)).flatten(0, 1), batch["lengths"].clamp(max=3)
    both = {"x": x, "lengths": torch.stack([lengths, 4 - lengths], 1).flatten()}
    _, last = s.cells(_packed(both))
    return _read(last[0].unflatten(0, (-1, 2)))


def _by_steps(s, batch):
    """Both ways over the rows of each step, as many as there are, as Opacus' layers go."""
    packed = _packed(batch)
    start, found = packed.data.new_zeros(int(packed.batch_sizes[0]), 5), []
    for turn in (1, -1):
        counts = packed.batch_sizes if turn > 0 else packed.batch_sizes.flip(0)
        state, outputs = start, []
        for t, row in enumerate(packed.data.split(tuple(packed.batch_sizes))[::turn]):
            count = counts[t].item()
            if count > len(state):
                state = torch.cat([state, start[len(state) : count]])
            state = (s.enter(row) + s.again(state[:count])).tanh()
            outputs.append(state)
        found.append(torch.cat(outputs[::turn]))
    packed = PackedSequence(torch.cat(found, 1), *packed[1:])
    return _read(pad_packed_sequence(packed, True, total_length=6)[0])


MODELS = {
    "lstm": (_outputs, {"cells": nn.LSTM(4, 5, batch_first=True)}),
    "lstm, deep": (_steps_first, {"cells": nn.LSTM(4, 5, 2, bidirectional=True)}),
    "lstm, projected": (_steps_first, {"cells": nn.LSTM(4, 5, 2, proj_size=3)}),
    "lstm, last state": (_last, {"cells": nn.LSTM(4, 5, bidirectional=True), "drop": nn.Dropout()}),
    "gru": (_outputs, {"cells": nn.GRU(4, 5, 2, bidirectional=True, bias=False)}),
    "gru, by hand": (_sorted_by_hand, {"cells": nn.GRU(4, 5)}),
    "tanh": (_sequences, {"cells": nn.RNN(4, 5, bidirectional=True)}),
    "relu": (_dense_between, {"cells": nn.RNN(4, 5, 2, nonlinearity="relu"),
                              "enter": nn.Linear(4, 4), "drop": nn.Dropout(0.3)}),
    "learnt start": (_learnt_start, {"cells": nn.GRU(4, 5),
                                     "start": nn.Parameter(torch.randn(1, 1, 5))}),
    "by steps": (_by_steps, {"enter": nn.Linear(4, 5), "again": nn.Linear(5, 5)}),
    "several each": (_several_each, {"cells": nn.GRU(4, 5)}),
}  # fmt: skip


def _model(forward, kind=torch.float64, **parts):
    torch.manual_seed(0)
    model = Computed(forward, **parts).train().to(kind)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.5)
    return model


def _looped(model, batch, owners):
    return Looped(OBJECTIVE, owners=owners, verify="never")(model, batch, CLIP, SOURCE).total


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_packed_sequences_give_the_sum_of_single_units(name):
    """By what each row carries alone, too: without any check."""
    forward, parts = MODELS[name]
    model = _model(forward, **parts)
    chosen, _ = choose_sum(
        "auto", model=model, objective=OBJECTIVE, clip=CLIP, sample=_batch([4, 6, 2, 3])
    )
    assert isinstance(chosen, BookKeeping)
    kinds = (BookKeeping, "never"), (Ghost, "always"), (Grouped, "never")
    for step, lengths in enumerate(LENGTHS):
        batch = _batch(lengths, seed=step)
        expected = _looped(model, batch, chosen.owners)
        for kind, verify in kinds if step < 2 else kinds[:1]:
            taken = kind(OBJECTIVE, verify, owners=chosen.owners)
            assert distance(taken(model, batch, CLIP, SOURCE).total, expected) < 1e-10 * norm(
                expected
            )
    batch["x"][2, 0] = torch.nan
    found = chosen(model, batch, CLIP, SOURCE)
    rest = rows.select(batch, torch.arange(4) != 2)
    without = _looped(model, rest, chosen.owners)
    assert found.local.dropped == 1 and distance(found.total, without) < 1e-10 * norm(without)


@pytest.mark.parametrize("name", ["lstm, deep", "gru"])
def test_single_precision_rounds_alone(name):
    forward, parts = MODELS[name]
    model = _model(forward, torch.float32, **parts)
    sums, batch = BookKeeping(OBJECTIVE, "always"), _batch(LENGTHS[0], torch.float32)
    sums.learn(model, _batch([4, 6, 2], torch.float32), SOURCE)
    expected = _looped(model, batch, sums.owners)
    assert distance(sums(model, batch, CLIP, SOURCE).total, expected) < 1e-5 * norm(expected)


# -- what mixes units --------------------------------------------------------------------------


def _others_lengths(s, batch):
    """How many rows of a unit are read, another unit says."""
    return _outputs(s, batch | {"lengths": batch["lengths"].flip(0)})


def _only_lengths_sorted(s, batch):
    lengths = batch["lengths"].sort(descending=True).values
    _, last = s.cells(pack_padded_sequence(batch["x"], lengths, batch_first=True))
    return _read(last[0])


def _never_unsorted(s, batch):
    packed, _ = s.cells(_packed(batch))
    return _read(pad_packed_sequence(PackedSequence(*packed[:2]), True, total_length=6)[0])


def _others_states(s, batch):
    """In the order of the batch, for sequences in another one."""
    packed = _packed(batch)
    start = batch["x"][:, 0, :1].expand(-1, 5)[None].contiguous()
    _, last = s.cells(PackedSequence(*packed[:2]), start)
    return _read(last[0][packed.unsorted_indices])


def _other_steps(s, batch):
    """As many sequences as there are, all of one length, of whatever rows come."""
    packed, units = _packed(batch), len(batch["unit"])
    steps = torch.full((len(packed.data) // units,), units)
    found, _ = s.cells(PackedSequence(packed.data[: units * len(steps)], steps))
    return _read(found.data.unflatten(0, (-1, units)).transpose(0, 1)[packed.unsorted_indices])


def _different_numbers(s, batch):
    """Long units have three sequences, and others one."""
    more = (batch["lengths"] > 3).nonzero().squeeze(1).repeat(2)
    x = torch.cat([batch["x"], batch["x"][more]])
    both = {"x": x, "lengths": torch.cat([batch["lengths"], batch["lengths"][more]])}
    return _read(s.cells(_packed(both))[1][0][: len(batch["x"])])


def _steered(s, batch):
    """Steps in Python, over numbers of the batch."""
    packed = _packed(batch)
    last = packed.data.new_zeros(int(packed.batch_sizes[0]), 5)
    for row in packed.data.split(packed.batch_sizes.tolist()):
        last = torch.cat([s.cells(row[None], last[None, : len(row)])[0][0], last[len(row) :]])
    return _read(last[packed.unsorted_indices])


@pytest.mark.parametrize(
    "forward",
    [
        _others_lengths,
        _only_lengths_sorted,
        _never_unsorted,
        _others_states,
        _other_steps,
        _different_numbers,
        _steered,
    ],
)
@pytest.mark.parametrize("verify", ["first", "never"])
def test_what_mixes_units_or_may_is_refused(forward, verify):
    """Also where the trial could not show it, since on its lengths no order is changed."""
    model = _model(forward, cells=nn.GRU(4, 5, batch_first=forward is not _steered))
    for trial in ([6, 6, 6], [5, 3, 2]):
        sums = BookKeeping(OBJECTIVE, verify)
        with pytest.raises(UnsupportedLayer):
            sums.learn(model, _batch(trial), SOURCE)
            sums(model, _batch([2, 5, 1, 4]), CLIP, SOURCE)


# -- what others' lengths reach ----------------------------------------------------------------


def _filled(s, batch, **more):
    return pad_packed_sequence(s.cells(_packed(batch))[0], True, **more)[0]


def _where_flagged(read):
    """Two units of many read what is filled up; the others read their own steps."""

    def forward(s, batch):
        found, lengths = _filled(s, batch), batch["lengths"][:, None]
        own = torch.arange(found.shape[1]) < lengths
        flagged = (batch["x"][:, 0, 0] > 9)[:, None]
        mean = (found * own[..., None]).sum(1) / lengths
        return _read(torch.where(flagged, read(s, found, own), mean))

    return forward


def _attended(s, found, own):
    """The value of each step's own score, the gradient of a softmax over filled steps too."""
    scores = found.sum(-1)
    soft = scores.softmax(1)
    hard = soft.detach() * own / (soft.detach() * own).sum(1, keepdim=True)
    return ((hard + soft - soft.detach())[..., None] * found).sum(1)


def _one_step_more(s, batch):
    packed, _ = s.cells(_packed(batch))
    steps = len(packed.batch_sizes) + 1
    return _read(pad_packed_sequence(packed, True, total_length=steps)[0].mean(1))


def _by_the_rows_of_all(s, batch):
    packed, last = s.cells(_packed(batch))
    return _read(last[0]) * 9 / len(packed.data)


REACHED = {
    "mean": lambda s, batch: _read(_filled(s, batch).mean(1)),
    "largest": lambda s, batch: _read((_filled(s, batch) - 1).amax(1)),
    "mean, flagged": _where_flagged(lambda s, found, own: found.mean(1) * 5),
    "gradient alone, flagged": _where_flagged(_attended),
    "one step more": _one_step_more,
    "rows of all": _by_the_rows_of_all,
}


def _flagged(lengths, seed):
    batch = _batch(lengths, seed=seed)
    batch["x"][:2, 0, 0] = 10.0
    return batch


@pytest.mark.parametrize("name", REACHED)
def test_units_that_others_lengths_reach_are_taken_one_by_one(name):
    """Every time, with two units of many, and whatever `verify` says; units of one length on trial
    do not show it."""
    model = _model(REACHED[name], cells=nn.GRU(4, 5, batch_first=True))
    sums = BookKeeping(OBJECTIVE, "never")
    sums.learn(model, _batch([3, 3, 3]), SOURCE)
    for step in range(2):
        batch = _flagged([1, 2] + [3, 1] * 4 + [6], step)
        found = sums(model, batch, CLIP, SOURCE).total
        expected = _looped(model, batch, sums.owners)
        assert distance(found, expected) < 1e-10 * norm(expected)
        assert sums.armed.reached == step + 1


def test_the_loop_is_chosen_where_the_sample_shows_it():
    model = _model(REACHED["mean"], cells=nn.GRU(4, 5, batch_first=True))
    chosen, why = choose_sum(
        "auto", model=model, objective=OBJECTIVE, clip=CLIP, sample=_batch([2, 4, 1])
    )
    assert isinstance(chosen, Looped) and "how long" in why


def test_what_is_filled_and_not_read_stays_on_the_tape():
    model = _model(_where_flagged(lambda s, found, own: found[:, 0]), cells=nn.GRU(4, 5, 1, True))
    sums = BookKeeping(OBJECTIVE)
    sums.learn(model, _batch([3, 2, 1]), SOURCE)
    for step in range(2):
        batch = _flagged([1, 2] + [3, 1] * 3 + [6], step)
        expected = _looped(model, batch, sums.owners)
        found = sums(model, batch, CLIP, SOURCE).total
        assert distance(found, expected) < 1e-10 * norm(expected) and not sums.armed.reached


def test_dropout_of_packed_rows_is_left_to_the_loop():
    def forward(s, batch):
        packed = _packed(batch)
        packed = PackedSequence(s.drop(packed.data), *packed[1:])
        return _read(s.cells(packed)[1][0])

    model = _model(forward, cells=nn.GRU(4, 5), drop=nn.Dropout(0.3))
    for lengths in ([3, 3, 3], [2, 4, 1]):  # one length does not show it
        chosen, why = choose_sum(
            "auto", model=model, objective=OBJECTIVE, clip=CLIP, sample=_batch(lengths)
        )
        assert isinstance(chosen, Looped) and "before packing" in why
        assert norm(chosen(model, _batch([2, 5, 1, 4]), CLIP, SOURCE).total) > 0


def test_dropout_between_the_layers_is_refused():
    model = _model(_outputs, cells=nn.GRU(4, 5, 2, batch_first=True, dropout=0.3))
    with pytest.raises(UnsupportedLayer, match="pass padded sequences"):
        BookKeeping(OBJECTIVE)(model, _batch([3, 4]), CLIP, SOURCE)

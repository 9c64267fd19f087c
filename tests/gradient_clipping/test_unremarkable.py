"""A tape that looks at each call as far as its name asks for, against one that looks at all."""

import pytest
import torch

from nacre.core.random import Source
from nacre.gradient_clipping import BookKeeping, Flat
from nacre.gradient_clipping.clipped_sum import UnitLosses
from nacre.gradient_clipping.tape import tape
from nacre.gradient_clipping.tape.carried_rows.handed import unremarkable
from tests.laws.networks import NETWORKS, network

ROWS = torch.ones(2, 3)


@pytest.mark.parametrize("name", list(NETWORKS)[::9])
def test_sums_and_what_is_noted_of_calls_are_the_same(name, monkeypatch):
    found = []
    for quick in (True, False):
        if not quick:
            monkeypatch.setattr(tape, "unremarkable", lambda *call: False)
        model, batch, objective = network(name)
        sums = BookKeeping(objective, verify="never")
        total = sums(model, batch, Flat(norm=0.1), Source(bytes(32))).total
        of = sums._forward(UnitLosses(model, objective), batch, Source(bytes(32))).tape
        found.append((total, of._path.digest, of._turns, of.doubtful, len(of.uses)))
    assert found[0][1:] == found[1][1:]
    assert all(torch.equal(value, found[1][0][n]) for n, value in found[0][0].items())


@pytest.mark.parametrize(
    ("function", "args", "expected"),
    [
        (torch.nn.functional.linear, (ROWS, ROWS), True),
        (torch.Tensor.add, (ROWS, ROWS), True),
        (torch.Tensor.view, (ROWS, 6), True),
        (torch.cat, ([ROWS, ROWS],), True),
        (torch.Tensor.view, (ROWS, torch.tensor(6)), False),
        (torch.Tensor.__getitem__, (ROWS, torch.tensor(0)), False),
        (torch.gather, (ROWS, 1, ROWS.long()), False),
        (torch.Tensor.item, (ROWS,), False),
        (torch.Tensor.__bool__, (ROWS,), False),
        (torch.zeros_like, (ROWS,), False),
        (torch.matmul, (ROWS, ROWS), False),
        (torch.nn.utils.rnn.pad_sequence, ([ROWS],), False),
        (torch.nn.functional.one_hot, (ROWS.long(),), False),
    ],
)
def test_what_moves_rows_or_hands_numbers_over_is_looked_at(function, args, expected):
    flat = [t for arg in args for t in (arg if isinstance(arg, list) else [arg])]
    entering = [t for t in flat if isinstance(t, torch.Tensor)]
    assert unremarkable(function, args, entering) == expected

"""Owner tensors beside carried rows: a write by way of a view leaves them in no known order."""

import torch

from nacre.gradient_clipping.tape.carried_rows.tags import Carried
from nacre.gradient_clipping.tape.flow import Flow


def _carried(rows):
    carried = Carried(Flow(), 3)
    carried.note(rows, torch.tensor([2, 0, 1])[:, None])
    return carried


def test_rows_in_an_order_of_their_own_are_held():
    rows = torch.zeros(3, 2, requires_grad=True) * 1.0
    carried = _carried(rows)
    assert carried.holds_rows((rows,), {})
    assert carried.seen(rows) is not None


def test_after_a_write_by_a_view_they_are_held_and_nobodys():
    rows = torch.zeros(3, 2, requires_grad=True) * 1.0
    carried = _carried(rows)
    rows[:, 0].add_(1.0)
    assert carried.holds_rows((rows,), {})
    assert carried.seen(rows) is None


def test_rows_in_the_order_of_the_batch_are_not():
    rows = torch.zeros(3, 2, requires_grad=True) * 1.0
    carried = Carried(Flow(), 3)
    carried.note(rows, torch.arange(3)[:, None])
    assert not carried.holds_rows((rows,), {})

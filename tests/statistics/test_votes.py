"""One vote a unit: how far any unit moves the sum, and that it is exact."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from nacre.core.errors import CallFailed, Incompatible
from nacre.core.random import Source
from nacre.data.dataset import Rows
from nacre.data.units import Units
from nacre.models.tasks import Classification
from nacre.statistics.votes import VOTE, Votes

GROUPS = ("a",) * 7 + ("b",) * 3 + ("c", "d", "e") + ("f",) * 11


def _rows() -> Rows:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(len(GROUPS), 4, generator=generator)
    label = torch.randint(0, 3, (len(GROUPS),), generator=generator)
    return Rows(features, label, GROUPS)


def _votes(
    model: nn.Module, rows: Rows, unit: str, expected: float = 6.0, own_code: bool = False
) -> tuple[Votes, Units]:
    units = Units(rows, unit, None, Source(bytes(32)))  # type: ignore[arg-type]
    task = Classification(3)
    return Votes(model.eval(), task, units, expected, own_code=own_code), units


def _model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(4, 3)


@pytest.mark.parametrize("unit", ["example", "group"])
def test_no_unit_moves_the_sum_by_more_than_a_vote(unit: str) -> None:
    votes, units = _votes(_model(), _rows(), unit)
    everyone = torch.arange(len(units))
    whole = votes.total(everyone)
    assert whole.bound == VOTE and whole.total["votes"].shape == (3, 3)
    weights = whole.total["votes"].double().sum()
    assert 0 <= len(units) - weights <= len(units) * 11 * 2.0**-14  # rounded down to quanta
    for place in range(len(units)):
        rest = votes.total(everyone[everyone != place]).total["votes"].double()
        own = whole.total["votes"].double() - rest
        assert (own >= 0).all() and 0 < own.sum() <= VOTE
        # Exactly what the unit adds alone: nothing of it is lost to rounding beside the others.
        assert torch.equal(own, votes.total(torch.tensor([place])).total["votes"].double())


def test_votes_are_the_confusion_matrix() -> None:
    rows, model = _rows(), _model()
    votes, units = _votes(model, rows, "example")
    found = votes.total(torch.arange(len(units))).total["votes"]
    with torch.no_grad():
        guessed = model(rows.features).argmax(1)
    for i in range(3):
        for j in range(3):
            assert found[i, j] == ((rows.label == i) & (guessed == j)).sum()
    assert not votes.total(torch.tensor([], dtype=torch.int64)).total["votes"].any()


def test_an_answer_that_is_no_number_is_wrong() -> None:
    class Silent(nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return torch.full((len(rows), 3), torch.nan)

    votes, units = _votes(Silent(), _rows(), "example")
    found = votes.total(torch.arange(len(units))).total["votes"]
    assert found.sum() == len(units) and not found.diagonal().any()


def test_a_cell_is_clamped_where_float32_would_round_it() -> None:
    """Far more units than declared: the cell stands still at its height instead of rounding."""
    rows = Rows(torch.zeros(200, 4), torch.zeros(200, dtype=torch.int64))
    votes, units = _votes(_model(), rows, "example", expected=0.0)
    found = votes.total(torch.arange(len(units))).total["votes"]
    assert found.max() == 64.0


class _Keeping(nn.Module):
    """Keeps the row that it answers third, and centres all later ones by it."""

    count: torch.Tensor
    first: torch.Tensor
    kept: ClassVar[list[torch.Tensor]] = []  # of the class, as a global variable: no copy undoes it

    def __init__(self, where: str) -> None:
        super().__init__()
        self.layer, self.where, self.seen = _model(), where, list[torch.Tensor]()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("first", torch.zeros(4))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if self.where == "buffer":
            self.count += 1
            if self.count == 3:
                self.first.copy_(rows[0])
            return self.layer((rows - self.first) * 50)
        seen = self.seen if self.where == "attribute" else self.kept
        seen.append(rows[0].clone())
        return self.layer((rows - seen[2]) * 50 if len(seen) > 2 else rows)


@pytest.mark.parametrize("where", ["attribute", "buffer"])
def test_a_model_that_keeps_a_row_moves_the_sum_by_one_vote_all_the_same(where: str) -> None:
    votes, units = _votes(_Keeping(where), _rows(), "example", own_code=True)
    everyone = torch.arange(len(units))
    whole = votes.total(everyone).total["votes"]
    for place in range(len(units)):
        fresh, _ = _votes(_Keeping(where), _rows(), "example", own_code=True)
        rest = fresh.total(everyone[everyone != place]).total["votes"]
        assert (whole - rest).norm() <= VOTE


def test_a_model_whose_answers_no_copy_keeps_apart_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_Keeping, "kept", [])
    votes, units = _votes(_Keeping("class"), _rows(), "example", own_code=True)
    with pytest.raises(Incompatible, match="otherwise once it has answered others"):
        votes.cast(torch.arange(len(units)))
    uncopied = _Keeping("attribute")
    uncopied.lock = (i for i in range(3))  # type: ignore[assignment]
    votes, _ = _votes(uncopied, _rows(), "example", own_code=True)
    with pytest.raises(CallFailed, match="while it was copied"):
        votes.cast(torch.arange(3))

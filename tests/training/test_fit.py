"""A step is answered once: what is journalled stands for the sum, not for its inputs alone."""

import pytest
import torch

from nacre.core.errors import LedgerError
from nacre.ledger import Ledger
from nacre.planning.plan import plan
from nacre.runs.run import finish, train
from nacre.training import step
from tests.training.tiny import CENTRAL, FEDERATED, StopAfter, Stopped, recipe


def _interrupted(tmp_path, steps=3):
    """Journalled up to `steps`, kept up to the last checkpoint before."""
    planned = plan(recipe(tmp_path, CENTRAL))
    with pytest.raises(Stopped):
        train(planned, tmp_path / "run", observe=StopAfter(steps))
    return planned


def _altered(monkeypatch):
    """The weights, the draw and the recipe stay; the last bit of one number of the sum moves."""
    real = step._sum

    def other(*given):
        total = real(*given)
        first = next(iter(total.total.values())).view(-1)
        first[0] = torch.nextafter(first[0], torch.tensor(torch.inf))
        return total

    monkeypatch.setattr(step, "_sum", other)


def test_a_step_taken_again_over_another_sum_is_refused(tmp_path, monkeypatch):
    """Weights, number and key are the same, so nothing but the sum tells that it is another."""
    planned = _interrupted(tmp_path)
    _altered(monkeypatch)
    again = plan(planned.recipe, resume=tmp_path / "run")
    with pytest.raises(LedgerError, match=r"step 3 .* was taken before, .* `nacre finish`"):
        train(again, tmp_path / "run", resume=True)
    with Ledger.open(tmp_path / "privacy.db") as ledger:
        assert ledger.summary("iris").runs[0].journalled == 3
    monkeypatch.undo()
    train(again, tmp_path / "run", resume=True)


def test_a_run_that_cannot_take_its_step_again_can_be_finished(tmp_path, monkeypatch):
    """What the message says to do works where the rounding of the machine has changed for good."""
    planned = _interrupted(tmp_path)
    _altered(monkeypatch)
    with pytest.raises(LedgerError):
        train(plan(planned.recipe, resume=tmp_path / "run"), tmp_path / "run", resume=True)
    assert finish(tmp_path / "run").folder.outcome.exists()


def test_a_round_taken_again_over_another_sum_is_refused(tmp_path, monkeypatch):
    """A party that lost its replies trains the round again: only to the same change."""
    planned = plan(recipe(tmp_path, FEDERATED))
    with pytest.raises(Stopped):
        train(planned, tmp_path / "run", observe=StopAfter(3))
    for reply in [*(tmp_path / "run").rglob("train-*")]:
        reply.unlink()
    again = plan(planned.recipe, resume=tmp_path / "run")
    _altered(monkeypatch)
    with pytest.raises(LedgerError, match="was taken before"):
        train(again, tmp_path / "run", resume=True)
    monkeypatch.undo()
    train(again, tmp_path / "run", resume=True)

"""A run that was interrupted: the same steps again, or none."""

import json

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from nacre.core.errors import (
    Incompatible,
    LedgerError,
    RunError,
)
from nacre.core.tensors import detached, trainable
from nacre.gradient_clipping import Adaptive
from nacre.recipe.sections import GrantOption, LedgerChoice
from tests.integrations.declared import (
    book,
    cross_entropy,
    linear,
    private,
    same,
    sgd,
    table,
)

# -- resume ------------------------------------------------------------------------------------


def interrupted(tmp_path, **changed):
    """Saved after step 2, dead after step 3; the schedule is part of what is saved."""
    model = linear()
    optimizer = sgd(model)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with private(tmp_path, model, optimizer, folder=tmp_path / "run", **changed) as run:
        for step in run:
            schedule.step()
            if step == 2:
                run.save({"schedule": schedule.state_dict()})
            if step == 3:
                break


def resumed(tmp_path, **changed):
    torch.manual_seed(1)
    model = nn.Linear(4, 2)  # other weights: the checkpoint's count
    optimizer = sgd(model)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with private(
        tmp_path, model, optimizer, folder=tmp_path / "run", resume=True, **changed
    ) as run:
        assert run.done == 2
        schedule.load_state_dict(run.extra["schedule"])
        for _ in run:
            schedule.step()
        run.finish()
    return detached(trainable(model))


def test_a_resumed_run_ends_where_an_undisturbed_one_does(tmp_path, known_key):
    interrupted(tmp_path)
    ended = resumed(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    model = linear()
    optimizer = sgd(model)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with private(other, model, optimizer, folder=other / "run") as run:
        for _ in run:
            schedule.step()
    assert same(ended, trainable(model))
    (standing,) = book(tmp_path).runs
    assert (standing.journalled, standing.end) == (6, "settled")


def _other_loss(model, features, label):
    return 0.5 * cross_entropy(model, features, label)


@pytest.mark.parametrize(
    "changed",
    [
        {"losses": _other_loss},
        {"dataset": TensorDataset(-table().tensors[0], table().tensors[1])},
        {"microbatch": 4, "gradients": "looped"},
    ],
    ids=["loss", "rows", "rounding"],
)
def test_a_step_taken_before_is_not_taken_again_otherwise(tmp_path, changed):
    """Weights, number and key are the same, the sum is not: its release would be a second one."""
    interrupted(tmp_path)
    with pytest.raises(LedgerError, match=r"step 3 .* was taken before"):
        resumed(tmp_path, **changed)


def test_an_adaptive_rule_goes_on_where_it_stood(tmp_path):
    interrupted(tmp_path, clip=Adaptive(norm=1.0))
    resumed(tmp_path, clip=Adaptive(norm=1.0))  # step 3 is the same: so was the rule


def test_other_numbers_are_another_run(tmp_path):
    interrupted(tmp_path)
    with pytest.raises(LedgerError):
        resumed(tmp_path, steps=5)


def test_without_a_checkpoint_a_resumed_run_begins_again(tmp_path, known_key):
    model = linear()
    with private(tmp_path, model, folder=tmp_path / "run") as run:
        run.step()
    once = detached(trainable(model))
    again = linear()
    with private(tmp_path, again, folder=tmp_path / "run", resume=True) as run:
        assert run.done == 0 and run.epsilon() > 0  # it may have been released
        run.step()
    assert same(once, trainable(again))


def test_a_damaged_checkpoint_lets_go_of_the_run(tmp_path):
    from nacre.core.errors import FileDamaged

    interrupted(tmp_path)
    (kept,) = (tmp_path / "run" / "state").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-8])
    with pytest.raises(FileDamaged, match="is damaged"):
        resumed(tmp_path)
    kept.write_bytes(whole)
    resumed(tmp_path)


def test_nothing_private_is_saved(tmp_path):
    interrupted(tmp_path)
    facts = json.loads((tmp_path / "run" / "local" / "run.json").read_text())
    assert set(facts) == {"run", "portions", "threads"}
    key = (tmp_path / "run" / "local" / "run.key").read_bytes()
    assert (tmp_path / "run" / "local").stat().st_mode & 0o077 == 0
    assert all(key not in file.read_bytes() for file in (tmp_path / "run" / "state").iterdir())


def test_folders_are_told_apart(tmp_path):
    place = tmp_path / "run"
    with private(tmp_path, folder=place):
        with pytest.raises(RunError, match="an open run: resume it"):
            private(tmp_path, folder=place)
        with pytest.raises(RunError, match="another process"):
            private(tmp_path, folder=place, resume=True)
    with pytest.raises(RunError, match="holds no run"):
        private(tmp_path, folder=tmp_path / "none", resume=True)
    with pytest.raises(Incompatible, match="resumed from its folder"):
        private(tmp_path, resume=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(RunError, match="is not empty"):
        private(tmp_path, folder=tmp_path / "full")
    roomy = LedgerChoice(
        path=str(tmp_path / "roomy.db"), dataset="rows", grant=GrantOption(epsilon=20, delta=1e-4)
    )
    with private(tmp_path, ledger=roomy) as run, pytest.raises(Incompatible, match="no folder"):
        run.save()

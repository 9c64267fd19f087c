import pytest
import torch
from torch import nn


def test_nothing_is_public_unless_said_so(target):
    plain = target(nn.Linear(6, 2))
    assert not plain.members_public and not plain.test_public


@pytest.mark.parametrize("name", ["members", "outsiders", "test"])
def test_groups_must_be_flattened_first(target, rows, name):
    grouped = {**rows(4, 1), "rows": torch.ones(4, 2, dtype=torch.bool)}
    with pytest.raises(ValueError, match="flatten"):
        target(nn.Linear(6, 2), **{name: grouped})


@pytest.mark.parametrize("half", [{"claimed_epsilon": 1.0}, {"claimed_delta": 1e-5}])
def test_a_claim_is_epsilon_and_delta(target, half):
    with pytest.raises(ValueError, match="together"):
        target(nn.Linear(6, 2), **half)

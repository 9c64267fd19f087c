"""Parties trained in one pass: the numbers that each of them gets alone."""

import pytest
import torch
from torch import nn

from nacre.adversarial_training import Standard
from nacre.core.optimizers import OPTIMIZERS, SGD
from nacre.core.random import Source
from nacre.core.tensors import assign, detached, trainable
from nacre.data.augment import Copies
from nacre.data.dataset import Rows
from nacre.data.sampling import AllUnits, FixedSize, Poisson, Shuffled
from nacre.data.units import Units
from nacre.federated_learning.local.drift import Drift
from nacre.gradient_clipping.clipped_sum import UnitLosses
from nacre.models import task_for
from nacre.training.augmented import Augmented
from nacre.training.local.minibatches import LocalSteps, Minibatches
from nacre.training.local.stacked import Stacked, stacks_of

SIZES = (24, 17, 3, 1)
STEPS = 4


def _cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(36, 3),
    )  # fmt: skip


def _head():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    return model[0].requires_grad_(False) and model


def _tied():
    first = nn.Linear(4, 4)
    return nn.Sequential(first, nn.Tanh(), first, nn.Linear(4, 3))


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), (4,)),
    "cnn": (_cnn, (1, 8, 8)),
    "head": (_head, (4,)),
    "tied": (_tied, (4,)),
}
SAMPLINGS = {
    "full": AllUnits,
    "shuffled": lambda size: Shuffled(min(8, size), size),
    "fixed": lambda size: FixedSize(min(8, size), size),
    "poisson": lambda size: Poisson(min(8.0, size / 2), size),
}


def _made(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MODELS[name][0]().train()


def _parties(shape, sampling, sizes=SIZES, drifts=None):
    found = []
    for number, size in enumerate(sizes):
        stream = torch.Generator().manual_seed(number)
        rows = Rows(
            torch.randn(size, *shape, generator=stream),
            torch.randint(3, (size,), generator=stream),
        )
        source = Source(bytes([number] * 32))
        units = Units(rows, "example", None, source, numbered_by="place")
        draws = SAMPLINGS[sampling](max(size, 1))
        drift = None if drifts is None else drifts[number]
        found.append(LocalSteps(units, draws, 3, STEPS, source, b"asked", drift))
    return found


def _objective():
    return Standard(task_for("classification", 3))


def _alone(model, party, option, objective=None, microbatch=None):
    begun = detached(trainable(model))
    losses = UnitLosses(model, objective or _objective())
    Minibatches(losses, False, microbatch).take(
        lambda: option.build(trainable(model).values()), party
    )
    after = detached(trainable(model))
    assign(model, begun)
    return after


def _together(model, parties, option, objective=None, width=10, alike=False):
    losses = UnitLosses(model, objective or _objective())
    begun, drifts = detached(trainable(model)), [party.shape for party in parties]
    return Stacked(losses, width, alike).take(option.build, parties, begun, drifts)


def _require_near(model, parties, found, option, objective=None, tolerance=1e-6):
    begun = detached(trainable(model))
    assert len(found) == len(parties)
    for party, after in zip(parties, found, strict=True):
        alone = _alone(model, party, option, objective)
        assert alone.keys() == after.keys()
        for name, value in alone.items():
            assert torch.allclose(after[name], value, atol=tolerance, rtol=1e-5)
        if len(party.units) > 3:
            assert not torch.allclose(after[name], begun[name], atol=1e-4)


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("name", MODELS)
def test_parties_of_unequal_size_get_the_numbers_of_each(name, sampling, alike):
    model, option = _made(name), SGD(lr=0.3, momentum=0.9, weight_decay=0.01)
    parties = _parties(MODELS[name][1], sampling)
    found = _together(model, parties, option, alike=alike)
    _require_near(model, parties, found, option)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_optimizer_moves_the_parties_as_each_alone(kind):
    """In float64: where a gradient is as small as rounding, Adam moves by its sign."""
    model, option = _made("mlp").double(), kind()
    parties = _parties((4,), "shuffled")
    for party in parties:
        party.units._rows.features.data = party.units._rows.features.double()
    _require_near(model, parties, _together(model, parties, option), option, tolerance=1e-10)


@pytest.mark.parametrize("proximal", [0.0, 0.3])
@pytest.mark.parametrize("controls", [False, True])
def test_terms_against_drift_are_each_partys_own(proximal, controls):
    if not proximal and not controls:
        return
    model, option = _made("mlp"), SGD(lr=0.2)
    begun, weights = detached(trainable(model)), trainable(model)
    stream = torch.Generator().manual_seed(9)
    drifts = [
        Drift(
            weights=weights, start=begun, proximal=proximal,
            correction={
                n: torch.randn(value.shape, generator=stream) for n, value in begun.items()
            } if controls else {},
        )
        for _ in SIZES
    ]  # fmt: skip
    parties = _parties((4,), "shuffled", drifts=drifts)
    _require_near(model, parties, _together(model, parties, option), option)


def test_copies_are_those_of_each_partys_own_rows():
    objective = Augmented(_objective(), Copies(count=2, shift=1))
    model, option = _made("cnn"), SGD(lr=0.1)
    parties = _parties((1, 8, 8), "shuffled")
    found = _together(model, parties, option, objective)
    _require_near(model, parties, found, option, objective)


def test_a_party_without_rows_stays_where_it_is():
    model, option = _made("mlp"), SGD(lr=0.3)
    for sizes in ((0, 5), (0,), (0, 0)):
        parties = _parties((4,), "shuffled", sizes)
        found = _together(model, parties, option)
        _require_near(model, parties, found, option)


def test_a_party_that_is_not_finite_is_so_alone():
    model, option = _made("mlp"), SGD(lr=0.3)
    parties = _parties((4,), "shuffled")
    parties[1].units._rows.features[0] = float("inf")
    found = _together(model, parties, option)
    assert not all(bool(value.isfinite().all()) for value in found[1].values())
    _require_near(model, parties[2:], found[2:], option)
    _require_near(model, parties[:1], found[:1], option)


@pytest.mark.parametrize("sampling", ["shuffled", "poisson"])
def test_where_shapes_are_alike_no_party_moves_a_bit_of_another(sampling):
    model, option = _made("mlp"), SGD(lr=0.3, momentum=0.9)
    parties = _parties((4,), sampling)
    whole = _together(model, parties, option, alike=True)
    for some in ([0, 1], [2, 0, 1], [3, 2, 1, 0], [2]):
        found = _together(model, [parties[i] for i in some], option, alike=True)
        for i, after in zip(some, found, strict=True):
            assert all(torch.equal(after[name], whole[i][name]) for name in after)


def test_stacks_follow_from_the_cohort_and_are_as_alike_as_they_can_be():
    for count in range(30):
        cohort = [str(number) for number in range(count)]
        stacks = stacks_of(cohort, 4)
        assert [name for stack in stacks for name in stack] == cohort
        sizes = {len(stack) for stack in stacks}
        assert not sizes or (max(sizes) <= 4 and max(sizes) - min(sizes) <= 1)
        assert len(stacks) == -(-count // 4)

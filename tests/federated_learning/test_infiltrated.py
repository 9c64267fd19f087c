"""Federations in process with parties at fault in them: the mean is moved, a rule is not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nacre.core.random import Source
from nacre.core.tensors import norm, subtract, trainable
from nacre.core.types import Release, Unprotected
from nacre.federated_learning import (
    AggregateOption,
    Bucketing,
    CentredClipping,
    Federation,
    FLTrust,
    GeometricMedian,
    InProcess,
    Krum,
    MeanAggregate,
    Median,
    MultiKrum,
    NearestNeighbourMixing,
    Party,
    Plain,
    TrimmedMean,
)
from nacre.federated_learning.aggregates.direction import LastDirection
from nacre.federated_learning.attackers import (
    Attacker,
    GaussianLie,
    Infiltrated,
    InnerProduct,
    SignFlip,
)
from nacre.federated_learning.federation import ServerMemory
from nacre.gradient_clipping import Unclipped

SOURCE = Source(bytes(32))
NAMES = [f"p{i:02}" for i in range(12)]
BAD = NAMES[:2]
TRUTH = torch.tensor([[1.0, -2.0, 0.5]])


def _party(name: str) -> Party:
    """Least squares on rows of its own, by three local steps."""
    stream = torch.Generator().manual_seed(NAMES.index(name))
    features = torch.randn(60, 3, generator=stream)
    label = features @ TRUTH.T + 0.1 * torch.randn(60, 1, generator=stream)

    def train(weights: dict[str, torch.Tensor], number: int) -> Release:
        weight = weights["weight"].clone()
        for _ in range(3):
            weight -= 0.1 * ((features @ weight.T - label).T @ features) / len(features) * 2
        return Release({"weight": weight - weights["weight"]}, Unprotected("a test"))

    return Party(name, train, recipe="ab", rounds=30, like={"weight": torch.zeros(1, 3)})


def _trained(rule: AggregateOption, attacker: Attacker | None, rounds: int = 20) -> torch.Tensor:
    """The common weights at the end."""
    wire = InProcess({name: _party(name).handle for name in NAMES})
    transport = wire if attacker is None else Infiltrated(wire, BAD, attacker, SOURCE)
    direction = LastDirection() if rule.centred else None
    public = _party(NAMES[-1])

    def root(weights: dict[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
        return public._train(weights, number).total  # pyright: ignore[reportPrivateUsage]

    federation = Federation(
        transport,
        Plain(rule, 12.0),
        "ab",
        remembered=ServerMemory(direction),
        root=root if rule.rooted else None,
    )
    model = nn.Linear(3, 1, bias=False)
    nn.init.zeros_(model.weight)
    for number in range(rounds):
        total = federation.at(number)(model, tuple(NAMES), Unclipped(), SOURCE).total
        mean = {name: value / 12.0 for name, value in total.items()}
        followed = mean if direction is None else direction.shape(mean)
        with torch.no_grad():
            model.weight -= followed["weight"]
    return trainable(model)["weight"].detach()


RULES = [
    Median(bad=2),
    TrimmedMean(bad=2),
    GeometricMedian(bad=2),
    Krum(bad=2),
    MultiKrum(bad=2),
    CentredClipping(radius=0.3, bad=2),
    FLTrust(bad=2),
    Bucketing(before=GeometricMedian(bad=2)),
    NearestNeighbourMixing(before=TrimmedMean(bad=2)),
]
LIES = [SignFlip(factor=20.0), GaussianLie(deviation=30.0), InnerProduct(factor=20.0)]


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_a_rule_learns_beside_parties_at_fault(rule: AggregateOption) -> None:
    assert norm({"w": _trained(rule, None) - TRUTH}) < 0.1
    for attacker in LIES:
        assert norm({"w": _trained(rule, attacker) - TRUTH}) < 0.2, attacker


def test_the_mean_does_not() -> None:
    assert norm({"w": _trained(MeanAggregate(), None) - TRUTH}) < 0.1
    for attacker in LIES:
        assert not norm({"w": _trained(MeanAggregate(), attacker) - TRUTH}) < 1.0, attacker


def test_around_the_last_direction_a_constant_lie_is_what_its_length_says() -> None:
    """Contributions are taken minus the direction that was followed last; the update adds it."""
    direction, rule = LastDirection(), CentredClipping(radius=0.25)
    change = {"weight": torch.tensor([[3.0, 0.0, 4.0]])}
    parties = {
        name: Party(name, lambda weights, number: Release(dict(change), Unprotected("a test")),
                    recipe="ab", rounds=9, like=change).handle
        for name in ("a", "b")
    }  # fmt: skip
    federation = Federation(
        InProcess(parties), Plain(rule, 2.0), "ab", remembered=ServerMemory(direction)
    )
    model = nn.Linear(3, 1, bias=False)
    for number in range(3):
        total = federation.at(number)(model, ("a", "b"), Unclipped(), SOURCE).total
        direction.shape({name: value / 2.0 for name, value in total.items()})
        expected = {"weight": torch.tensor([[-0.6, 0.0, -0.8]]) * 0.25 * (number + 1)}
        assert direction.last is not None
        assert norm(subtract(direction.last, expected)) < 1e-6

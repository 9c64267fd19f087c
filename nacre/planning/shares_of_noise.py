"""Noise in shares: the sums that it goes into, from the recipe and its model; and what is said of
its price, which is another for each kind of observer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

from nacre.core.types import Tensors
from nacre.differential_privacy.accounting.price import Accountant, epsilon
from nacre.differential_privacy.mechanism import Mechanism
from nacre.differential_privacy.noise.distributed import DistributedGaussian, RingSums
from nacre.differential_privacy.upward import rounded_up
from nacre.federated_learning.secure import SecureGather
from nacre.federated_learning.secure.grids.noised_grid import NoisedGrid
from nacre.recipe.schema import Recipe

Observer = Literal["model", "server_and_parties"]
"""Those who see the model alone, and the server with the colluders that are assumed."""


def in_shares(recipe: Recipe, outer: Mechanism, sent: Tensors) -> Mechanism:
    """The mechanism over the parties of a secure sum that they noise themselves, with the sums that
    the noise goes into; any other as it is. `sent` has the weights whose changes a party sends."""
    federation, noise = recipe.federated_learning, outer.noise
    if federation is None or not isinstance(federation.gather, SecureGather):
        return outer
    if not isinstance(noise, DistributedGaussian):
        return outer
    gather = federation.gather
    sums = RingSums(
        bits=gather.bits,
        parties=len(federation.parties.names),
        threshold=gather.threshold,
        colluders=gather.colluders,
        dimension=sum(weight.numel() for weight in sent.values()),
        bound=outer.clip.bound(len(outer.clip.groups(list(sent)))),
        rounds=federation.rounds,
    )
    return replace(outer, noise=replace(noise, sums=sums))


def noised_grid(outer: Mechanism) -> NoisedGrid | None:
    """The grid of sums that the parties noise themselves, of a calibrated mechanism over them; None
    where they do not. Raises `ValueError` where the grid is too coarse."""
    noise = outer.noise
    if not isinstance(noise, DistributedGaussian) or noise.sums is None:
        return None
    step, shares = noise.fitted(outer.adjacency)
    sums = noise.sums
    return NoisedGrid(
        bits=sums.bits, parties=sums.parties, step=step, norm=sums.bound, noise=shares
    )


def observers(against: Mapping[Observer, float]) -> str:
    """Both epsilons in a sentence, rounded up."""
    model, inside = (rounded_up(against[who]) for who in get_args(Observer))
    return (
        f"epsilon is {model} against those who see the model alone, where every party adds its "
        f"share, and {inside}, which is charged, against the server and the assumed colluders, who "
        "know their own shares"
    )


def by_observer(mechanism: Mechanism, delta: float, accountant: Accountant) -> dict[str, Any]:
    """`epsilon_against`: the epsilon against those who see the model alone, and that against the
    server and as many colluders as are assumed, who know their own shares; {} for other noise.

    Nothing is drawn at random in either: a secure sum is over all parties, q = 1 in each round.
    """
    noise = mechanism.noise
    if not isinstance(noise, DistributedGaussian):
        return {}
    public = replace(mechanism, noise=noise.without_colluders())
    each = {"model": public, "server_and_parties": mechanism}
    return {
        "epsilon_against": {
            who: epsilon(seen.event(), delta, accountant, seen.adjacency).epsilon
            for who, seen in each.items()
        }
    }

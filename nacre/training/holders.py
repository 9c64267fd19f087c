"""What happens over the rows of one holder: the whole run, or a party between two rounds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from nacre.core.random import Source, digest
from nacre.core.tensors import assign, detached, subtract, trainable
from nacre.core.types import FeatureSpace, Inherited, Noised, Release, Tensors, Unprotected
from nacre.data.dataset import Rows, Schema
from nacre.data.units import Units
from nacre.differential_privacy.mechanism import Mechanism
from nacre.federated_learning.between_rounds import BetweenRounds
from nacre.federated_learning.kept import InMemory, Memory
from nacre.federated_learning.messages import without_control
from nacre.models import spectral
from nacre.recipe.schema import Recipe
from nacre.training import pieces
from nacre.training.fit import Journal, NoJournal, fit
from nacre.training.planned import Planned
from nacre.training.step import Parts, State


@dataclass(frozen=True)
class Setting:
    """What all holders of a run share."""

    recipe: Recipe
    schema: Schema
    space: FeatureSpace
    memory: int | None = None
    """Bytes that the machine had where the run was started: the gradient sum is chosen by them, and
    a step that is taken again elsewhere has to round as it did."""
    compiled: bool = False
    """Whether the model was compiled when the run was started; see `nacre.training.compiled`."""


def parts(setting: Setting, mechanism: Mechanism, model: nn.Module) -> Parts:
    """The parts of a step over rows under this mechanism."""
    sums, _ = pieces.sums(
        setting.recipe, model, setting.schema, setting.space, setting.memory, setting.compiled
    )
    return Parts(
        sampling=mechanism.sampling,
        sums=lambda step: sums,
        noise=mechanism.noise,
        adjacency=mechanism.adjacency,
        shape=pieces.shape(setting.recipe),
        pace=pieces.pace(setting.recipe.training),
        microbatch=setting.recipe.execution.microbatch,
    )


def units(recipe: Recipe, rows: Rows, source: Source) -> Units:
    """Scaled rows gathered into the recipe's units; rows beyond a unit's cap are left out."""
    privacy = recipe.differential_privacy
    if privacy is not None and privacy.unit == "group":
        return Units(rows, "group", privacy.rows_per_unit, source.child("rows"))
    return Units(rows, "example", None, source.child("rows"))


def local_training(
    setting: Setting,
    mechanism: Mechanism,  # of the whole run: rounds x local steps
    rows: Rows,  # this party's own, scaled
    model: nn.Module,  # the federation's; copied
    source: Source,  # this party's own
    charge: Journal,
    planned: Planned,
    memory: Memory | None = None,  # of this party; None for as long as the process lives
) -> Callable[[Tensors, int], Release]:
    """What a party does with a round's weights: train, and release the change.

    Guarantee: with noise at this level the change is a function of the requests and of noised
    steps alone. All of a round's steps are journalled before the change leaves, by a keyed digest
    of the request, of what the party remembers and of the change: a round that is taken again with
    other rows or other rounding is refused. Nothing is kept between rounds but the account, and
    what `federated_learning.local.controls` and `compression` remember, which is computed from
    changes alone.
    """
    own = copy.deepcopy(model)
    begun = {name: vector.clone() for name, vector in spectral.vectors(own).items()}
    held = units(setting.recipe, rows, source)
    planned.require_units(len(held), len(rows), rows.group)
    work = parts(setting, mechanism, own)
    federation = setting.recipe.federated_learning
    assert federation is not None
    steps = federation.local.steps
    between = BetweenRounds(
        federation, setting.recipe.training.optimizer.lr, memory or InMemory(), source
    )

    def train(tensors: Tensors, round_number: int) -> Release:
        weights = without_control(tensors)
        held_before = between.before(tensors, round_number)
        asked = digest("train", round_number, tensors, held_before.tensors, fixed(own))
        assign(own, weights)
        own.train()
        for name, vector in spectral.vectors(own).items():  # nothing is kept between rounds
            vector.copy_(begun[name])
        spectral.advance(own, _ITERATIONS)
        optimizer = setting.recipe.training.optimizer.build(trainable(own).values())
        state = State(own, optimizer, mechanism.clip, done=round_number * steps)
        taken = replace(work, shape=held_before.shape(trainable(own), weights, work.shape))
        releases: list[Release] = []
        fit(
            state,
            held,
            taken,
            until=state.done + steps,
            source=source,
            charge=NoJournal(),  # the round is journalled as a whole, before anything leaves
            planned=planned,
            observe=lambda state, release: releases.append(release) or False,
            context=asked,
        )
        change, after = held_before.sent(subtract(detached(trainable(own)), weights), asked)
        journalled = source.digest("round", asked, change)
        charge.journal((round_number + 1) * steps, journalled.hex())
        between.keep(round_number, after)
        return Release(change, _right(releases))

    return train


def fixed(model: nn.Module) -> bytes:
    """Digest of what a step computes with and does not move: frozen weights and buffers."""
    moved = {id(p) for p in trainable(model).values()}  # a tied weight has a second name
    moved |= {id(vector) for vector in spectral.vectors(model).values()}  # they enter each step
    state = model.state_dict(keep_vars=True)
    return digest({name: t for name, t in state.items() if id(t) not in moved})


_ITERATIONS = 15
"""Power iterations at the start of a round, as many as torch takes when a spectral norm is made."""


def _right(releases: list[Release]) -> Inherited | Unprotected:
    """By what right a change leaves that was computed from these releases."""
    for release in releases:
        if isinstance(release.how, Unprotected):
            return release.how
    steps = tuple(release.how for release in releases if isinstance(release.how, Noised))
    sources = tuple(f"a step with noise of deviation {step.deviation:.6g}" for step in steps)
    return Inherited(sources, steps)

"""Ordinary training on public rows: the base before any private row is used, and what a server
compares the parties with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

from torch import nn

from nacre.adversarial_training import Standard
from nacre.adversarial_training.objectives import at
from nacre.core.random import Source
from nacre.core.tensors import assign, detached, subtract, trainable
from nacre.core.types import Tensors
from nacre.data.dataset import Rows
from nacre.data.sampling import ShuffledSampling
from nacre.data.units import Units
from nacre.differential_privacy.noise.independent import NoNoise
from nacre.fine_tuning.choices import Pretrain
from nacre.gradient_clipping import Unclipped, Whole
from nacre.training import pieces
from nacre.training.fit import NoJournal, Observe, fit
from nacre.training.holders import Setting
from nacre.training.planned import NOTHING
from nacre.training.step import Parts, State


def pretrain(
    setting: Setting,
    option: Pretrain,
    model: nn.Module,
    public: Rows,  # scaled
    source: Source,
    observe: Observe,
) -> None:
    """Trains `model` in place on public rows. They owe nobody privacy, so nothing is charged."""
    task = pieces.learnt_task(setting.recipe, setting.schema)
    robust = option.adversarial and setting.recipe.adversarial_training is not None
    objective = pieces.objective(setting.recipe, task, setting.space) if robust else Standard(task)
    model.train()
    parts = Parts(
        sampling=ShuffledSampling().build(min(option.batch, len(public)), len(public)),
        sums=lambda step: Whole(at(objective, step / option.steps)),
        noise=NoNoise(because="the rows are public"),
        adjacency="add_or_remove",
    )
    optimizer = option.optimizer.build(trainable(model).values())
    held = Units(replace(public, group=None), "example", None, source)
    fit(
        State(model, optimizer, Unclipped()),
        held,
        parts,
        until=option.steps,
        source=source,
        charge=NoJournal(),
        planned=NOTHING,
        observe=observe,
    )


def public_training(
    setting: Setting,
    rows: Rows,  # public, scaled
    model: nn.Module,  # the federation's; copied
    source: Source,
) -> Callable[[Tensors, int], Tensors]:
    """(weights, round) -> weights after minus before, from as many steps as a party takes between
    two rounds.

    Neither clipped nor noised: the rows owe nobody privacy. The same round from the same weights
    gives the same change, so a round that is taken again is.
    """
    own = copy.deepcopy(model)
    recipe, federation = setting.recipe, setting.recipe.federated_learning
    assert federation is not None
    task = pieces.learnt_task(recipe, setting.schema)
    objective = pieces.objective(recipe, task, setting.space)
    held = Units(replace(rows, group=None), "example", None, source)
    sampling = ShuffledSampling().build(min(recipe.training.batch, len(rows)), len(rows))
    parts = Parts(
        sampling=sampling,
        sums=pieces.scheduled(recipe, Whole(objective)),
        noise=NoNoise(because="the rows are public"),
        adjacency="add_or_remove",
    )
    steps = federation.local.steps

    def change(weights: Tensors, round_number: int) -> Tensors:
        assign(own, weights)
        own.train()
        optimizer = recipe.training.optimizer.build(trainable(own).values())
        state = State(own, optimizer, Unclipped(), done=round_number * steps)
        fit(
            state,
            held,
            parts,
            until=state.done + steps,
            source=source,
            charge=NoJournal(),
            planned=NOTHING,
            observe=lambda state, release: False,
        )
        return subtract(detached(trainable(own)), weights)

    return change

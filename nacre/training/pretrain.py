"""The public base: ordinary training on public rows before any private row is used."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from nacre.adversarial_training import Standard
from nacre.core.random import Source
from nacre.core.tensors import trainable
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
        sums=lambda step: Whole(objective),
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

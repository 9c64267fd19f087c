"""What happens over the rows of one holder: the whole run, or a party between two rounds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nacre.adversarial_training.objectives import Guarded
from nacre.core.parts import Noise, Shape
from nacre.core.random import Source, digest
from nacre.core.tensors import detached, modules_of, subtract, trainable
from nacre.core.types import FeatureSpace, Inherited, Noised, Release, Tensors, Unprotected
from nacre.data.dataset import Rows, Schema
from nacre.data.units import Units
from nacre.differential_privacy.mechanism import Mechanism
from nacre.differential_privacy.noise.independent import NoNoise
from nacre.federated_learning.local.between_rounds import BetweenRounds
from nacre.federated_learning.local.kept import Memory
from nacre.federated_learning.messages import without_control
from nacre.gradient_clipping import RowSum, Unclipped
from nacre.gradient_clipping.clipped_sum import UnitLosses
from nacre.models import spectral
from nacre.recipe.schema import Recipe
from nacre.training import pieces
from nacre.training.fit import Journal, NoJournal, fit
from nacre.training.local.minibatches import LocalSteps, Minibatches
from nacre.training.planned import Planned
from nacre.training.step import Parts, State
from nacre.training.unmoved import Unmoved


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
    return _parts(setting, mechanism, sums)


def _parts(setting: Setting, mechanism: Mechanism, sums: RowSum) -> Parts:
    return Parts(
        sampling=mechanism.sampling,
        sums=pieces.scheduled(setting.recipe, sums),
        noise=mechanism.noise,
        adjacency=mechanism.adjacency,
        shape=pieces.shape(setting.recipe),
        pace=pieces.pace(setting.recipe.training),
        microbatch=setting.recipe.execution.microbatch,
    )


def units(
    recipe: Recipe, rows: Rows, source: Source, numbered_by: Literal["name", "place"] = "name"
) -> Units:
    """Scaled rows gathered into the recipe's units; rows beyond a unit's cap are left out."""
    privacy = recipe.differential_privacy
    if privacy is not None and privacy.unit == "group":
        return Units(rows, "group", privacy.rows_per_unit, source.child("rows"))
    return Units(rows, "example", None, source.child("rows"), numbered_by=numbered_by)


def guard_of(
    setting: Setting,
    public: Rows | None,  # scaled
    private: Mapping[str, Rows],  # scaled, by holder; looked at where they are declared public
) -> Guarded | None:
    """The guard of the recipe, if it has one, over public rows. A plan without any is refused."""
    option = setting.recipe.adversarial_training
    if option is None or option.guard is None:
        return None
    assert public is not None or setting.recipe.data.public_demonstration
    rows = public if public is not None else next(iter(private.values()))
    batch = {"features": rows.features, "label": rows.label}
    region = option.ball.region(setting.space)
    return Guarded(option.guard, pieces.task_of(setting.schema), region, batch)


class Workplace:
    """Where the parties of one process train, one after another: one copy of the model, one
    gradient sum, and what is computed of them once.

    *Guarantee:* nothing of a party stays: weights come with each request, the vectors of power
    iterations are set back, and a frozen weight or a buffer that was written into is an error. A
    model that has set attributes of its own is made anew. *Limit:* what it keeps in lists or
    outside itself is not seen, as nowhere else.
    """

    def __init__(self, setting: Setting, model: nn.Module) -> None:
        """`model` is the federation's, which is copied: its weights come with each request."""
        self._setting, self._first = setting, model
        vectors = spectral.vectors(model)
        self._vectors_begun = {name: vector.clone() for name, vector in vectors.items()}
        federation = setting.recipe.federated_learning
        assert federation is not None
        self._option, self._steps = federation, federation.local.steps
        self._asked: tuple[Tensors, int, bytes] | None = None
        self._set_up()

    def _set_up(self) -> None:
        setting = self._setting
        own = copy.deepcopy(self._first)
        own.train()
        self._own, self._vectors, self._moved = own, spectral.vectors(own), trainable(own)
        recipe = setting.recipe
        self._sums, _ = pieces.sums(
            recipe, own, setting.schema, setting.space, setting.memory, setting.compiled
        )
        losses = pieces.losses(recipe, setting.schema, setting.space)
        self._minibatches = Minibatches(
            UnitLosses(own, losses), pieces.shape(recipe) is not None, recipe.execution.microbatch
        )
        self._unmoved, self._fixed = Unmoved(own), fixed(own)
        self._attributes = _Attributes.of(own)

    def built(self) -> bytes:
        """What says whether another process has built the same: the digest of all that is computed
        with and not moved, and of how the moved weights are called and shaped."""
        shapes = repr([(name, tuple(weight.shape)) for name, weight in self._moved.items()])
        return digest(shapes, self._fixed, *self._unmoved.digests())

    def training(
        self,
        mechanism: Mechanism,  # of the whole run: rounds x local steps
        rows: Rows,  # this party's own, scaled
        source: Source,  # this party's own
        charge: Journal,
        planned: Planned,
        memory: Memory,  # of this party
    ) -> Callable[[Tensors, int], Release]:
        """What a party does with a round's weights: train, and release the change.

        Guarantee: with noise at this level the change is a function of the requests and of noised
        steps alone. All of a round's steps are journalled before the change leaves, by a keyed
        digest of the request, of what the party remembers and of the change: a round that is taken
        again with other rows or other rounding is refused. Nothing is kept between rounds but the
        account, and what `local.controls` and `compression` remember, which is computed from
        changes alone.
        """
        recipe = self._setting.recipe
        plain = isinstance(mechanism.noise, NoNoise) and isinstance(mechanism.clip, Unclipped)
        held = units(recipe, rows, source, numbered_by="place" if plain else "name")
        planned.require_units(len(held), len(rows), rows.group)
        between = BetweenRounds(self._option, recipe.training.optimizer.lr, memory, source)

        def train(tensors: Tensors, round_number: int) -> Release:
            asked, weights = self._ready(tensors, round_number)
            before = between.before(tensors, round_number)
            if before.tensors:
                asked = digest(asked, before.tensors)
            shape = before.shape(self._moved, weights, pieces.shape(recipe))
            first = round_number * self._steps
            if plain:
                steps = LocalSteps(
                    held, mechanism.sampling, first, self._steps, source, asked, shape
                )
                self._minibatches.take(self._optimizer, steps)
                how = _unprotected(mechanism.noise)
            else:
                how = self._fitted(mechanism, held, source, planned, first, asked, shape)
            change, after = before.sent(subtract(detached(self._moved), weights), asked)
            self._leave()
            if not isinstance(charge, NoJournal):
                journalled = source.digest("round", asked, change)
                charge.journal(first + self._steps, journalled.hex())
            between.keep(round_number, after)
            return Release(change, how)

        return train

    def _ready(self, tensors: Tensors, round_number: int) -> tuple[bytes, Tensors]:
        """Puts the request's weights in; returns the digest of all that enters the round, which is
        taken once for all parties that are asked the same, and the weights."""
        if not self._attributes.stand(self._own):
            self._set_up()
        known = self._asked
        if known is None or known[0] is not tensors or known[1] != round_number:
            known = (tensors, round_number, digest("train", round_number, tensors, self._fixed))
            self._asked = known
        weights = without_control(tensors)
        with torch.no_grad():
            for name, weight in self._moved.items():
                weight.copy_(weights[name])
        for name, vector in self._vectors.items():  # nothing is kept between rounds
            vector.copy_(self._vectors_begun[name])
        if self._vectors:
            spectral.advance(self._own, _ITERATIONS)
        return known[2], weights

    def _leave(self) -> None:
        """Raises `Incompatible` where a party wrote into what the next one would compute with."""
        self._unmoved.require(self._own)

    def _optimizer(self) -> torch.optim.Optimizer:
        return self._setting.recipe.training.optimizer.build(self._moved.values())

    def _fitted(
        self,
        mechanism: Mechanism,
        held: Units,
        source: Source,
        planned: Planned,
        first: int,
        asked: bytes,
        shape: Shape | None,
    ) -> Inherited | Unprotected:
        """Takes the steps by `fit`; returns by what right the change leaves."""
        work = replace(_parts(self._setting, mechanism, self._sums), shape=shape)
        state = State(self._own, self._optimizer(), mechanism.clip, done=first)
        releases: list[Release] = []
        fit(
            state,
            held,
            work,
            until=first + self._steps,
            source=source,
            charge=NoJournal(),  # the round is journalled as a whole, before anything leaves
            planned=planned,
            observe=lambda state, release: releases.append(release) or False,
            context=asked,
        )
        return _right(releases)


def _unprotected(noise: Noise) -> Unprotected:
    assert isinstance(noise, NoNoise)
    return Unprotected(noise.because)


@dataclass(frozen=True, eq=False)
class _Attributes:
    """What modules hold beside weights, buffers and modules.

    The objects themselves are kept, since the `id` of a number that a step has replaced is soon
    another's; and of tensors among them the digest, since a pass may write into one.
    """

    held: list[tuple[str, Any, bytes]]

    @classmethod
    def of(cls, model: nn.Module) -> _Attributes:
        """Those of this model, as they are now."""
        return cls(
            [
                (name, value, digest({"": value.detach()}) if isinstance(value, Tensor) else b"")
                for _, module in modules_of(model)
                for name, value in module.__dict__.items()
                if name not in _TORCHS
            ]
        )

    def stand(self, model: nn.Module) -> bool:
        """Whether the model has the same ones, which hold the same."""
        now = self.of(model).held
        return len(now) == len(self.held) and all(
            name == other and value is one and content == before
            for (name, value, content), (other, one, before) in zip(now, self.held, strict=True)
        )


_TORCHS = frozenset({"_parameters", "_buffers", "_modules"})


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

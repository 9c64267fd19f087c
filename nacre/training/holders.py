"""What happens over the rows of one holder: the whole run, or a party between two rounds."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from nacre.adversarial_training.objectives import Guarded
from nacre.core.parts import Noise, Shape
from nacre.core.random import Source, digest
from nacre.core.tensors import detached, finite, parameters_of, subtract, trainable
from nacre.core.theirs import theirs
from nacre.core.types import FeatureSpace, Inherited, Noised, Release, Tensors, Unprotected
from nacre.data.dataset import Rows, Schema
from nacre.data.units import Units
from nacre.differential_privacy.mechanism import Mechanism
from nacre.differential_privacy.noise.independent import NoNoise
from nacre.federated_learning.local.between_rounds import Before, BetweenRounds
from nacre.federated_learning.local.kept import Memory
from nacre.federated_learning.messages import without_control
from nacre.gradient_clipping import RowSum, Unclipped
from nacre.gradient_clipping.clipped_sum import UnitLosses
from nacre.models import spectral
from nacre.recipe.schema import Recipe
from nacre.training import pieces
from nacre.training.fit import Journal, NoJournal, fit
from nacre.training.local.minibatches import LocalSteps, Minibatches
from nacre.training.local.personal import personal_names
from nacre.training.local.stacked import Stacked
from nacre.training.planned import Planned
from nacre.training.step import Parts, State
from nacre.training.unmoved import Attributes, Unmoved


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
    privacy = recipe.privacy_of_rows
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

    *Guarantee:* nothing of a party stays: weights come with each request, layers of a party's own
    from its memory or the start of the run, the vectors of power iterations are set back, and a
    frozen weight or a buffer that was written into is an error. A model that has set attributes of
    its own is made anew. *Limit:* what it keeps in lists or outside itself is not seen, as nowhere
    else.
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
        self.loss: float | None = None
        """Of the party that trained last by itself, over its steps; for its owner alone. None under
        noise."""
        self._personal = personal_names(federation.local.personal, model)
        self._begun = detached({name: trainable(model)[name] for name in self._personal})
        self._set_up()

    def _set_up(self) -> None:
        setting = self._setting
        own = copy.deepcopy(self._first)
        own.train()
        weights = parameters_of(own)
        for name in self._personal:  # the server fixes its own copies once parties are set up
            weights[name].requires_grad_(True)
        self._own, self._vectors, self._moved = own, spectral.vectors(own), trainable(own)
        recipe = setting.recipe
        self._sums, _ = pieces.sums(
            recipe, own, setting.schema, setting.space, setting.memory, setting.compiled
        )
        losses = pieces.losses(recipe, setting.schema, setting.space)
        wrapped = UnitLosses(own, losses)
        self._minibatches = Minibatches(
            wrapped,
            pieces.shape(recipe) is not None,
            recipe.execution.microbatch,
            recipe.row_steps if pieces.grows(recipe) else None,
        )
        self._stacked = Stacked.of(recipe, wrapped)
        self._unmoved, self._fixed = Unmoved(own), fixed(own)
        self._attributes = Attributes.of(own)

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
    ) -> AtWork:
        """What a party does with a round's weights: train, and release the change."""
        recipe = self._setting.recipe
        plain = isinstance(mechanism.noise, NoNoise) and isinstance(mechanism.clip, Unclipped)
        held = units(recipe, rows, source, numbered_by="place" if plain else "name")
        planned.require_units(len(held), len(rows), rows.group)
        between = BetweenRounds(self._option, recipe.training.optimizer.lr, memory, source)
        return AtWork(self, mechanism, held, source, charge, planned, between, plain)

    def alone(self, party: AtWork, tensors: Tensors, round_number: int) -> Release:
        """The change of one party; `AtWork` says what is guaranteed."""
        asked, weights = self._ready(tensors, round_number)
        before = party.between.before(tensors, round_number)
        entered = _entered(asked, before)
        self._put(before.personal or self._begun)
        shape = before.shape(self._moved, weights, pieces.shape(self._setting.recipe))
        self.loss = None
        if party.plain:
            steps = self._of(party, round_number, entered, shape)
            self.loss = self._minibatches.take(self._optimizer, steps)
            how = _unprotected(party.mechanism.noise)
        else:
            how = self._fitted(party, round_number * self._steps, entered, shape)
        trained = detached(self._moved)
        own = {name: trained.pop(name) for name in self._personal}
        change = subtract(trained, weights)
        self._leave()
        return party.sent(before, change, own, round_number, entered, self._steps, how)

    def together(
        self, parties: Sequence[AtWork], tensors: Tensors, round_number: int
    ) -> list[Release]:
        """The changes of parties whose steps are plain, trained in one pass (`stacked.py`), in the
        order given. One whose weights are not finite then is trained again alone. The plan refuses
        it where parties have layers of their own."""
        asked, weights = self._ready(tensors, round_number)
        self.loss = None
        befores = [party.between.before(tensors, round_number) for party in parties]
        shapes = [before.shape(self._moved, weights, None) for before in befores]
        steps = [
            self._of(party, round_number, _entered(asked, before), shape)
            for party, before, shape in zip(parties, befores, shapes, strict=True)
        ]
        failed = theirs("the model, its loss or the optimizer", "parties trained", surely=False)
        with failed:
            build = self._setting.recipe.training.optimizer.build
            moved = self._stacked.take(build, steps, weights, shapes)
        self._leave()
        found: list[Release] = []
        for party, before, one, after in zip(parties, befores, steps, moved, strict=True):
            if not finite(after):
                self._put(weights)
                self._minibatches.take(self._optimizer, one)
                after = detached(self._moved)
                self._leave()
            how, change = _unprotected(party.mechanism.noise), subtract(after, weights)
            found.append(
                party.sent(before, change, {}, round_number, one.entered, self._steps, how)
            )
        return found

    def _of(
        self, party: AtWork, round_number: int, entered: bytes, shape: Shape | None
    ) -> LocalSteps:
        first, draws = round_number * self._steps, party.mechanism.sampling
        return LocalSteps(party.held, draws, first, self._steps, party.source, entered, shape)

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
        self._put(weights)
        for name, vector in self._vectors.items():  # nothing is kept between rounds
            vector.copy_(self._vectors_begun[name])
        if self._vectors:
            spectral.advance(self._own, _ITERATIONS)
        return known[2], weights

    def _put(self, weights: Tensors) -> None:
        with torch.no_grad():
            for name, value in weights.items():
                self._moved[name].copy_(value)

    def _leave(self) -> None:
        """Raises `Incompatible` where a party wrote into what the next one would compute with."""
        self._unmoved.require(self._own)

    def _optimizer(self) -> torch.optim.Optimizer:
        return self._setting.recipe.training.optimizer.build(self._moved.values())

    def _fitted(
        self, party: AtWork, first: int, entered: bytes, shape: Shape | None
    ) -> Inherited | Unprotected:
        """Takes the steps by `fit`; returns by what right the change leaves."""
        work = replace(_parts(self._setting, party.mechanism, self._sums), shape=shape)
        state = State(self._own, self._optimizer(), party.mechanism.clip, done=first)
        releases: list[Release] = []
        fit(
            state,
            party.held,
            work,
            until=first + self._steps,
            source=party.source,
            charge=NoJournal(),  # the round is journalled as a whole, before anything leaves
            planned=party.planned,
            observe=lambda state, release: releases.append(release) or False,
            context=entered,
        )
        return _right(releases)


@dataclass(frozen=True, eq=False)
class AtWork:
    """A party at a workplace: called with a round's weights it trains, and releases the change.

    Guarantee: with noise at this level the change is a function of the requests and of noised
    steps alone. All of a round's steps are journalled before the change leaves, by a keyed
    digest of the request, of what the party remembers and of the change: a round that is taken
    again with other rows or other rounding is refused. Nothing is kept between rounds but the
    account, and what `local.controls`, `local.personal` and `compression` remember, of which
    `BetweenRounds` says what it is computed from.
    """

    place: Workplace
    mechanism: Mechanism
    held: Units
    source: Source
    charge: Journal
    planned: Planned
    between: BetweenRounds
    plain: bool  # whether it trains by plain minibatches

    def __call__(self, tensors: Tensors, round_number: int) -> Release:
        """The change of the weights."""
        return self.place.alone(self, tensors, round_number)

    def sent(
        self, before: Before, change: Tensors, own: Tensors, round_number: int, entered: bytes,
        steps: int, how: Inherited | Unprotected,
    ) -> Release:  # fmt: skip
        """Journals the change that travels, and remembers what is to be remembered, with `own`, the
        layers that stay here."""
        change, after = before.sent(change, own, entered)
        if not isinstance(self.charge, NoJournal):
            journalled = self.source.digest("round", entered, change, *([own] if own else ()))
            self.charge.journal((round_number + 1) * steps, journalled.hex())
        self.between.keep(round_number, after)
        return Release(change, how)


def _entered(asked: bytes, before: Before) -> bytes:
    """The digest of all that enters a party's round."""
    return digest(asked, before.tensors) if before.tensors else asked


def _unprotected(noise: Noise) -> Unprotected:
    assert isinstance(noise, NoNoise)
    return Unprotected(noise.because)


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

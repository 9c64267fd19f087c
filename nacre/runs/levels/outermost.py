"""The outermost level of a run: rows in one place, or parties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from torch import nn

from nacre.core.random import Source
from nacre.core.tensors import detached, trainable
from nacre.differential_privacy.noise.independent import NoNoise
from nacre.federated_learning import Federation
from nacre.federated_learning.federation import ServerMemory
from nacre.planning.plan import Plan
from nacre.planning.robustness import rule_of
from nacre.runs.evaluation.personal import write_homes
from nacre.runs.federation.memory import server_memory
from nacre.runs.levels.surroundings import Surroundings
from nacre.runs.released import Overheard
from nacre.runs.reservations import Charges, Throughout
from nacre.runs.rows import Holdings
from nacre.runs.workers.parties import Names, Parties
from nacre.training.fit import Agreed, Journal, NoJournal
from nacre.training.holders import Setting, parts, units
from nacre.training.local.personal import fix_personal, personal_names, shared_weights
from nacre.training.planned import PlannedLevels
from nacre.training.pretrain import public_training
from nacre.training.step import Parts, State, UnitSource


class OutermostLevel(NamedTuple):
    """What the outermost steps are taken with."""

    state: State
    work: Parts
    over: UnitSource
    charge: Journal
    overheard: Overheard | None = None  # over parties whose changes are private by themselves
    remembered: ServerMemory | None = None  # by the server of a federation, between rounds
    heard: Callable[[int], str] = lambda done: ""  # the last round of parties, in public words
    at_home: Callable[[nn.Module], None] | None = None  # at the end, by the common model
    personal: tuple[str, ...] = ()  # weights that stay with the parties


def level_of_rows(
    plan: Plan, setting: Setting, held: Holdings, model: nn.Module, source: Source,
    around: Surroundings, planned: PlannedLevels,
) -> OutermostLevel:  # fmt: skip
    mechanism, devices = plan.levels[0].mechanism, around.devices
    optimizer = plan.recipe.training.optimizer.build(devices.place(model).values())
    rows = held.private[""]
    over = units(plan.recipe, rows, source)
    planned.outer.require_units(len(over), len(rows), rows.group)
    charge = Agreed(devices.group, around.charge(""))
    work = replace(parts(setting, mechanism, model), devices=devices)
    begun = mechanism.noise.init(trainable(model))
    return OutermostLevel(
        State(model.train(), optimizer, mechanism.clip, begun), work, over, charge
    )


def level_of_parties(
    plan: Plan, setting: Setting, held: Holdings, model: nn.Module, source: Source,
    around: Surroundings, planned: PlannedLevels,
) -> OutermostLevel:  # fmt: skip
    outer, option = plan.outer, plan.recipe.federated_learning
    assert outer is not None
    assert option is not None
    own = personal_names(option.local.personal, model)
    weights = detached(shared_weights(model, own))
    remembered, expected = server_memory(plan, weights), outer.sampling.expected
    outside = around.parties
    heard: Callable[[int], str] = _nothing
    at_home: Callable[[nn.Module], None] | None = None
    if outside is None:
        charge = around.charge if plan.recipe.privacy_of_parties is None else _charged_above
        parties = Parties(
            plan, setting, held, model, source, charge, planned, around.folder,
            remembered.sent(weights),
        )  # fmt: skip
        fix_personal(model, own)
        parties.by_workers(around.workers, model, around.stack)
        if own and around.folder is not None:
            at_home = partial(write_homes, plan, held, around.folder, parties.personal)
        gather, asked, recipe = parties.gather(expected), parties.transport(), plan.digest
        wire = around.through(asked)
        counted = plan.recipe.privacy_of_parties is None
        heard = partial(parties.heard, asked, counted=counted)
    else:
        fix_personal(model, own)
        gather = outside.gather(option.gather, expected, outer, weights)
        wire, recipe = outside.transport, outside.recipe
    private = plan.recipe.privacy_of_rows is not None
    if private and isinstance(outer.noise, NoNoise):  # else who takes part is a secret
        wire = Overheard(wire)
    root, rule = None, rule_of(plan.recipe)
    if rule is not None and rule.rooted:
        assert held.public is not None  # refused by the plan otherwise
        root = public_training(setting, held.public, model, source.child("public rows"))
    federation = Federation(wire, gather, recipe, private=private, remembered=remembered, root=root)
    optimizer = option.optimizer.build(trainable(model).values())
    work = Parts(
        sampling=outer.sampling,
        sums=federation.at,
        noise=outer.noise,
        adjacency=outer.adjacency,
        shape=remembered,
    )
    begun = outer.noise.init(trainable(model))
    return OutermostLevel(
        State(model.train(), optimizer, outer.clip, begun),
        work,
        Names(wire.parties),
        _journal(around, option.local.steps),
        wire if isinstance(wire, Overheard) else None,
        remembered,
        heard,
        at_home,
        own,
    )


def _nothing(done: int) -> str:
    return ""


def _journal(around: Surroundings, local: int) -> Journal:
    """The journal of the rounds: in the parties' accounts too, where both levels are promised."""
    charges = around.charges
    if isinstance(charges, Charges) and "" in charges and len(charges) > 1:
        return Throughout(charges, local)
    return around.charge("")


def _charged_above(holder: str) -> Journal:
    """Of a party whose change leaves this process in the sum over parties alone: the sum's entry is
    made in the party's account too, see `Throughout`."""
    return NoJournal()

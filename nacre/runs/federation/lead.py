"""The server of a run whose parties are elsewhere: it holds no private row."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from nacre.core.errors import Incompatible, PartyError
from nacre.core.parts import Transport
from nacre.core.random import Source
from nacre.core.run_folder import RunFolder, create, refuse_existing, reopen
from nacre.core.tensors import detached, trainable
from nacre.core.types import Tensors
from nacre.differential_privacy.mechanism import Mechanism
from nacre.federated_learning.across.kept import KeptReplies
from nacre.federated_learning.across.members import Meeting
from nacre.federated_learning.messages import RoundRequest
from nacre.federated_learning.roster import Identity, Roster
from nacre.federated_learning.secure import Secure, SecureGather
from nacre.planning.plan import Plan
from nacre.planning.robustness import rule_of
from nacre.recipe.load import dumps
from nacre.recipe.places import refuse
from nacre.runs import reservations, rows
from nacre.runs.begin import ended, reserved
from nacre.runs.close import Clock, close, facts_of
from nacre.runs.features import passed
from nacre.runs.federation.agreed import agreed_digest
from nacre.runs.federation.attending import public_source
from nacre.runs.federation.memory import PartiesElsewhere
from nacre.runs.federation.sides import of_whole_parties
from nacre.runs.federation.sums import sum_terms
from nacre.runs.levels.surroundings import Surroundings
from nacre.runs.loop import loop
from nacre.runs.progress import Progress, Silent
from nacre.runs.provenance import code
from nacre.runs.rows import Holdings
from nacre.runs.run import Run
from nacre.runs.start import starting_model
from nacre.training.devices.group import Group
from nacre.training.devices.portions import threads
from nacre.training.holders import Setting, fixed
from nacre.training.pieces import physical_memory

_ASKS = 4  # of a round, at most


class Reached(Transport, Protocol):
    """The way to the parties of a run, as `RemoteParties` is one."""

    farewell: bytes
    """What they are sent when the block is left: the last weights, where they need them."""


@dataclass(frozen=True, kw_only=True)
class Connect:
    """How a server reaches its parties, and by what they know each other."""

    identity: Identity
    """The server's."""
    roster: Roster
    """The one that all sides pin."""
    reach: Callable[[Meeting], AbstractContextManager[Reached]]
    """Reaches the parties of a run, which are all there once the block is entered."""


def lead(
    plan: Plan,
    into: Path | str,
    connect: Connect,
    *,
    resume: bool = False,
    observe: Progress | None = None,
) -> Run:
    """Trains with parties elsewhere, or with `resume` goes on to the same weights. `plan` is made
    with `ledger=False`; where whole parties are protected this side's ledger pays for that, and
    `covered(plan, run, unit="client")` looks at it.

    Raises `Incompatible` for what needs private rows at the server, `RunError` as `train`, and what
    `connect` raises. Until the parties have come nothing is charged anywhere.
    """
    _suited(plan)
    folder, watch = RunFolder(Path(into)), observe or Silent()
    if resume and ended(plan, reopen(folder.path)):
        return Run(folder, plan.recipe)
    held = rows.without_private(plan.recipe)
    if not resume:
        refuse_existing(folder.path)
        _made(plan, folder)
    with folder.locked(), ExitStack() as stack:
        facts = facts_of(folder)
        source = Source(bytes.fromhex(facts["key"])).child("run", plan.digest, "", facts["code"])
        stack.enter_context(threads(int(facts["threads"])))
        compiled = facts["compiled"] == "yes"
        memory = int(facts["memory"])
        setting = Setting(plan.recipe, held.schema, held.space, memory, compiled)
        clock = Clock()
        agreed = agreed_digest(plan.recipe)
        base = starting_model(setting, held, public_source(agreed), folder, watch, Group())
        clock.lap("base")
        meeting = Meeting(
            run=folder.name(), recipe=agreed, parties=_parties(plan),
            frozen=_frozen(setting, held, base, watch),
        )  # fmt: skip
        reached = stack.enter_context(connect.reach(meeting))
        charges = stack.enter_context(_charges(plan, folder))
        kept = KeptReplies(
            reached, folder.parties / "asked", source.secret("replies", "asked"),
            asks=_ASKS * (2 * plan.recipe.training.checkpoint + 2),
        )  # fmt: skip
        outside = PartiesElsewhere(
            transport=kept, recipe=agreed, secure=_secure(plan, connect, meeting)
        )
        around = Surroundings(charges=charges, folder=folder.path, watch=watch, parties=outside)
        try:
            outcome = loop(plan, setting, held, base, source, around)
        except PartyError:
            kept.too_few()
            raise
        clock.lap("training")
        if outcome.personal:
            reached.farewell = RoundRequest(
                "evaluate", outcome.done, agreed, detached(trainable(outcome.model))
            ).to_bytes()
        close(plan, folder, held, outcome, charges, clock.seconds, source)
    return Run(folder, plan.recipe)


def _parties(plan: Plan) -> tuple[str, ...]:
    federation = plan.recipe.federated_learning
    assert federation is not None  # _suited has refused the rest
    return tuple(federation.parties.names)


def _suited(plan: Plan) -> None:
    """Raises `Incompatible` for what a server without rows cannot do."""
    recipe = plan.recipe
    federation = recipe.federated_learning
    if federation is None:
        raise Incompatible(
            "the recipe has no federated_learning section, so there is nobody to lead; leave "
            "`--over` out"
        )
    if plan.alternatives:
        refuse(recipe, "tune", "a search is made in one house; leave it out, or leave `--over` out")
    if recipe.compare:
        refuse(recipe, "compare", "the server has no private rows to compare on; leave it out")
    public = getattr(recipe.data, "public", None)
    pretrain = recipe.fine_tuning is not None and recipe.fine_tuning.pretrain is not None
    rule = rule_of(recipe)
    looks = (
        ("federated_learning.stop", federation.stop),
        ("federated_learning.gather", rule is not None and rule.rooted),
        ("fine_tuning", pretrain),
    )
    for key, needed in looks:
        if needed and public is None:
            refuse(
                recipe,
                key,
                "it needs public rows and the server has none; name a table of them under "
                "`data.public`, or leave it out",
            )


def _secure(
    plan: Plan, connect: Connect, meeting: Meeting
) -> Callable[[SecureGather, Mechanism, Tensors], Secure]:
    federation = plan.recipe.federated_learning
    assert federation is not None

    def secure(gather: SecureGather, outer: Mechanism, like: Tensors) -> Secure:
        terms = sum_terms(
            federation, gather, connect.roster, meeting.run, meeting.recipe, outer, like
        )
        return Secure(connect.identity, terms, federation.expected())

    return secure


def _made(plan: Plan, folder: RunFolder) -> None:
    recipe = plan.recipe
    facts = {
        "run": f"{recipe.name} {secrets.token_hex(8)}",
        "hmac": "",
        "folder": str(recipe.folder.resolve()),
        "recipe": plan.digest,
        "code": code(recipe),
        "threads": str(recipe.execution.threads or torch.get_num_threads()),
        "portions": "1",
        "led": "yes",
        "memory": str(physical_memory()),
        "compiled": "yes" if plan.estimate.compiled else "no",
    }
    text = recipe.source if recipe.source is not None else dumps(recipe).encode()
    create(folder.path, text, plan.to_json(), facts, os.urandom(32))


def _frozen(setting: Setting, held: Holdings, base: torch.nn.Module, watch: Progress) -> str:
    _, _, part = passed(setting, held, base, watch)
    return fixed(part).hex()


def _charges(plan: Plan, folder: RunFolder) -> reservations.Charges:
    """Of whole parties alone: what is promised of rows is each party's to pay for."""
    whole = of_whole_parties(plan)
    return reserved(whole, folder) if whole.levels else reservations.Charges({})

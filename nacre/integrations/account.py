"""The right to take a run's steps: its key, and its charge in the ledger."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nacre.core.errors import NacreError, RunError
from nacre.core.files import read_json, sync_folder, write_bytes, write_json
from nacre.core.random import Source
from nacre.core.run_folder import RunFolder
from nacre.core.tensors import trainable
from nacre.data.sketches.cells import Cells
from nacre.differential_privacy.mechanism import Mechanism
from nacre.integrations.declaration import Promise
from nacre.ledger import Charge, Ledger
from nacre.ledger.recorded_rows import record_rows
from nacre.runs.released import Log, beyond
from nacre.training.devices.group import Group
from nacre.training.devices.portions import Devices
from nacre.training.fit import Agreed, NoJournal
from nacre.training.holders import fixed
from nacre.training.planned import Planned, PlannedLevels


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """The processes of a run, and what has to be the same in all of them."""

    group: Group = field(default_factory=Group)
    portions: int | None = None  # that a draw is dealt into; None: as many as processes
    rows: Callable[[Source], bytes] = lambda source: bytes(32)
    """A keyed digest of the rows, and of whose they are; asked for where there are several."""
    model: nn.Module | None = None
    """As a new run begins; None where a checkpoint brings the weights, which each step compares."""

    def require_same(self, source: Source) -> None:
        """Raises `RunError` unless all processes have the same rows and begin with the same
        model; `source` is one that all have. Nothing is written or charged before."""
        if self.group.size == 1:
            return
        rows = self.group.all_or_raise(lambda: self.rows(source))
        self.group.require_equal("the rows", rows, _SAME_ROWS)
        if self.model is not None:
            layers = [(name, type(one).__qualname__) for name, one in self.model.named_modules()]
            found = source.digest(trainable(self.model), fixed(self.model), repr(layers))
            self.group.require_equal("the model as it begins", found, _SAME_MODEL)


_SAME_ROWS = (
    "give every process all rows in one order (`Private` deals the drawn ones out: no sampler, no "
    "part for each rank)"
)
_SAME_MODEL = (
    "make it from the same seed (`torch.manual_seed(0)` before it is made), or load the same file"
)


class SharedJournal:
    """The journal of several processes, each of which knows how many steps may have left."""

    def __init__(self, group: Group, charge: Charge | None, journalled: int) -> None:
        self._agreed = Agreed(group, charge or NoJournal())  # the first has a charge, and writes
        self.journalled = journalled

    def journal(self, step: int, entered: str) -> None:
        """See `Journal.journal`; for all processes at once."""
        self._agreed.journal(step, entered)
        self.journalled = max(self.journalled, step)


@dataclass(frozen=True)
class Standing:
    """A run that is open: reserved in the ledger, its folder locked against other processes.

    Of several processes the first alone has the charge and the folder.
    """

    source: Source
    charge: Charge | None
    journal: Charge | SharedJournal
    planned: Planned  # of each release, read back from the folder
    devices: Devices
    threads: int  # of one operation, as when the run was started
    folder: RunFolder | None  # None: the key is in memory only, and the run cannot be resumed
    _held: ExitStack

    def log(self) -> Log | None:
        """released.jsonl of the folder; None where there is none."""
        if self.folder is None:
            return None
        log = Log(self.folder.path / "released.jsonl")
        self._held.callback(log.close)
        return log

    def settle(self, done: int) -> None:
        """Ends the run after `done` steps: the account's rule decides what comes back, and the key
        is destroyed. For all processes at once."""
        self.devices.group.on_rank_zero(lambda: self._settle(done), None)
        self.close()

    def _settle(self, done: int) -> None:
        assert self.charge is not None
        self.charge.settle()
        if self.folder is not None:
            facts = {"done": done, "planned": self.charge.steps}
            facts |= beyond(self.folder.path / "released.jsonl", done, self.charge.journalled)
            write_json(self.folder.outcome, facts)
            self.folder.destroy_key()

    def close(self) -> None:
        """Lets go of the ledger and the folder. The reservation of a run without a folder is
        settled: nobody could go on with it."""
        self._held.close()


def start_run(
    promise: Promise,
    mechanism: Mechanism,
    rows: Sequence[Cells],  # of each private row; read once the folder is made
    folder: Path | None,
    sharing: Sharing | None = None,  # None: one process, whose draws are dealt to nobody
) -> Standing:
    """A new run: its key drawn from the operating system, all its steps reserved.

    Raises `RunError` where something stands in `folder`, `BudgetExceeded` and `LedgerError` where
    the ledger refuses; then no folder was made and nothing charged.
    """
    sharing = sharing or Sharing()
    key = bytes.fromhex(sharing.group.broadcast(lambda: _new_key(folder)))
    sharing.require_same(Source(key).child("agree"))
    shared = {
        "portions": str(sharing.portions or sharing.group.size),
        "threads": str(torch.get_num_threads()),
    }

    def reserved(held: ExitStack) -> _Opened:
        name = f"{promise.ledger.dataset} {secrets.token_hex(8)}"
        if folder is None:
            return _reserved(promise, mechanism, name, None, rows, held)
        made = RunFolder(folder)
        try:
            made.local.mkdir(parents=True, mode=0o700)
            write_json(made.facts, {"run": name, **shared})
            write_bytes(made.run_key, key, mode=0o600)
            sync_folder(made.path)
            return _reserved(promise, mechanism, name, made, rows, held)
        except NacreError:
            held.close()
            shutil.rmtree(folder)
            raise

    return _standing(Source(key), shared, folder, sharing, reserved)


def _new_key(folder: Path | None) -> str:
    if folder is not None:
        refuse_taken(folder)
    return os.urandom(32).hex()


def refuse_taken(folder: Path) -> None:
    """Raises `RunError` where a run, or anything else, is in `folder` already."""
    made = RunFolder(folder)
    if made.facts.exists():
        state = (
            "an open run: resume it" if made.run_key.exists() else "a run that has ended: read it"
        )
        raise RunError(f"{folder} holds {state}, or choose another folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} exists and is not empty: choose another folder")


def resume(
    promise: Promise, mechanism: Mechanism, folder: Path, sharing: Sharing | None = None
) -> Standing:
    """The run whose key is in `folder`, under the reservation that stands. Its portions are those
    that it was started with, whatever the number of processes.

    Raises `RunError` for a run that has ended or never was, or was dealt into other portions,
    `LedgerError` where other numbers were reserved for it or its ledger is gone.
    """
    sharing = sharing or Sharing()
    kept = RunFolder(folder)
    shared = sharing.group.broadcast(lambda: _kept(kept, sharing.portions))
    source = Source(bytes.fromhex(shared["key"]))
    sharing.require_same(source.child("agree"))

    def reserved(held: ExitStack) -> _Opened:
        return _reserved(promise, mechanism, kept.name(), kept, None, held)

    return _standing(source, shared, folder, sharing, reserved)


def _kept(kept: RunFolder, portions: int | None) -> dict[str, str]:
    """What all processes have to know of a run that stands in a folder."""
    if not kept.facts.exists():
        raise RunError(f"{kept.path} holds no run, so nothing can be resumed; start one there")
    if not kept.run_key.exists():
        raise RunError(
            f"the run in {kept.path} has ended (its key is destroyed), so it cannot go on; start a "
            "new one in another folder"
        )
    facts = {name: str(kept.fact(name)) for name in ("portions", "threads")}
    if portions not in (None, int(facts["portions"])):
        raise RunError(
            f"portions={portions}, and the run in {kept.path} deals its draws into "
            f"{facts['portions']}: other portions round otherwise, so leave `portions` out"
        )
    return facts | {"key": kept.key(kept.run_key).hex()}


@dataclass(frozen=True)
class _Opened:
    """What the first process opens: its charge, and plan.json as it stands."""

    charge: Charge
    plan: dict[str, Any]


def _standing(
    source: Source,
    shared: Mapping[str, str],  # facts of the run that all have
    folder: Path | None,
    sharing: Sharing,
    reserved: Callable[[ExitStack], _Opened],  # for the first process
) -> Standing:
    """The run as each process holds it, once the first has reserved it."""
    group = sharing.group
    with ExitStack() as held:
        opened = group.on_rank_zero(lambda: reserved(held), None)
        charge = None if opened is None else opened.charge
        told = group.broadcast(lambda: opened and [opened.plan, opened.charge.journalled])
        followed = SharedJournal(group, charge, int(told[1]))
        return Standing(
            source=source,
            charge=charge,
            journal=followed if charge is None or group.size > 1 else charge,
            planned=PlannedLevels.of(told[0]).outer,
            devices=Devices(group, int(shared["portions"])),
            threads=int(shared["threads"]),
            folder=None if folder is None or not group.first else RunFolder(folder),
            _held=held.pop_all(),
        )


def _reserved(
    promise: Promise, mechanism: Mechanism, name: str, folder: RunFolder | None,
    rows: Sequence[Cells] | None,  # None where the run is resumed
    held: ExitStack,
) -> _Opened:  # fmt: skip
    choice, grant = promise.ledger, promise.ledger.grant
    unit, adjacency = mechanism.unit, mechanism.adjacency
    if folder is not None:
        held.enter_context(folder.locked())
    create = rows is not None and grant is not None
    ledger = held.enter_context(Ledger.open(choice.path, create=create))
    if rows is not None:
        if grant is not None:
            ledger.grant_if_new(
                choice.dataset, unit, grant.epsilon, grant.delta, grant.rule, adjacency,
                promise.column,
            )  # fmt: skip
        record_rows(ledger, {choice.dataset: rows})
    cap = promise.privacy.rows_per_unit
    asked = mechanism.request(name, rows_per_unit=cap, column=promise.column)
    charge = ledger.reserve(choice.dataset, asked)
    if folder is None:
        held.callback(charge.abandon)  # nothing, where the run was settled before
    multiplier = mechanism.noise.multiplier
    assert multiplier is not None  # `Promise.mechanism` has calibrated it
    written: Any = json.loads(json.dumps(promise.declared(multiplier)))
    if folder is not None:
        if rows is not None:
            write_json(folder.plan, written)
        written = read_json(folder.plan)
    return _Opened(charge, written)

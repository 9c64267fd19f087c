"""The right to take a run's steps: its key, and its charge in the ledger."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from nacre.core.errors import NacreError, RunError
from nacre.core.files import read_json, sync_folder, write_bytes, write_json
from nacre.core.random import Source
from nacre.core.run_folder import RunFolder
from nacre.data.cells import Cells
from nacre.differential_privacy.mechanism import Mechanism
from nacre.integrations.declaration import Promise
from nacre.ledger import Charge, Ledger
from nacre.ledger.recorded_rows import record_rows
from nacre.runs.released import Log, beyond
from nacre.training.planned import Planned, PlannedLevels


@dataclass(frozen=True)
class Standing:
    """A run that is open: reserved in the ledger, its folder locked against other processes."""

    source: Source
    charge: Charge
    planned: Planned  # of each release, read back from the folder
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
        is destroyed."""
        self.charge.settle()
        if self.folder is not None:
            facts = {"done": done, "planned": self.charge.steps}
            facts |= beyond(self.folder.path / "released.jsonl", done, self.charge.journalled)
            write_json(self.folder.outcome, facts)
            self.folder.destroy_key()
        self.close()

    def close(self) -> None:
        """Lets go of the ledger and the folder. The reservation of a run without a folder is
        settled: nobody could go on with it."""
        self._held.close()


def start_run(
    promise: Promise,
    mechanism: Mechanism,
    rows: Sequence[Cells],  # of each private row; read once the folder is made
    folder: Path | None,
) -> Standing:
    """A new run: its key drawn from the operating system, all its steps reserved.

    Raises `RunError` where something stands in `folder`, `BudgetExceeded` and `LedgerError` where
    the ledger refuses; then no folder was made and nothing charged.
    """
    name = f"{promise.ledger.dataset} {secrets.token_hex(8)}"
    if folder is None:
        return _reserved(promise, mechanism, name, Source.fresh(), None, rows)
    refuse_taken(folder)
    made = RunFolder(folder)
    try:
        made.local.mkdir(parents=True, mode=0o700)
        write_json(made.facts, {"run": name})
        write_bytes(made.run_key, os.urandom(32), mode=0o600)
        sync_folder(made.path)
        return _reserved(promise, mechanism, name, made.source(), made, rows)
    except NacreError:
        shutil.rmtree(folder)
        raise


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


def resume(promise: Promise, mechanism: Mechanism, folder: Path) -> Standing:
    """The run whose key is in `folder`, under the reservation that stands.

    Raises `RunError` for a run that has ended or never was, `LedgerError` where other numbers were
    reserved for it or its ledger is gone.
    """
    kept = RunFolder(folder)
    if not kept.facts.exists():
        raise RunError(f"{folder} holds no run, so nothing can be resumed; start one there")
    if not kept.run_key.exists():
        raise RunError(
            f"the run in {folder} has ended (its key is destroyed), so it cannot go on; start a "
            "new one in another folder"
        )
    return _reserved(promise, mechanism, kept.name(), kept.source(), kept, None)


def _reserved(
    promise: Promise, mechanism: Mechanism, name: str, source: Source, folder: RunFolder | None,
    rows: Sequence[Cells] | None,  # None where the run is resumed
) -> Standing:  # fmt: skip
    choice, grant = promise.ledger, promise.ledger.grant
    unit, adjacency = mechanism.unit, mechanism.adjacency
    with ExitStack() as held:
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
            record_rows(ledger, [choice.dataset], rows)
        cap = promise.privacy.rows_per_unit
        asked = mechanism.request(name, rows_per_unit=cap, column=promise.column)
        charge = ledger.reserve(choice.dataset, asked)
        if folder is None:
            held.callback(charge.abandon)  # nothing, where the run was settled before
        multiplier = mechanism.noise.multiplier
        assert multiplier is not None  # `Promise.mechanism` has calibrated it
        written = json.loads(json.dumps(promise.declared(multiplier)))
        if folder is not None:
            if rows is not None:
                write_json(folder.plan, written)
            written = read_json(folder.plan)
        planned = PlannedLevels.of(written).outer
        return Standing(source, charge, planned, folder, held.pop_all())

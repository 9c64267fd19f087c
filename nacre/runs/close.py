"""How a run ends: its model and facts on disk, its accounts settled, its key destroyed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from nacre.core.files import save_tensors, write_json
from nacre.core.random import Source
from nacre.core.run_folder import RunFolder
from nacre.core.types import Tensors
from nacre.fine_tuning import adapters, export
from nacre.planning.plan import Plan
from nacre.runs import checkpoint, reservations
from nacre.runs.evaluation.finished import save_finished
from nacre.runs.evaluation.protected import protected_figure
from nacre.runs.loop import Outcome
from nacre.runs.provenance import provenance
from nacre.runs.released import beyond
from nacre.runs.rows import Holdings


class Clock:
    """Seconds of each stage, one after another."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Ends the stage `name`; the next one begins."""
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 3)
        self._last = now


def facts_of(folder: RunFolder) -> dict[str, str]:
    """What all processes have to know of the run. Raises `RunError` where it has ended."""
    folder.source()
    folder.sweep()
    names = ("code", "threads", "portions", "memory", "compiled")
    facts = {name: str(folder.fact(name)) for name in names}
    return facts | {"key": folder.key(folder.run_key).hex()}


def close(
    plan: Plan,
    folder: RunFolder,
    held: Holdings,
    outcome: Outcome,
    charges: reservations.Charges,
    seconds: dict[str, float],
    source: Source,
) -> None:
    """Ends a run with the model of its loop, after its protected figure. See `end`."""
    weights = export.merged(outcome.model)
    if outcome.stopped == "completed":  # what ends early gives back the draws of its figure
        protected_figure(plan, folder, held, weights, charges, source)
    facts: dict[str, Any] = {
        "done": outcome.done,
        "planned": plan.rounds,
        "stopped": outcome.stopped,
        **beyond(folder.path / "released.jsonl", outcome.done, charges.journalled()),
        # How long private work took speaks of how many rows there are.
        "seconds": seconds if held.private_is_public else {},
        "curve": list(outcome.curve),
    }
    write_json(folder.local / "seconds.json", seconds)
    if learnt := adapters.learnt(outcome.model):
        save_tensors(folder.state / checkpoint.ADAPTERS, learnt)
    end(plan, folder, held, weights, charges, facts, outcome.personal)


def end(
    plan: Plan,
    folder: RunFolder,
    held: Holdings,
    weights: Tensors,  # of the finished model, adapters merged
    charges: reservations.Charges,
    facts: dict[str, Any],  # for outcome.json
    personal: Sequence[str] = (),  # weights that stayed with the parties
) -> None:
    """Writes the model and the facts, settles the accounts, removes the checkpoints, and destroys
    the key last."""
    save_finished(plan.recipe, held, weights, folder.path, personal)
    charges.settle()
    write_json(folder.path / "ledger.json", charges.extract())
    facts = facts | {"provenance": provenance(plan.recipe, plan.digest, held.hmac)}
    write_json(folder.outcome, facts)
    checkpoint.remove_all(folder.state)
    folder.destroy_key()

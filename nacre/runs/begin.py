"""How a run begins, or is gone on with: its rows, its folder, its reservation."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from nacre.core.errors import BudgetExceeded, LedgerError, RunError
from nacre.core.run_folder import RunFolder, create, refuse_existing
from nacre.data.text.token_cache import Aids, TokenCache
from nacre.planning.plan import Plan
from nacre.recipe.load import dumps
from nacre.recipe.schema import Recipe
from nacre.runs import reservations, rows
from nacre.runs.provenance import code
from nacre.runs.rows import Holdings
from nacre.runs.workers.parties import workers_of
from nacre.training.devices.group import Group
from nacre.training.pieces import physical_memory

Told = Callable[[str, int, int], None]
"""See `nacre.runs.progress.stages`."""


def started(plan: Plan, folder: RunFolder, group: Group, advance: Told) -> Holdings:
    """The rows of a new run, whose folder is made and whose budget is reserved."""
    key = bytes.fromhex(group.broadcast(lambda: _new_key(folder.path)))
    aids = Aids(TokenCache(), advance)
    held = group.all_or_raise(lambda: rows.read(plan.recipe, key, aids))
    group.require_equal("the rows", bytes.fromhex(held.hmac))
    group.on_rank_zero(lambda: _opened(plan, folder.path, key, held, group.size), folder)
    group.on_rank_zero(lambda: aids.kept.into(folder.local), None)
    return replace(held, cells=(), parts={})  # recorded: no step needs the files again


def _new_key(into: Path) -> str:
    refuse_existing(into)
    return os.urandom(32).hex()


def _opened(plan: Plan, into: Path, holder_key: bytes, held: Holdings, processes: int) -> RunFolder:
    """A new run folder with its budget reserved; none where the ledger refuses."""
    facts = {
        "run": f"{plan.recipe.name} {secrets.token_hex(8)}",
        "hmac": held.hmac,
        "folder": str(plan.recipe.folder.resolve()),
        "recipe": plan.digest,
        "code": code(plan.recipe),
        "threads": str(plan.recipe.execution.threads or _threads(plan)),
        "portions": str(plan.recipe.execution.portions or processes),
        "memory": str(physical_memory()),
        "compiled": "yes" if plan.estimate.compiled else "no",
    }
    folder = create(into, _text(plan.recipe), plan.to_json(), facts, holder_key)
    try:
        reserved(plan, folder, held).close()
    except (BudgetExceeded, LedgerError):
        shutil.rmtree(folder.path)  # nothing was released and nothing charged
        raise
    return folder


def _threads(plan: Plan) -> int:
    """Of one operation: one where parties are trained side by side, a core each."""
    return 1 if workers_of(plan) > 1 else torch.get_num_threads()


def reserved(
    plan: Plan, folder: RunFolder, held: Holdings | None = None, *, drawn: bool = False
) -> reservations.Charges:
    """The run's reservations; `drawn`: see `Charges`. Once they were made, the ledger is never made
    again: a ledger that is gone would forget what was spent."""
    cells, parts = (held.cells, held.parts) if held is not None else ((), {})
    new = not folder.reserved
    charges = reservations.reserve(
        plan, folder.name(), folder.path, new=new, cells=cells, parts=parts, drawn=drawn
    )
    if not folder.reserved:
        folder.mark_reserved()
    return charges


def _unchanged(plan: Plan, folder: RunFolder) -> RunFolder:
    """The folder, once it is certain that it was started with this recipe and this code."""
    if folder.fact("recipe") != plan.digest:
        raise RunError(
            f"the recipe differs from the one that {folder.path} was started with, so its charges "
            f"would not fit; put the old one back ({folder.recipe}) or start a new run"
        )
    if folder.fact("code") != code(plan.recipe):
        raise RunError(
            f"the code differs from what {folder.path} was started with (the versions of nacre, "
            "torch and NumPy, the kind of processor, or the files of a Python model), so its steps "
            f"would not come out the same; put it back, or end this run (`nacre finish "
            f"{folder.path}`)"
        )
    return folder


def ended(plan: Plan, folder: RunFolder) -> bool:
    """Whether the run came to its end; otherwise it can be gone on with."""
    _unchanged(plan, folder)
    if folder.outcome.exists():
        folder.destroy_key()  # the last thing of a run, and a crash may have come before it
        return True
    return False


def same_rows(plan: Plan, folder: RunFolder, group: Group, advance: Told) -> Holdings:
    """The rows, once it is certain that they are those the run was started with."""
    key = group.broadcast(lambda: folder.key(folder.holder_key).hex())
    hmac = group.broadcast(lambda: folder.fact("hmac"))

    def read() -> Holdings:
        remedy = f"end this run (`nacre abandon {folder.path}`) and start a new one"
        return _read(plan.recipe, folder, bytes.fromhex(key), hmac, advance, remedy)

    return group.all_or_raise(read)


def trained_on(recipe: Recipe, folder: RunFolder, advance: Told) -> Holdings:
    """The rows that the run of this folder was trained on. Raises `RunError` for others: an attack
    on rows that the model never saw would find nothing, whatever the model leaks."""
    remedy = "train on the new ones in a run of their own"
    key = folder.key(folder.holder_key)
    return _read(recipe, folder, key, folder.fact("hmac"), advance, remedy)


def _read(
    recipe: Recipe, folder: RunFolder, key: bytes, hmac: object, advance: Told, remedy: str
) -> Holdings:
    held = rows.read(recipe, key, Aids(TokenCache(folder.local), advance))
    if hmac != held.hmac:
        raise RunError(
            f"the data differ from those that {folder.path} was started with; put them back, or "
            f"{remedy}"
        )
    return held


def _text(recipe: Recipe) -> bytes:
    """The recipe's own file, byte for byte, or its YAML where it was written in Python."""
    return recipe.source if recipe.source is not None else dumps(recipe).encode()

"""plan -> a trained model in a run folder: reserve, step, settle; or continue where it stopped."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from nacre.core.errors import BudgetExceeded, LedgerError, RunError
from nacre.core.files import load_tensors, save_tensors, write_json
from nacre.core.random import Source
from nacre.fine_tuning import export
from nacre.models import FormerRun, build, save
from nacre.recipe.load import dumps, load
from nacre.recipe.schema import Recipe
from nacre.training import budget, rows
from nacre.training.folder import RunFolder, create, refuse_existing, reopen
from nacre.training.holders import Setting
from nacre.training.loop import Outcome, loop
from nacre.training.plan import Plan, plan
from nacre.training.pretrain import pretrain
from nacre.training.progress import Named, Progress, Silent
from nacre.training.provenance import code, provenance
from nacre.training.rows import Holdings


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


@dataclass(frozen=True)
class Run:
    """A run folder that holds a trained model."""

    folder: RunFolder
    recipe: Recipe

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path


def train(
    plan: Plan, into: Path | str, *, resume: bool = False, observe: Progress | None = None
) -> Run:
    """Trains, or with `resume` goes on to the same weights as an undisturbed run.

    Raises `RunError` for a folder that exists (or does not, with `resume`), `DataError` for rows
    that do not fit, `BudgetExceeded` where the ledger refuses. Until the reservation nothing is
    written; after it, what was released stays charged and the run can be resumed.
    """
    into = Path(into)
    if resume:
        folder = _unchanged(plan, reopen(into))
        if folder.outcome.exists():
            folder.destroy_key()  # the last thing of a run, and a crash may have come before it
            return Run(folder, plan.recipe)
        held = _same_rows(plan.recipe, folder)
    else:
        refuse_existing(into)
        holder_key = os.urandom(32)
        held = rows.read(plan.recipe, holder_key)
        folder = _opened(plan, into, holder_key, held)
    watch = observe or Silent()
    for note in held.notes:
        watch.tell(note)
    with folder.locked():
        return _train(plan, folder, held, watch)


def _opened(plan: Plan, into: Path, holder_key: bytes, held: Holdings) -> RunFolder:
    """A new run folder with its budget reserved; none where the ledger refuses."""
    facts = {
        "run": f"{plan.recipe.name} {secrets.token_hex(8)}",
        "hmac": held.hmac,
        "folder": str(plan.recipe.folder.resolve()),
        "recipe": plan.digest,
        "code": code(plan.recipe),
        "threads": str(plan.recipe.execution.threads or torch.get_num_threads()),
    }
    folder = create(into, _text(plan.recipe), plan.to_json(), facts, holder_key)
    try:
        _reserved(plan, folder, held).close()
    except (BudgetExceeded, LedgerError):
        shutil.rmtree(folder.path)  # nothing was released and nothing charged
        raise
    return folder


def _reserved(plan: Plan, folder: RunFolder, held: Holdings | None = None) -> budget.Charges:
    """The run's reservations. Once they were made, the ledger is never made again: a ledger that
    is gone would forget what was spent."""
    private = held.not_public if held is not None else ()
    charges = budget.reserve(
        plan, folder.name(), folder.path, new=not folder.reserved, rows=private
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
            f"the code differs from what {folder.path} was started with (the versions of nacre and "
            "torch, the kind of processor, or the files of a Python model), so its steps would not "
            "come out the same; put it back, or end this run "
            f"(`nacre finish {folder.path}`)"
        )
    return folder


def _same_rows(recipe: Recipe, folder: RunFolder) -> Holdings:
    """The rows, once it is certain that they are those the run was started with."""
    held = rows.read(recipe, folder.key(folder.holder_key))
    if folder.fact("hmac") != held.hmac:
        raise RunError(
            f"the data differ from those that {folder.path} was started with; put them back, or "
            f"end this run (`nacre abandon {folder.path}`) and start a new one"
        )
    return held


def _train(
    plan: Plan, folder: RunFolder, held: Holdings, watch: Progress, *, early: bool = False
) -> Run:
    """From wherever the run stands to its end; `early` ends it at its last checkpoint."""
    folder.sweep()
    # Bound to everything that a step computes from: were the checks above passed by, other data
    # or code would still meet other noise.
    source = folder.source().child("run", plan.digest, held.hmac, folder.fact("code"))
    setting = Setting(plan.recipe, held.schema, held.space)
    clock = Clock()
    with _threads(int(folder.fact("threads"))), _reserved(plan, folder) as charges:
        base = _base(setting, held, source, folder, watch)
        clock.lap("base")
        outcome = loop(plan, setting, held, base, source, charges, folder.path, watch, early=early)
        clock.lap("training")
        if "unprotected" in plan.recipe.compare and not early:
            _twin(plan.recipe, held, source, folder, Named(watch, "unprotected twin"))
            clock.lap("unprotected twin")
        _close(plan, folder, held, outcome, charges, clock.seconds)
    return Run(folder, plan.recipe)


@contextlib.contextmanager
def _threads(count: int) -> Generator[None]:
    """Lets one operation use so many threads, inside the block: as many as when the run was
    started, since sums over other threads round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _text(recipe: Recipe) -> bytes:
    """The recipe's own file, byte for byte, or its YAML where it was written in Python."""
    return recipe.source if recipe.source is not None else dumps(recipe).encode()


def _base(
    setting: Setting, held: Holdings, source: Source, folder: RunFolder | None, watch: Progress
) -> nn.Module:
    """The model before private rows: built, pre-trained where the recipe says so, prepared.

    With a folder the public base is kept at state/base.safetensors, and read back on resume.
    """
    recipe = setting.recipe
    schema = setting.schema
    model = build(recipe.model, schema.shape, schema.outputs(), recipe.seed, recipe.folder)
    choice = recipe.fine_tuning
    stored = folder.state / "base.safetensors" if folder is not None else None
    if stored is not None and stored.exists():
        weights, _ = load_tensors(stored)
        model.load_state_dict(weights)
    elif choice is not None and choice.pretrain is not None:
        assert held.public is not None  # public_rows_exist has refused the rest
        with watch.stage("public base", choice.pretrain.steps) as advance:
            keyed = source.child("pretrain")
            pretrain(
                setting, choice.pretrain, model, held.public, keyed,
                lambda state, release: bool(advance()),
            )  # fmt: skip
    if stored is not None and not stored.exists() and has_base(recipe):
        save_tensors(stored, model.state_dict())
    return model if choice is None else choice.prepare(model, recipe.seed)


def has_base(recipe: Recipe) -> bool:
    """Whether the run starts from weights that were trained before."""
    pretrained = recipe.fine_tuning is not None and recipe.fine_tuning.pretrain is not None
    return pretrained or isinstance(recipe.model, FormerRun)


def unprotected(recipe: Recipe) -> Recipe:
    """The same recipe without protection: no noise, no per-unit clipping, clean inputs."""
    return replace(
        recipe,
        differential_privacy=None,
        gradient_clipping=None,
        adversarial_training=None,
        ledger=None,
        compare=(),
        audit=(),
    )


def _twin(
    recipe: Recipe, held: Holdings, source: Source, folder: RunFolder, watch: Progress
) -> None:
    """Trains the unprotected twin on the same (public) rows and keeps its weights in state/.

    It charges nothing: `comparison_on_public_data` lets it run on rows that are public anyway.
    """
    path = folder.state / "unprotected.safetensors"
    if path.exists():
        return
    twin = plan(unprotected(recipe))
    setting = Setting(twin.recipe, held.schema, held.space)
    keyed = source.child("unprotected twin")
    base = _base(setting, held, keyed, None, watch)
    outcome = loop(twin, setting, held, base, keyed, budget.Charges({}), None, watch)
    save_tensors(path, export.merged(outcome.model))


def _close(
    plan: Plan,
    folder: RunFolder,
    held: Holdings,
    outcome: Outcome,
    charges: budget.Charges,
    seconds: dict[str, float],
) -> None:
    """Writes the model and the facts, settles the accounts, and destroys the key last."""
    recipe = plan.recipe
    weights = export.merged(outcome.model)
    schema = plan.schema
    plain = build(recipe.model, schema.shape, schema.outputs(), recipe.seed, recipe.folder)
    plain.load_state_dict(weights)
    save(
        plain, recipe.model, folder.path, shape=schema.shape, outputs=schema.outputs(),
        task=schema.task, scaler=held.scaler.to_json(), folder=recipe.folder,
    )  # fmt: skip
    charges.settle()
    write_json(folder.path / "ledger.json", charges.extract())
    facts = {
        "done": outcome.done,
        "planned": plan.rounds,
        "stopped": outcome.stopped,
        # How long private work took speaks of how many rows there are.
        "seconds": seconds if held.private_is_public else {},
        "provenance": provenance(recipe, plan.digest, held.hmac),
        "curve": list(outcome.curve),
    }
    write_json(folder.local / "seconds.json", seconds)
    write_json(folder.outcome, facts)
    folder.destroy_key()


def open_run(path: Path | str) -> Run:
    """A run whose training is complete. Raises `RunError` for one that is still open."""
    folder = reopen(Path(path))
    if not folder.outcome.exists():
        raise RunError(
            f"the training of {path} is not complete: continue it with "
            f"`nacre train RECIPE --into {path} --resume`"
        )
    return Run(folder, recipe_of(folder))


def recipe_of(folder: RunFolder) -> Recipe:
    """The recipe of a run, its paths relative to where it stood when the run was started."""
    return load(folder.recipe, folder=Path(folder.fact("folder")))


def finish(path: Path, *, observe: Progress | None = None) -> Run:
    """Ends an open run with the model of its last checkpoint; its key is destroyed.

    What the accounts get back is decided by their rule, not by the reason to stop.
    """
    folder = reopen(path)
    if folder.outcome.exists():
        folder.destroy_key()
        return open_run(path)
    again = plan(recipe_of(folder), resume=path)
    held = _same_rows(again.recipe, folder)
    with folder.locked():
        return _train(again, folder, held, observe or Silent(), early=True)


def abandon(path: Path) -> None:
    """Ends an open run without a model; what it may have released stays charged."""
    folder = reopen(path)
    folder.source()  # refuses a run that has ended
    again = plan(recipe_of(folder), resume=path)
    with folder.locked(), _reserved(again, folder) as charges:
        charges.settle()
        folder.destroy_key()

"""plan -> a trained model in a run folder: reserve, step, settle; or continue where it stopped."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.core.errors import Incompatible, RunError
from nacre.core.files import read_json
from nacre.core.random import Source
from nacre.core.run_folder import RunFolder, reopen
from nacre.models import OWN, Code
from nacre.planning.alternatives import chosen
from nacre.planning.plan import Plan, plan
from nacre.recipe.load import load_recipe
from nacre.recipe.places import placed
from nacre.recipe.schema import Recipe
from nacre.runs import checkpoint, reservations
from nacre.runs.agreement import agree, share
from nacre.runs.begin import ended, reserved, same_rows, started
from nacre.runs.close import Clock, close, facts_of
from nacre.runs.federation.releasing import end_release
from nacre.runs.federation.sides import charges_of, refuse_to_finish
from nacre.runs.levels.surroundings import Surroundings
from nacre.runs.loop import loop
from nacre.runs.progress import Named, Progress, Silent, stages
from nacre.runs.rows import Holdings
from nacre.runs.start import starting_model, train_twin
from nacre.runs.workers.parties import workers_of
from nacre.training.devices.group import Group, join
from nacre.training.devices.portions import threads
from nacre.training.holders import Setting
from nacre.training.memory import keep_pages


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

    Started by `torchrun` in several processes, each calls this with the same plan, and they share
    the work as `execution.devices` says. Only the first one writes and tells.
    """
    if plan.alternatives:
        raise Incompatible(
            placed(
                plan.recipe,
                "tune",
                "a recipe with a search is no single run; use `nacre tune`, or leave `tune` out",
            )
        )
    folder = RunFolder(Path(into))
    with join() as group, ExitStack() as stack:
        agree(plan, group)
        watch = (observe if group.first else None) or Silent()
        if resume and group.broadcast(lambda: ended(plan, reopen(folder.path))):
            return Run(folder, plan.recipe)
        begin = same_rows if resume else started
        with stages(watch) as advance:
            held = begin(plan, folder, group, advance)
        for note in held.notes:
            watch.tell(note)
        group.on_rank_zero(lambda: stack.enter_context(folder.locked()), None)
        return _train(plan, folder, held, watch, group)


def _train(
    plan: Plan,
    folder: RunFolder,  # for the first process alone to read and write
    held: Holdings,
    watch: Progress,
    group: Group,
    *,
    early: bool = False,
) -> Run:
    """From wherever the run stands to its end; `early` ends it at its last checkpoint."""
    facts = group.broadcast(lambda: facts_of(folder))
    # Bound to everything that a step computes from: were the checks above passed by, other data
    # or code would still meet other noise.
    source = Source(bytes.fromhex(facts["key"])).child("run", plan.digest, held.hmac, facts["code"])
    setting = Setting(
        plan.recipe,
        held.schema,
        held.space,
        int(facts["memory"]),
        facts["compiled"] == "yes",
    )
    shared = share(plan, group, int(facts["portions"]), watch)
    clock = Clock()
    keep_pages()
    with threads(int(facts["threads"])), ExitStack() as stack:
        charges = group.on_rank_zero(
            lambda: stack.enter_context(reserved(plan, folder)), reservations.Charges({})
        )
        base = starting_model(setting, held, source, folder, watch, group)
        clock.lap("base")
        around = Surroundings(
            charges=charges,
            folder=folder.path if group.first else None,
            watch=watch,
            devices=shared,
            early=early,
            workers=workers_of(plan),
        )
        outcome = loop(plan, setting, held, base, source, around)
        clock.lap("training")
        if "unprotected" in plan.recipe.compare and not early:
            twin = Named(watch, "unprotected twin")
            group.on_rank_zero(lambda: train_twin(plan.recipe, held, source, folder, twin), None)
            clock.lap("unprotected twin")
        seconds = clock.seconds
        group.on_rank_zero(
            lambda: close(plan, folder, held, outcome, charges, seconds, source), None
        )
    return Run(folder, plan.recipe)


def open_run(path: Path | str, *, code: Code = OWN) -> Run:
    """A run whose training is complete. Raises `RunError` for one that is still open.

    No code that the folder names is run for it without `code.runs`."""
    folder = reopen(Path(path))
    if not folder.outcome.exists():
        raise RunError(f"the training of {path} is not complete: {folder.unfinished()}")
    if folder.run_key.exists():  # a crash came between the outcome and the end of the key
        with folder.locked():
            checkpoint.remove_all(folder.state)
            folder.destroy_key()
    return Run(folder, recipe_of(folder, code))


def recipe_of(folder: RunFolder, code: Code = OWN) -> Recipe:
    """The recipe of a run, its paths relative to where it stood when the run was started; of a
    search that has ended, the winner's."""
    recipe = load_recipe(folder.recipe, folder=Path(folder.fact("folder")), code=code)
    if recipe.tune is None:
        return recipe
    facts: Any = read_json(folder.plan)
    settings = facts.get("search", {}).get("chosen") if isinstance(facts, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return recipe if settings is None else chosen(recipe, settings)  # pyright: ignore[reportUnknownArgumentType]


def finish(path: Path, *, observe: Progress | None = None, code: Code = OWN) -> Run:
    """Ends an open run with the model of its last checkpoint; its key is destroyed.

    What the accounts get back is decided by their rule, not by the reason to stop.
    """
    folder = reopen(path)
    if folder.outcome.exists():
        folder.destroy_key()
        return open_run(path, code=code)
    refuse_to_finish(folder)
    recipe = recipe_of(folder, code)
    if recipe.tune is not None or folder.trials.exists():
        raise RunError(
            f"{path} holds a search, whose price is for all of its trials: go on with `nacre tune "
            f"RECIPE --into {path} --resume`, or end it without a model (`nacre abandon {path}`)"
        )
    again = plan(recipe, resume=path)
    alone = Group()
    watch = observe or Silent()
    with stages(watch) as advance:
        held = same_rows(again, folder, alone, advance)
    with folder.locked():
        return _train(again, folder, held, watch, alone, early=True)


def abandon(path: Path, *, code: Code = OWN) -> None:
    """Ends an open run without a model; what it may have released stays charged."""
    folder = reopen(path)
    if folder.outcome.exists():
        raise RunError(
            f"the run in {path} is complete, so there is nothing to abandon: what it released "
            "stays charged, and its folder may be kept or deleted"
        )
    if not folder.run_key.exists():
        raise RunError(f"the run in {path} was abandoned before, so nothing is left to do")
    if end_release(folder):
        return
    recipe = load_recipe(folder.recipe, folder=Path(folder.fact("folder")), code=code)
    with folder.locked(), charges_of(recipe, folder) as charges:
        charges.settle()
        folder.destroy_key()
        checkpoint.remove_all(folder.state)

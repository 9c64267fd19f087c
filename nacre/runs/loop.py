"""The outermost loop of a run: over rows, or over parties. Checkpoints, watches, stops."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import json
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from nacre.adversarial_training.collapse import CollapseWatch
from nacre.adversarial_training.objectives import OVERFITTED, Guarded
from nacre.core.files import read_json
from nacre.core.random import Source
from nacre.core.run_folder import RunFolder
from nacre.core.types import Release, Tensors
from nacre.data.dataset import Rows
from nacre.federated_learning.federation import ServerMemory
from nacre.figures.names import FigureName, usual
from nacre.models import random_inputs
from nacre.planning.plan import Plan
from nacre.runs import checkpoint
from nacre.runs.features import passed
from nacre.runs.levels.outermost import OutermostLevel, level_of_parties, level_of_rows
from nacre.runs.levels.surroundings import Surroundings
from nacre.runs.progress import Advance
from nacre.runs.released import Log
from nacre.runs.rows import Holdings
from nacre.training import pieces
from nacre.training.averaged_weights import Averaged
from nacre.training.curve import figures, point_in_words
from nacre.training.devices.portions import Devices
from nacre.training.fit import fit
from nacre.training.holders import Setting, fixed, guard_of
from nacre.training.planned import PlannedLevels
from nacre.training.step import State
from nacre.training.unmoved import Unmoved


@dataclass
class Outcome:
    """Where a loop ended."""

    model: nn.Module
    done: int
    stopped: str  # "completed", "stopped improving", OVERFITTED, "collapsed: …" or "finished early"
    curve: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    personal: tuple[str, ...] = ()  # weights that stayed with the parties
    answers: tuple[bool, int] = (False, 0)  # what a `CollapseWatch` has seen


def loop(
    plan: Plan,
    setting: Setting,
    held: Holdings,
    model: nn.Module,
    source: Source,
    around: Surroundings,
) -> Outcome:
    """Trains `model` in place from the last checkpoint (or the start) to the end of the plan."""
    devices = around.devices
    setting, held, part = passed(setting, held, model, around.watch)
    planned = PlannedLevels.of(devices.group.broadcast(lambda: _written(plan, around.folder)))
    with around.stack:
        return _looped(plan, setting, held, model, part, source, around, planned)


def _looped(
    plan: Plan, setting: Setting, held: Holdings, model: nn.Module, part: nn.Module,
    source: Source, around: Surroundings, planned: PlannedLevels,
) -> Outcome:  # fmt: skip
    devices, folder = around.devices, around.folder
    begun = level_of_rows if plan.outer is None else level_of_parties
    level = begun(plan, setting, held, part, source, around, planned)
    option = plan.recipe.training.average
    average = Averaged(option, part) if option is not None else None
    guarded = guard_of(setting, held.public, held.private)
    state, outcome = _restored(level.state, folder, devices, average, guarded, level.remembered)
    until = state.done if around.early else plan.rounds
    name = "rounds" if plan.federated else "steps"
    log = Log(folder / "released.jsonl") if folder is not None else None
    try:
        with around.watch.stage(name, plan.rounds) as advance:
            advance(state.done)
            watcher = _Watcher(
                plan, around, _watched(plan, held), outcome, average, guarded, log, advance,
                level, Unmoved(state.model),
            )  # fmt: skip
            if not watcher.ended(state):
                state = fit(
                    state, level.over, level.work, until=until, source=source, charge=level.charge,
                    planned=planned.outer, observe=watcher, context=fixed(state.model),
                )  # fmt: skip
    finally:
        if log is not None:
            log.close()
    devices.gather()
    if average is not None:
        average.hand_over(part)
    outcome.model, outcome.done, outcome.personal = model, state.done, level.personal
    if guarded is not None and outcome.stopped == OVERFITTED:
        guarded.best = devices.group.broadcast_tensors(guarded.best)
        guarded.hand_over(part)
        outcome.done = guarded.step(devices.group.broadcast(lambda: outcome.curve))
    if level.at_home is not None:
        level.at_home(part)
    if outcome.stopped != OVERFITTED and around.early and state.done < plan.rounds:
        outcome.stopped = "finished early"
    return outcome


def _watched(plan: Plan, held: Holdings) -> Rows | None:
    """The public rows that each figure on the way is of: of a model whose other layers are the
    parties' own none is, since nobody has trained what the server has in their place."""
    federation = plan.recipe.federated_learning
    return None if federation is not None and federation.local.personal else held.public


def _written(plan: Plan, folder: Path | None) -> Any:
    """plan.json as it was written when the run was started; without a folder, as it would be."""
    if folder is None:
        return json.loads(json.dumps(plan.to_json()))
    return read_json(folder / "plan.json")


def _restored(
    state: State, folder: Path | None, devices: Devices, average: Averaged | None,
    guarded: Guarded | None, remembered: ServerMemory | None,
) -> tuple[State, Outcome]:  # fmt: skip
    outcome = Outcome(state.model, state.done, "completed")
    remembers = state.noise_state is not None
    kept = checkpoint.read_by_first(devices.group, lambda: _newest(folder, remembers))
    if kept is None:
        return state, outcome
    path, tensors, done, facts = kept
    devices.group.all_or_raise(
        lambda: checkpoint.put_back(path, tensors, state.model, state.optimizer, devices)
    )
    devices.adopt()
    if average is not None:
        average.put_back(_named(tensors, _AVERAGE))
    if guarded is not None:
        guarded.best = _named(tensors, _BEST)
    if remembered is not None:
        remembered.put_back(tensors)
    outcome.curve = list(facts["curve"])
    outcome.stopped = str(facts["stopped"])
    apart, alike = facts.get("answers", outcome.answers)
    outcome.answers = bool(apart), int(alike)
    noise = _named(tensors, _NOISE)
    clip = state.clip.at(facts.get("clip", {}))
    noise_state = noise if remembers else None
    return replace(state, clip=clip, noise_state=noise_state, done=done), outcome


_NOISE = "noise."
"""What the noise remembers, among the tensors of a checkpoint in memory; on disk they lie apart."""


_AVERAGE, _BEST = "average.", "best."
"""The average of the weights, and those that a guard would go back to, in a checkpoint."""


def _named(tensors: Tensors, prefix: str) -> Tensors:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _newest(folder: Path | None, remembers: bool) -> checkpoint.Kept | None:
    """The last checkpoint of the run, with what the noise remembers; None before the first one."""
    kept = checkpoint.checkpoints(folder / "state") if folder is not None else []
    if folder is None or not kept:
        return None
    tensors, done, facts = checkpoint.read(kept[-1])
    if remembers:
        noise = checkpoint.read_noise(RunFolder(folder).noise, done)
        tensors |= {_NOISE + name: value for name, value in noise.items()}
    return kept[-1], tensors, done, facts


_COLLAPSED = "collapsed: the model answers all inputs alike, so the attack is too strong for it"


def _collapse_watch(plan: Plan, seen: tuple[bool, int]) -> CollapseWatch | None:
    """A watch over a model whose embeddings an adversary moves; None where there is none, or where
    processes hold parts of the model."""
    option = plan.recipe.adversarial_training
    if option is None or not option.on_tokens or plan.recipe.execution.devices == "sharded":
        return None
    task = pieces.task_of(plan.schema)
    if task.kind == "regression":  # a number has no logits to tell apart
        return None
    inputs = random_inputs(plan.schema.shape, plan.schema.tokens, 8)
    return CollapseWatch(task, inputs, seen)


class _Watcher:
    """Sees each release: logs it, measures public figures, checkpoints, decides to stop."""

    def __init__(
        self, plan: Plan, around: Surroundings, rows: Rows | None, outcome: Outcome,
        average: Averaged | None, guarded: Guarded | None, log: Log | None, advance: Advance,
        level: OutermostLevel, unmoved: Unmoved,
    ) -> None:  # fmt: skip
        self._plan, self._around, self._rows, self._outcome = plan, around, rows, outcome
        self._average, self._guarded, self._log, self._advance = average, guarded, log, advance
        self._level, self._unmoved = level, unmoved
        self._before = time.monotonic()
        self._task = pieces.task_of(plan.schema)
        self._every = plan.recipe.training.checkpoint
        federation = plan.recipe.federated_learning
        self._stop = federation.stop if federation is not None else None
        evaluate = plan.recipe.evaluate
        asked = evaluate.figure if evaluate is not None else None
        self._shown: FigureName = asked if asked is not None else usual(plan.schema.task)
        self._collapse = _collapse_watch(plan, outcome.answers)
        self._watched: list[FigureName] = [self._shown]
        if self._stop is not None:
            self._watched.append(self._stop.figure)

    def __call__(self, state: State, release: Release) -> bool:
        if self._log is not None:
            overheard = self._level.overheard
            heard = overheard.last if overheard is not None else None
            self._log.add(state.done, release, heard)
        if self._average is not None:
            self._average.follow(state.model, state.done)
        due = state.done % self._every == 0 or state.done >= self._plan.rounds
        if due:
            self._around.devices.gather()
        if due or self._plan.federated:  # every round: what stops a federation is counted in them
            self._measure(state)
        ends = self._ends(state, due)
        if ends is not None:
            self._outcome.stopped = ends
        if due or ends is not None:
            self._save(state)
        note = self._note(state.done)
        self._advance(1, f"{note}, {_COLLAPSED}" if ends == _COLLAPSED else note)
        return ends is not None

    def _ends(self, state: State, due: bool) -> str | None:
        """Why training ends here, as its outcome says it."""
        guarded, curve = self._guarded, self._outcome.curve
        group = self._around.devices.group
        if due and guarded and group.broadcast(lambda: guarded.option.collapsed(curve)):
            return OVERFITTED
        if due and self._collapse is not None:
            collapsed = self._collapse.collapsed(state.model)
            self._outcome.answers = self._collapse.seen
            if collapsed:
                return _COLLAPSED
        return "stopped improving" if self._flat() else None

    def _note(self, done: int) -> str:
        """The last public figure; of a round also what it took."""
        curve = self._outcome.curve
        figure = point_in_words(curve[-1], self._shown) if curve else ""
        if not self._plan.federated:
            return figure
        before, self._before = self._before, time.monotonic()
        found = (figure, f"{self._before - before:.2g} s", self._level.heard(done))
        return ", ".join(part for part in found if part)

    def ended(self, state: State) -> bool:
        """Whether the checkpoint was the last one of a run that was to end there."""
        ended = self._outcome.stopped in ("stopped improving", OVERFITTED, _COLLAPSED)
        return ended or state.done >= self._plan.rounds

    def _measure(self, state: State) -> None:
        guarded, average = self._guarded, self._average
        watched = self._rows is not None or guarded is not None
        if not watched or not self._around.devices.group.first:
            return
        point: dict[str, float] = {"round": state.done}
        with average.shown(state.model) if average is not None else nullcontext():
            if self._rows is not None:
                point |= figures(state.model, self._task, self._rows, self._watched)
            if guarded is not None:
                point |= guarded.measured(state.model)
            self._outcome.curve.append(point)
            if guarded is not None:
                guarded.follow(state.model, self._outcome.curve)

    def _flat(self) -> bool:
        if self._stop is None:
            return False
        name = self._stop.figure
        return self._stop.flat([point.get(name, math.nan) for point in self._outcome.curve])

    def _save(self, state: State) -> None:
        group, folder = self._around.devices.group, self._around.folder
        self._unmoved.require(state.model)
        if folder is None and group.size == 1:
            return
        tensors = checkpoint.collected(state.model, state.optimizer, self._around.devices)
        if self._average is not None:
            tensors |= {_AVERAGE + name: value for name, value in self._average.weights.items()}
        if self._guarded is not None:
            tensors |= {_BEST + name: value for name, value in self._guarded.best.items()}
        if self._level.remembered is not None:
            tensors |= self._level.remembered.tensors
        group.on_rank_zero(lambda: self._write(folder, tensors, state), None)

    def _write(self, folder: Path | None, tensors: Tensors, state: State) -> None:
        assert folder is not None
        if self._log is not None:
            self._log.sync()
        facts: dict[str, Any] = {
            "curve": self._outcome.curve,
            "stopped": self._outcome.stopped,
            "clip": state.clip.moved(),  # computed from releases, so it may be kept
            "answers": self._outcome.answers,
        }
        if state.noise_state is not None:  # before the checkpoint: none may be without its own
            checkpoint.write_noise(RunFolder(folder).noise, state.noise_state, state.done)
        checkpoint.write(folder / "state", tensors, state.done, facts)

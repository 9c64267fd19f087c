"""A private search: trials in `local/`, of which the best alone leaves.

*Guarantee:* what leaves is the winner of a number of trials that is drawn from the run's key and
told to nobody. Each trial draws its settings, and all else, from keys of its own; it is compared by
a score that is public or paid for (`nacre.differential_privacy.selection.search`). The whole price
is reserved beforehand and taken before the first trial, whatever comes; the winner is journalled,
by a keyed digest of its weights and its score, before it leaves `local/`. A resumed search makes
the same trials to the same bits, and goes on with the one it was interrupted in.

*Not covered:* who can time the search, or look into `local/` while it runs.

*Source:* Papernot & Steinke 2022, "Hyperparameter tuning with Rényi differential privacy".
"""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from nacre.core.errors import FileDamaged, Incompatible, RunError
from nacre.core.files import load_tensors, read_json, save_tensors, write_bytes, write_json
from nacre.core.random import Source
from nacre.core.run_folder import RunFolder, reopen
from nacre.core.types import Tensors
from nacre.data.dataset import Rows
from nacre.differential_privacy.noise.discrete import discrete_gaussian
from nacre.differential_privacy.selection.trials import best
from nacre.figures.names import goodness
from nacre.fine_tuning import export
from nacre.models.scoring import scored
from nacre.planning.plan import Plan
from nacre.planning.search_facts import SearchFacts, public_figure
from nacre.recipe.places import placed
from nacre.recipe.schema import Recipe
from nacre.recipe.tune import PrivateScore, PublicScore
from nacre.runs.begin import ended, reserved, same_rows, started
from nacre.runs.close import end, facts_of
from nacre.runs.levels.surroundings import Surroundings
from nacre.runs.loop import loop
from nacre.runs.progress import Named, Progress, Silent, stages
from nacre.runs.rows import Holdings
from nacre.runs.run import Run, open_run
from nacre.runs.start import starting_model, train_twin
from nacre.training import pieces
from nacre.training.curve import figures
from nacre.training.devices.group import Group, join
from nacre.training.devices.portions import threads
from nacre.training.holders import Setting
from nacre.training.memory import keep_pages


def tune(
    plan: Plan, into: Path | str, *, resume: bool = False, observe: Progress | None = None
) -> Run:
    """Searches over the recipe's alternatives; the run folder then holds the winner, as if it had
    been trained alone, and the price of the whole search.

    Raises as `train` does, `Incompatible` for a plan without a search.
    """
    if plan.search is None or not plan.alternatives:
        raise Incompatible(
            placed(
                plan.recipe,
                "tune",
                "is missing, so there is nothing to search over; list values under `tune: {over: "
                "{training.optimizer.lr: [0.1, 0.5]}}`, or use `nacre train`",
            )
        )
    folder, watch = RunFolder(Path(into)), observe or Silent()
    with join() as alone:
        if alone.size > 1:
            raise RunError("a search works in one process; start it without torchrun")
        if resume and ended(plan, reopen(folder.path)):
            return _opened(plan, folder)
        begin = same_rows if resume else started
        with stages(watch) as advance:
            held = begin(plan, folder, alone, advance)
        for note in held.notes:
            watch.tell(note)
        with folder.locked():
            _searched(plan, plan.search, folder, held, watch)
    return _opened(plan, folder)


def _opened(plan: Plan, folder: RunFolder) -> Run:
    """The finished search, whose recipe was the caller's own: so is the code that it names."""
    run = open_run(folder.path)
    return replace(run, recipe=replace(run.recipe, code=plan.recipe.code))


@dataclass(frozen=True)
class _Trials:
    """What all trials of a search share."""

    plan: Plan
    search: SearchFacts
    folder: RunFolder
    held: Holdings
    source: Source
    memory: int

    def path(self, number: int) -> Path:
        """The folder of a trial."""
        return self.folder.trials / str(number)

    def made(self, number: int) -> dict[str, Any]:
        """The facts of a trial, which is made, or gone on with, where it is not complete."""
        path = self.path(number)
        if not (path / _DONE).exists():
            self._make(path, self.source.child("trial", number))
        # Only now: without what the noise remembers, a trial that is not complete cannot go on.
        shutil.rmtree(RunFolder(path).local, ignore_errors=True)
        facts = read_json(path / _DONE)
        if not isinstance(facts, dict) or "score" not in facts:
            raise FileDamaged(
                f"{path / _DONE} is not what nacre writes; end the search with `nacre abandon`"
            )
        return facts  # pyright: ignore[reportUnknownVariableType]

    def _make(self, path: Path, keyed: Source) -> None:
        drawn = float(keyed.child("settings").stream().uniform(1)[0])
        place = int(drawn * len(self.plan.alternatives))
        own = RunFolder(path)
        for part in (own.state, own.local):
            part.mkdir(parents=True, exist_ok=True)
        own.sweep()
        write_bytes(own.plan, json.dumps(self.plan.alternatives[place].to_json()).encode())
        facts: dict[str, Any] = {"place": place, "score": None}
        try:
            facts |= self._trained(self.plan.alternatives[place], own, keyed)
        except RunError as error:  # `fit` saw an update that moved nothing: computed from a release
            facts["failed"] = str(error)
        write_json(path / _DONE, facts)

    def _trained(self, plan: Plan, own: RunFolder, keyed: Source) -> dict[str, Any]:
        held, recipe = self.held, plan.recipe
        setting = Setting(recipe, held.schema, held.space, self.memory)
        base = starting_model(setting, held, keyed, own, Silent(), Group())
        # No charges: the search was charged as a whole, and nothing of a trial leaves by itself.
        outcome = loop(plan, setting, held, base, keyed, Surroundings(folder=own.path))
        weights = export.merged(outcome.model)
        score = _score(
            self.plan.recipe, self.search.tune.score, held, outcome.model, keyed, weights
        )
        save_tensors(own.path / _WEIGHTS, weights)
        return {
            "score": score if math.isfinite(score) else None,
            "done": outcome.done,
            "stopped": outcome.stopped,
            "curve": list(outcome.curve),
        }

    def winner(self, count: int) -> int:
        """The number of the best trial; what the others computed is removed as they lose."""
        scores: list[float] = []
        for number in range(count):
            found = self.made(number)["score"]
            scores.append(math.nan if found is None else float(found))
            first = best(scores)
            for loser in range(number + 1):
                if loser != first:
                    _emptied(self.path(loser))
        return best(scores)


_DONE, _WEIGHTS = "trial.json", "model.safetensors"


def _emptied(path: Path) -> None:
    """Removes what a trial computed, but for its score, which a resumed search needs."""
    (path / _WEIGHTS).unlink(missing_ok=True)
    (path / "released.jsonl").unlink(missing_ok=True)
    shutil.rmtree(path / "state", ignore_errors=True)


def _searched(
    plan: Plan, search: SearchFacts, folder: RunFolder, held: Holdings, watch: Progress
) -> None:
    facts = facts_of(folder)
    source = Source(bytes.fromhex(facts["key"])).child("run", plan.digest, held.hmac, facts["code"])
    keep_pages()
    with threads(int(facts["threads"])), reserved(plan, folder) as charges:
        for charge in charges.values():
            charge.journal(1, source.digest("search").hex())
        trials = _Trials(plan, search, folder, held, source, int(facts["memory"]))
        watch.tell("searching; how far it has come is not shown, as it would tell of the trials")
        number = trials.winner(search.tune.law.draw(source.child("trials")))
        found = trials.made(number)
        if "failed" in found:
            raise RunError(
                f"every trial of the search failed, the best one as well ({found['failed']}); end "
                f"it (`nacre abandon {folder.path}`), and list other values"
            )
        weights, _ = load_tensors(trials.path(number) / _WEIGHTS)
        for charge in charges.values():
            score = str(found["score"])
            charge.journal(2, source.digest("winner", weights, score).hex())
        place = int(found["place"])
        own, settings = plan.alternatives[place], list(search.tune.settings())[place]
        own = replace(own, created=str(read_json(folder.plan)["created"])[:10])
        _moved(trials.path(number), folder)
        write_json(folder.plan, own.to_json())
        if "unprotected" in own.recipe.compare:
            train_twin(own.recipe, held, source, folder, Named(watch, "unprotected twin"))
        for path in (folder.recipe, folder.state):
            os.utime(path)  # how long the search took would tell how many trials there were
        end(
            own,
            folder,
            held,
            weights,
            charges,
            _outcome(own, replace(search, chosen=settings), found),
        )


def _moved(trial: Path, folder: RunFolder) -> None:
    """Copies what of a trial belongs to a run: what it released, and its public base."""
    for name in ("released.jsonl", "state/base.safetensors"):
        if (trial / name).exists():
            write_bytes(folder.path / name, (trial / name).read_bytes())


def _outcome(own: Plan, search: SearchFacts, found: dict[str, Any]) -> dict[str, Any]:
    """outcome.json; no seconds, which would tell how many trials there were."""
    score = search.tune.score
    value = None if found["score"] is None else float(found["score"])
    if value is not None and isinstance(score, PublicScore):
        value = goodness(public_figure(own.recipe, score), value)  # turns the sign back
    return {
        "done": found["done"],
        "planned": own.rounds,
        "stopped": found["stopped"],
        "seconds": {},
        "curve": found["curve"],
        "search": {"chosen": search.chosen, "figure": search.figure, "value": value},
    }


def _score(
    recipe: Recipe, score: PublicScore | PrivateScore, held: Holdings, model: nn.Module,
    keyed: Source, weights: Tensors,
) -> float:  # fmt: skip
    """How good a trial's model is; higher is better."""
    task = pieces.task_of(held.schema)
    if not isinstance(score, PrivateScore):
        assert held.public is not None  # alternatives() has refused the rest
        name = public_figure(recipe, score)
        return goodness(name, figures(model, task, held.public, [name]).get(name, math.nan))
    rows = held.private[""]
    mode = model.training
    model.eval()
    _, answered = scored(model, task, rows.features, rows.label)
    model.train(mode)
    right: list[bool] = answered.tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    privacy = recipe.differential_privacy
    count = _units_right(rows, right, privacy is not None and privacy.unit == "group")
    # Keyed by all that it is computed from, so that no second count has the same noise.
    own = keyed.child("score", count, keyed.digest("scored", weights))
    return float(count + int(discrete_gaussian(1, score.deviation**2, own)[0]))


def _units_right(rows: Rows, right: list[bool], grouped: bool) -> int:
    """How many units the model is right about: one unit moves it by 1 at most."""
    if not grouped:
        return sum(right)
    assert rows.group is not None  # a unit of rows has a column that names it
    balance: dict[str, int] = {}
    for name, is_right in zip(rows.group, right, strict=True):
        balance[name] = balance.get(name, 0) + (1 if is_right else -1)
    return sum(value >= 0 for value in balance.values())

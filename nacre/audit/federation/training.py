"""Trains twins of a run's federation with parties at fault in them."""

from __future__ import annotations

import hashlib
import json
from collections import ChainMap
from collections.abc import Callable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from nacre.audit.federation.promise import Clamped, Witness
from nacre.audit.federation.rows import TwinRows, rows_of_twins
from nacre.audit.federation.twins import Twin, Twins
from nacre.core.errors import Incompatible, PartyError
from nacre.core.files import load_tensors, save_tensors
from nacre.core.parts import Transport
from nacre.core.random import Source
from nacre.core.rows import flatten
from nacre.data.dataset import Rows
from nacre.federated_learning import MeanAggregate, SecureGather
from nacre.federated_learning.attackers import AttackerOption, Infiltrated, infiltrated_rows
from nacre.fine_tuning import export
from nacre.gradient_clipping import Unclipped
from nacre.planning.plan import Plan, plan
from nacre.planning.robustness import rule_of
from nacre.recipe.audits import Poisoning
from nacre.recipe.options import content
from nacre.recipe.schema import Recipe
from nacre.runs.levels.surroundings import Surroundings
from nacre.runs.loop import loop
from nacre.runs.progress import Advance, Silent
from nacre.runs.provenance import code
from nacre.runs.rows import Holdings, holder_names
from nacre.runs.run import Run
from nacre.runs.start import starting_model
from nacre.training.devices.group import Group
from nacre.training.holders import Setting

FOLDER = "twins"
"""In `local/`: twins that are trained, until the audit that asked for them has ended."""


def twins_of(run: Run, held: Holdings, source: Source, option: Poisoning) -> Twins:
    """The twins that this audit asks for. Raises as `rows_of_twins` and `plan` do, and
    `Incompatible` where nobody honest is left."""
    recipe = run.recipe
    chosen = rows_of_twins(recipe, held, option, source)
    federation = recipe.federated_learning
    assert federation is not None
    rule = rule_of(chosen.recipe) or MeanAggregate()
    names = holder_names(chosen.held.private)
    count = at_fault_of(option, recipe)
    if count >= len(names):
        raise Incompatible(f"bad={count} of {len(names)} parties leaves no honest one; name fewer")
    seed = hashlib.sha256(f"nacre parties at fault {recipe.seed}".encode()).digest()
    places: list[int] = Source(seed).stream().permutation(len(names))[:count].tolist()
    bad = tuple(names[place] for place in sorted(places))
    whole = plan(chosen.recipe, ledger=False)
    rounds = option.rounds or whole.rounds
    assert whole.outer is not None
    # The noise stays that of a whole run, whatever number of rounds a twin has.
    shorter = replace(whole, outer=replace(whole.outer, steps=rounds))
    secure = federation.gather if isinstance(federation.gather, SecureGather) else None
    unclipped = isinstance(whole.outer.clip, Unclipped)
    place = _Place(
        run=run,
        plan=shorter,
        rows=chosen,
        bad=bad,
        reach=secure.reach if secure is not None and unclipped else None,
        source=source,
    )
    return Twins(
        schema=held.schema,
        parties=len(names),
        expected=federation.expected(),
        bad=bad,
        rounds=rounds,
        rule=rule,
        secure=secure is not None,
        test=flatten(_batch(chosen.test)),
        public=chosen.public,
        on=chosen.words,
        train=place.trained,
    )


def at_fault_of(option: Poisoning, recipe: Recipe) -> int:
    """How many parties are at fault: as asked for, or as the rule reckons with, or one."""
    rule = rule_of(recipe)
    return option.bad or (rule.faults if rule is not None else 0) or 1


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where twins are trained: all from the same weights, under the same keys, on the same draws,
    so that they differ by the attack and what follows from it."""

    run: Run
    plan: Plan
    rows: TwinRows
    bad: tuple[str, ...]
    reach: float | None  # of one entry of a change, where a secure sum cuts it off
    source: Source

    def trained(self, attacker: AttackerOption | None, after: Callable[[], None]) -> Twin:
        """The twin with this attacker; one that was trained before an interrupt is read back.

        An attack that makes the federation stop, as weights that are no numbers do, has ended the
        twin: it is judged as it then stood. Raises `PartyError` where that happens without one.
        """
        path = self._path(attacker)
        if path.exists():
            weights, facts = load_tensors(path)
            for _ in range(self.plan.rounds):
                after()
            reached = json.loads(facts["reached"])
            return Twin(self._model(weights), int(facts["done"]), reached, int(facts["judged"]))
        found = self._train(attacker, after)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        facts = {
            "done": str(found.done), "judged": str(found.judged),
            "reached": json.dumps(found.reached),
        }  # fmt: skip
        save_tensors(path, found.model.state_dict(), facts)
        return found

    def _train(self, attacker: AttackerOption | None, after: Callable[[], None]) -> Twin:
        held, keyed = self.rows.held, self.source.child("twin")
        witness: Witness | None = None
        if attacker is not None:
            taken = {name: held.private[name] for name in self.bad}
            own = infiltrated_rows(taken, self.bad, attacker, keyed)
            # Of all others nothing is copied, however many they are.
            dealt = cast(MutableMapping[str, Rows], held.private)
            held = replace(held, private=ChainMap(own, dealt))
        setting = Setting(self.plan.recipe, held.schema, held.space)
        base = starting_model(setting, held, keyed, self.run.folder, Silent(), Group())

        def through(wire: Transport) -> Transport:
            nonlocal witness
            if attacker is not None:
                wire = Infiltrated(wire, self.bad, attacker, keyed.child("lies"))
            if self.reach is not None:
                wire = Clamped(wire, self.reach)
            rule = rule_of(self.plan.recipe)
            if attacker is not None and rule is not None:
                assert self.plan.outer is not None
                witness = Witness(wire, self.bad, rule, self.plan.outer.sampling.expected)
                wire = witness
            return wire

        counted = _RoundsSeen(after)
        try:
            loop(
                self.plan, setting, held, base, keyed,
                Surroundings(watch=counted, through=through),
            )  # fmt: skip
        except PartyError:
            if attacker is None:
                raise
        model = self._model(export.merged(base))
        reached, judged = (witness.reached, witness.judged) if witness is not None else (None, 0)
        return Twin(model, counted.done, reached, judged)

    def _model(self, weights: dict[str, torch.Tensor]) -> nn.Module:
        model = self.run.recipe.build_model(self.rows.held.schema)
        model.load_state_dict(weights)
        return model.eval()

    def _path(self, attacker: AttackerOption | None) -> Path:
        """Named by all that a twin follows from: another recipe, code or attacker is another file.
        The rows are those of the run: another audit would have refused to begin."""
        facts: dict[str, Any] = {
            "recipe": self.plan.digest,
            "rounds": self.plan.rounds,
            "rows": self.rows.words,
            "hmac": self.rows.held.hmac,
            "code": code(self.plan.recipe),
            "bad": self.bad,
            "reach": self.reach,
            "attacker": None if attacker is None else content(attacker),
        }
        name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
        return self.run.folder.local / FOLDER / f"{name}.safetensors"


class _RoundsSeen:
    """Counts the rounds of a twin for a bar that is shown elsewhere."""

    def __init__(self, after: Callable[[], None]) -> None:
        self._after, self.done = after, 0

    def stage(self, name: str, total: int | None) -> AbstractContextManager[Advance]:
        """A stage; of rounds each one counts."""

        def advance(count: int = 1, note: str = "", total: int | None = None) -> None:
            if name == "rounds":
                for _ in range(count):
                    self.done += 1
                    self._after()

        return nullcontext(advance)

    def tell(self, sentence: str) -> None:
        """Shows nothing: the run itself has said it."""


def _batch(rows: Rows) -> dict[str, torch.Tensor]:
    count = len(rows)
    return {
        "features": rows.features,
        "label": rows.label,
        "present": torch.ones(count, dtype=torch.bool),
        "unit": torch.arange(count),
    }

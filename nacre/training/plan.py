"""recipe -> Plan: resolve, check, calibrate, price. No row is read.

A plan has one `Holder` for each account that is charged: the central run, every party (unit
example or group), or the federation as a whole (unit client).
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from nacre.core.errors import Incompatible, Refusal
from nacre.core.parts import Clip, Noise, Sampling
from nacre.core.types import FeatureSpace
from nacre.data.dataset import Schema
from nacre.data.sampling import Full, Poisson, separation
from nacre.differential_privacy.mechanism import Mechanism
from nacre.differential_privacy.noise import NoNoise
from nacre.gradient_clipping import Unclipped
from nacre.models import build
from nacre.recipe.load import digest, require_writable
from nacre.recipe.places import refuse
from nacre.recipe.schema import Recipe
from nacre.training import limits, pieces, words
from nacre.training.alternatives import Alternative, alternatives, tried_with
from nacre.training.beginning import trained_part
from nacre.training.checks import CHECKS
from nacre.training.clipping import parts_fit
from nacre.training.estimate import Estimate, estimate
from nacre.training.facts import Facts
from nacre.training.folder import reopen
from nacre.training.inputs import same_task
from nacre.training.pricing import Holder, priced, searched
from nacre.training.search_facts import SearchFacts
from nacre.training.size import adapters_fit, fits

UNPROTECTED = NoNoise(because="the recipe has no differential_privacy section")
NOT_YET = NoNoise(because="the unit is a client: noise is added to the sum over clients alone")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will run. `to_json()` is plan.json; `table()` is for people."""

    recipe: Recipe
    digest: str
    schema: Schema
    holders: tuple[Holder, ...]  # the levels that release private rows' gradients
    outer: Mechanism | None  # the federation's own level; None for a central run
    estimate: Estimate
    created: str
    search: SearchFacts | None = None  # of which this is the whole, or one alternative
    alternatives: tuple[Plan, ...] = ()  # what a trial of the search may draw; none for one run

    @property
    def federated(self) -> bool:
        """Whether the outer loop runs over parties."""
        return self.outer is not None

    @property
    def private(self) -> bool:
        """Whether every release is covered by an epsilon."""
        return self.recipe.differential_privacy is not None

    def inner(self, name: str) -> Mechanism:
        """What happens over the rows of this holder."""
        sizes = _sizes(self.recipe)
        for holder in self.holders:
            if holder.name == name and holder.mechanism.unit != "client":
                return holder.mechanism
        return _inner(self.recipe, sizes[name])

    @property
    def inner_sampling(self) -> Sampling:
        """How a step over rows draws, at the first holder."""
        return self.inner(next(iter(_sizes(self.recipe)))).sampling

    @property
    def rounds(self) -> int:
        """Steps of the outermost loop."""
        return self.outer.steps if self.outer is not None else self.holders[0].mechanism.steps

    def to_json(self) -> dict[str, Any]:
        """The facts of this plan; all of them public."""
        search = self.search
        facts: dict[str, Any] = {
            "nacre": version("nacre"),
            "name": self.recipe.name,
            "recipe_digest": self.digest,
            "created": self.created,
            "seed": self.recipe.seed,
            "task": self.schema.task,
            "classes": list(self.schema.classes),
            "private": self.private,
            "rounds": self.rounds,
            "parties": [words.holder(h) for h in self.holders],
            "techniques": words.techniques(self.recipe),
            "assumptions": limits.assumptions(self.recipe),
            "not_covered": limits.not_covered(self.recipe),
            "model": words.model(self.recipe, self.estimate.parameters),
            "estimates": self.estimate.to_json(),
        }
        return facts if search is None else search.added_to(facts)

    def table(self) -> Any:
        """A rich renderable of what will run."""
        from nacre.training.show import show

        return show(self)


def plan(recipe: Recipe, *, resume: Path | None = None, ledger: bool = True) -> Plan:
    """What the recipe would do, priced. Reads no row of data.

    Raises `Incompatible` and its siblings for what is unsound, `BudgetExceeded` where the grant
    does not cover the run. `resume` is the folder of the run that is to be continued: its own
    reservation covers it. With `ledger=False` no ledger is looked at: another process of the run
    does.
    """
    require_writable(recipe)
    run = None
    if resume is not None:
        folder = reopen(resume)
        run = (folder.name(), folder.path)
    if recipe.tune is not None:
        return _search(recipe, run, ledger)
    found = _checked(recipe)
    return _with(found, [priced(recipe, run, holder, ledger) for holder in found.holders])


def _checked(recipe: Recipe) -> Plan:
    """The plan of one run, before its noise is calibrated."""
    schema = _schema(recipe)
    sizes = _sizes(recipe)
    same_task(recipe)
    fits(recipe, schema)
    model = _built(recipe, schema)
    facts = Facts(recipe, schema, sizes, model, FeatureSpace(schema.shape, schema.feature_names()))
    for check in CHECKS:
        check(facts)
    model = _prepared(recipe, model)
    parts_fit(recipe, model)
    outer = _outer(recipe)
    if outer is not None and pieces.protects(recipe) == "client":
        assert recipe.federated_learning is not None
        count = len(recipe.federated_learning.parties.names)
        account = _account(recipe, "")
        holders = (Holder(name="", account=account, size=count, mechanism=outer),)
    else:
        holders = tuple(
            Holder(
                name=name, account=_account(recipe, name), size=size,
                mechanism=_inner(recipe, size),
            )
            for name, size in sizes.items()
        )  # fmt: skip
    return Plan(
        recipe=recipe,
        digest=digest(recipe),
        schema=schema,
        holders=holders,
        outer=outer,
        estimate=_estimate(recipe, model, schema, sizes),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _with(found: Plan, holders: Sequence[Holder]) -> Plan:
    """The plan with these holders; where the federation as a whole is one, its level is theirs."""
    whole = found.outer is not None and pieces.protects(found.recipe) == "client"
    outer = holders[0].mechanism if whole else found.outer
    return replace(found, holders=tuple(holders), outer=outer)


def _search(recipe: Recipe, run: tuple[str, Path] | None, ledger: bool) -> Plan:
    """The plan of a search: every alternative checked, and all of them priced together."""
    found: list[tuple[Alternative, Plan]] = []
    for each in alternatives(recipe):
        try:
            found.append((each, _checked(each.recipe)))
        except Refusal as error:
            if not found:  # maybe of them all
                raise
            raise tried_with(each.settings, error) from error
    columns = zip(*(one.holders for _, one in found), strict=True)
    rows = zip(*(searched(recipe, run, column, ledger) for column in columns), strict=True)
    own = digest(recipe)
    plans = [
        replace(_with(one, holders), digest=own, search=SearchFacts.of(recipe, each.settings))
        for (each, one), holders in zip(found, rows, strict=True)
    ]
    whole = SearchFacts.of(recipe, None)
    return replace(plans[0], recipe=recipe, search=whole, alternatives=tuple(plans))


def _estimate(recipe: Recipe, model: nn.Module, schema: Schema, sizes: dict[str, int]) -> Estimate:
    part, schema = trained_part(recipe, model, schema)
    space = FeatureSpace(schema.shape, schema.feature_names())
    found = estimate(recipe, part, schema, space, _row_steps(recipe, sizes))
    return replace(found, parameters=sum(p.numel() for p in model.parameters()))


def _schema(recipe: Recipe) -> Schema:
    try:
        return recipe.schema
    except Refusal as error:
        written = recipe.origin is not None and "data.tokenizer" in recipe.origin.lines
        refuse(recipe, "data.tokenizer" if written else "model", str(error), type(error))


def _built(recipe: Recipe, schema: Schema) -> nn.Module:
    try:
        return build(
            recipe.model, schema.shape, schema.outputs(), recipe.seed, recipe.folder, recipe.code
        )
    except Refusal as error:
        refuse(recipe, "model", str(error), type(error))


def _prepared(recipe: Recipe, model: nn.Module) -> nn.Module:
    """The model as it will be trained: what cannot be prepared must not be found out later, when
    the run is charged."""
    if recipe.fine_tuning is None:
        return model
    adapters_fit(recipe, model)
    try:
        return recipe.fine_tuning.prepare(model, recipe.seed)
    except Refusal as error:
        refuse(recipe, "fine_tuning", str(error), type(error))


def _sizes(recipe: Recipe) -> dict[str, int]:
    """Holder of rows -> declared units; one without a name where nothing is federated."""
    if recipe.federated_learning is None:
        return {"": recipe.data.size}
    try:
        return recipe.federated_learning.parties.declared_sizes(recipe.data.size)
    except Incompatible as error:
        refuse(recipe, "federated_learning.parties", str(error))


def _account(recipe: Recipe, party: str) -> str | None:
    if recipe.ledger is None or recipe.differential_privacy is None:
        return None
    return f"{recipe.ledger.dataset}/{party}" if party else recipe.ledger.dataset


def _inner(recipe: Recipe, size: int) -> Mechanism:
    """What happens over the rows of one holder; uncalibrated."""
    privacy = recipe.differential_privacy
    noisy = privacy is not None and privacy.unit != "client"
    steps = recipe.training.steps
    if recipe.federated_learning is not None:
        steps = recipe.federated_learning.rounds * recipe.federated_learning.local.steps
    sampling = pieces.sampling(recipe, size)
    noise: Noise = UNPROTECTED if privacy is None else NOT_YET
    if privacy is not None and noisy:
        noise = privacy.noise.build(steps, separation(sampling))
    return Mechanism(
        unit=privacy.unit if privacy is not None and noisy else "example",
        adjacency=privacy.adjacency if privacy is not None else "add_or_remove",
        sampling=sampling,
        clip=pieces.clip(recipe),
        noise=noise,
        steps=steps,
    )


def _outer(recipe: Recipe) -> Mechanism | None:
    """What happens over the parties; None without a federation."""
    federation, privacy = recipe.federated_learning, recipe.differential_privacy
    if federation is None:
        return None
    names = federation.parties.names
    expected = federation.expected()
    sampling: Sampling = (
        Full(len(names)) if expected == len(names) else Poisson(expected, len(names))
    )
    clip: Clip = Unclipped()
    noise: Noise = UNPROTECTED
    if privacy is not None and privacy.unit == "client":
        rule = pieces.unit_clip(recipe)
        assert rule is not None  # per_unit_clipping has refused the rest
        clip, noise = rule, privacy.noise.build(federation.rounds)
    elif privacy is not None:
        inherited = tuple(f"the noised steps of {name}" for name in names)
        because = "each party's change is already private for its own rows"
        noise = NoNoise(because=because, inherited=inherited)
    return Mechanism(
        unit="client",
        adjacency=privacy.adjacency if privacy is not None else "add_or_remove",
        sampling=sampling,
        clip=clip,
        noise=noise,
        steps=federation.rounds,
    )


def _row_steps(recipe: Recipe, sizes: dict[str, int]) -> int:
    """Steps over rows, of all holders together."""
    return sum(_inner(recipe, size).steps for size in sizes.values())

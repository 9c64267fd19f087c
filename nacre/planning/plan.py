"""recipe -> Plan: resolve, refuse, build, estimate, price. No row is read; of a file that is there,
the names of its columns are.

A plan has one level for each account that is charged: the central run, every party (unit example or
group), the federation as a whole (unit client), or the federation and then every party.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from nacre.core.errors import BadArgument, Refusal
from nacre.core.parts import Sampling
from nacre.core.run_folder import reopen
from nacre.core.theirs import version_of
from nacre.core.types import Unit
from nacre.data.dataset import Schema
from nacre.data.partition import Sizes
from nacre.differential_privacy.mechanism import Mechanism
from nacre.planning import limits, words
from nacre.planning.alternatives import Alternative, alternatives, tried_with
from nacre.planning.facts import RecipeFacts
from nacre.planning.levels import ChargedLevel, Level, PricedLevel
from nacre.planning.mechanisms import (
    declared_levels,
    declared_sizes,
    over_parties,
    over_rows,
)
from nacre.planning.pricing import charged, priced, searched
from nacre.planning.protection import Protection, protection_for, protection_of
from nacre.planning.refusals.checks import CHECKS
from nacre.planning.refusals.clipping import parts_fit
from nacre.planning.refusals.federation.personal import personal_layers_exist
from nacre.planning.refusals.federation.secure_sums import sums_fit_the_grid
from nacre.planning.refusals.inputs import same_task, shares_are_of_the_classes
from nacre.planning.refusals.size import adapters_fit, fits
from nacre.planning.search_facts import SearchFacts
from nacre.planning.shares_of_noise import in_shares
from nacre.recipe.load import recipe_digest, require_writable
from nacre.recipe.places import refuse
from nacre.recipe.schema import Recipe
from nacre.recipe.tune import Tune
from nacre.training.estimate import Estimate, estimate
from nacre.training.fixed_beginning import trained_part
from nacre.training.local.personal import shared_weights


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will run. `to_json()` is plan.json; `nacre.planning.show` is for people.

    Raises `ValueError` where a private recipe's level has no price.
    """

    recipe: Recipe
    digest: str
    schema: Schema
    levels: tuple[Level, ...]  # that release private rows' gradients; priced where it is private
    outer: Mechanism | None  # the federation's own level; None for a central run
    estimate: Estimate
    created: str
    search: SearchFacts | None = None  # of which this is the whole, or one alternative
    alternatives: tuple[Plan, ...] = ()  # what a trial of the search may draw; none for one run

    def __post_init__(self) -> None:
        if self.private and len(self.priced) < len(self.levels):
            raise BadArgument("levels of a private recipe must be priced before they are planned")

    @property
    def federated(self) -> bool:
        """Whether the outer loop runs over parties."""
        return self.outer is not None

    @property
    def private(self) -> bool:
        """Whether every release is covered by an epsilon."""
        return self.recipe.differential_privacy is not None

    @property
    def priced(self) -> tuple[PricedLevel, ...]:
        """The levels of a private recipe; none where nothing is private."""
        return tuple(level for level in self.levels if isinstance(level, PricedLevel))

    def inner(self, name: str) -> Mechanism:
        """What happens over the rows of this holder."""
        level = self._by_name.get(name)
        if level is not None and level.mechanism.unit != "client":
            return level.mechanism
        size = self._sizes[name]
        if size not in self._by_size:
            self._by_size[size] = over_rows(self.recipe, size)
        return self._by_size[size]

    def size_of(self, name: str) -> int:
        """Declared units of this holder."""
        return self._sizes[name]

    @cached_property
    def _by_name(self) -> dict[str, Level]:
        return {level.name: level for level in self.levels}

    @cached_property
    def _sizes(self) -> Sizes:
        return declared_sizes(self.recipe)

    @cached_property
    def _by_size(self) -> dict[int, Mechanism]:
        return {}

    @property
    def inner_sampling(self) -> Sampling:
        """How a step over rows draws, at the first holder."""
        return self.inner(self._sizes.names[0]).sampling

    @property
    def rounds(self) -> int:
        """Steps of the outermost loop."""
        return self.outer.steps if self.outer is not None else self.levels[0].mechanism.steps

    def to_json(self) -> dict[str, Any]:
        """The facts of this plan; all of them public."""
        search = self.search
        facts: dict[str, Any] = {
            "nacre": version_of("nacre"),
            "name": self.recipe.name,
            "recipe_digest": self.digest,
            "created": self.created,
            "seed": self.recipe.seed,
            "task": self.schema.task,
            "classes": list(self.schema.classes),
            "figure": words.speaking_figure(self.recipe),
            "private": self.private,
            "rounds": self.rounds,
            "parties": [words.holder(level) for level in self.levels],
            "techniques": words.techniques(self.recipe),
            "assumptions": limits.assumptions(self.recipe),
            "not_covered": limits.not_covered(self.recipe),
            "model": words.model(self.recipe, self.estimate.parameters),
            "estimates": self.estimate.to_json(),
        }
        return facts if search is None else search.added_to(facts)


def plan(recipe: Recipe, *, resume: Path | None = None, ledger: bool = True) -> Plan:
    """What the recipe would do, priced. Reads no row of data: of a table that is there, the header
    alone, to find names that it does not have.

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
        return _search(recipe, recipe.tune, run, ledger)
    draft = _draft(recipe)
    protection = draft.protection
    if protection is None:
        return draft.plan(draft.levels, recipe_digest(recipe))
    levels = [
        priced(recipe, protection_for(recipe, level.mechanism.unit), level)
        for level in draft.levels
    ]
    found = draft.plan(tuple(levels), recipe_digest(recipe))
    return covered(found, run) if ledger else found


def covered(
    found: Plan,
    run: tuple[str, Path] | None,  # name and folder of the run that is resumed
    *,
    unit: Unit | None = None,  # of the levels that are charged here; None charges all
) -> Plan:
    """The plan, its priced levels charged to the ledger of its recipe. Raises `BudgetExceeded`
    where a grant does not cover one."""
    levels = [
        charged(found.recipe, protection_for(found.recipe, level.mechanism.unit), level, run)
        if isinstance(level, PricedLevel) and unit in (None, level.mechanism.unit)
        else level
        for level in found.levels
    ]
    return replace(found, levels=tuple(levels))


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """What is known of one run before its noise is calibrated."""

    recipe: Recipe
    schema: Schema
    protection: Protection | None
    outer: Mechanism | None
    levels: tuple[Level, ...]
    estimate: Estimate

    def plan(
        self, levels: tuple[Level, ...], digest: str, search: SearchFacts | None = None
    ) -> Plan:
        """The plan with these levels; where whole parties are protected, the outer loop is one."""
        whole = self.outer is not None and self.recipe.privacy_of_parties is not None
        return Plan(
            recipe=self.recipe,
            digest=digest,
            schema=self.schema,
            levels=levels,
            outer=levels[0].mechanism if whole else self.outer,
            estimate=self.estimate,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            search=search,
        )


def _draft(recipe: Recipe) -> _Draft:
    """One run: resolved, refused where it is unsound, built, and its cost estimated."""
    schema, sizes = _schema(recipe), declared_sizes(recipe)
    same_task(recipe, schema)
    shares_are_of_the_classes(recipe, schema)
    fits(recipe, schema)
    model = _built(recipe, schema)
    space = schema.space()
    facts = RecipeFacts(recipe, schema, sizes, model, space)
    for check in CHECKS:
        check(facts)
    model = _prepared(recipe, model)
    own = personal_layers_exist(recipe, model)
    parts_fit(recipe, model, own)
    shared = shared_weights(model, own)
    sums_fit_the_grid(recipe, shared)
    protection, outer = protection_of(recipe), over_parties(recipe)
    if outer is not None:
        outer = in_shares(recipe, outer, shared)
    estimate = _estimate(recipe, model, schema)
    if own:
        estimate = replace(estimate, shared=sum(w.numel() for w in shared.values()))
    return _Draft(
        recipe=recipe,
        schema=schema,
        protection=protection,
        outer=outer,
        levels=declared_levels(recipe, sizes, outer, protection),
        estimate=estimate,
    )


def _search(recipe: Recipe, tune: Tune, run: tuple[str, Path] | None, ledger: bool) -> Plan:
    """The plan of a search: every alternative drafted, and all of them priced together."""
    protection = protection_of(recipe)
    if protection is None:
        refuse(
            recipe,
            "tune",
            "the recipe has no differential_privacy section, so a search has nothing to hide; add "
            "one, or train each alternative by itself and compare them on public rows",
        )
    if recipe.within_parties is not None:
        refuse(
            recipe,
            "tune",
            "a search has one price, and this recipe makes two promises; search under one of them "
            "alone, or leave `tune` out",
        )
    tried = alternatives(recipe, tune, protection)
    drafts = list(_drafts(tried))
    columns: list[Sequence[Level]] = []  # one of each level, with an entry for each alternative
    for same in zip(*(draft.levels for draft in drafts), strict=True):
        found = searched(recipe, tune, protection, same)
        columns.append(_charged_once(recipe, protection, found, run) if ledger else found)
    own = recipe_digest(recipe)
    plans = [
        draft.plan(levels, own, SearchFacts.of(recipe, tune, each.settings))
        for each, draft, levels in zip(tried, drafts, zip(*columns, strict=True), strict=True)
    ]
    whole = SearchFacts.of(recipe, tune, None)
    return replace(plans[0], recipe=recipe, search=whole, alternatives=tuple(plans))


def _drafts(tried: Sequence[Alternative]) -> Iterator[_Draft]:
    """Each alternative's draft; a refusal says which one it is about, where it is not the first."""
    for place, each in enumerate(tried):
        try:
            yield _draft(each.recipe)
        except Refusal as error:
            if place == 0:  # maybe of them all
                raise
            raise tried_with(each.settings, error) from error


def _charged_once(
    recipe: Recipe, protection: Protection, levels: Sequence[PricedLevel],
    run: tuple[str, Path] | None,
) -> list[ChargedLevel]:  # fmt: skip
    """The level of all alternatives, which the search pays for once."""
    quote = charged(recipe, protection, levels[0], run).quote
    return [level.covered(quote) for level in levels]


def _schema(recipe: Recipe) -> Schema:
    try:
        return recipe.schema
    except Refusal as error:
        written = recipe.origin is not None and "data.tokenizer" in recipe.origin.lines
        refuse(recipe, "data.tokenizer" if written else "model", str(error), type(error))


def _built(recipe: Recipe, schema: Schema) -> nn.Module:
    try:
        return recipe.build_model(schema)
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


def _estimate(recipe: Recipe, model: nn.Module, schema: Schema) -> Estimate:
    """What the steps over rows cost, of all holders of a round together."""
    part, schema = trained_part(recipe, model, schema)
    space = schema.space()
    federation = recipe.federated_learning
    holders = 1.0 if federation is None else federation.expected()
    steps = math.ceil(holders * recipe.row_steps)
    found = estimate(recipe, part, schema, space, steps)
    return replace(found, parameters=sum(p.numel() for p in model.parameters()))

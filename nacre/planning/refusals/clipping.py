"""Refusals of clip rules and augmented copies that cannot carry what the recipe asks for."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from torch import nn

from nacre.core.errors import Refusal
from nacre.core.tensors import trainable
from nacre.data import Text
from nacre.gradient_clipping import BY_KIND, UnitClip
from nacre.planning.facts import RecipeFacts
from nacre.recipe.places import refuse
from nacre.recipe.schema import Recipe
from nacre.training import pieces


def per_unit_clipping(facts: RecipeFacts) -> None:
    """Differential privacy needs a bound on each unit's share: `flat`, `automatic`, `per_layer` or
    `adaptive` give one."""
    recipe = facts.recipe
    if recipe.differential_privacy is not None and pieces.unit_clip(recipe) is None:
        option = recipe.gradient_clipping
        why = (
            "the recipe has none, so nothing bounds what one unit adds to a step and"
            if option is None
            else f"{option.kind} clips the whole mean gradient at most, which bounds nobody's "
            "share of it, so"
        )
        refuse(
            recipe,
            "gradient_clipping",
            f"{why} noise would hide nobody; use `gradient_clipping: {{kind: flat, norm: 1.0}}`",
        )


_LEAST_NORM, _MOST_NORM = 1e-20, 1e20


def norms_leave_room_for_noise(facts: RecipeFacts) -> None:
    """Noise in proportion to the bound has to be a number of float32, and so have its grid and a
    sum of many units."""
    if facts.recipe.differential_privacy is None:
        return
    for key, rule in _rules(facts.recipe):
        bound = rule.bound(1)
        if not _LEAST_NORM <= bound <= _MOST_NORM:
            refuse(
                facts.recipe,
                f"{key}.norm",
                f"{bound:g} is so far from 1 that noise in proportion to it leaves 32-bit floating "
                f"point; use a norm between {_LEAST_NORM:g} and {_MOST_NORM:g}",
            )


def _rules(recipe: Recipe) -> Iterator[tuple[str, UnitClip]]:
    """Every rule that bounds a unit's share, and where it stands."""
    rule, inner = pieces.unit_clip(recipe), recipe.within_parties
    if rule is not None:
        yield "gradient_clipping", rule
    if inner is not None:
        yield "within_parties.gradient_clipping", inner.gradient_clipping


def sums_carry_the_rule(facts: RecipeFacts) -> None:
    """A gradient sum has to carry the clip rule and the precision: `whole` never sees one unit's
    gradient, `ghost` and `grouped` have one factor a unit, and only the sums of the tape compute in
    bfloat16."""
    recipe, execution = facts.recipe, facts.recipe.execution
    rule, name = pieces.clip(recipe), execution.gradients
    if name == "auto":
        if math.isfinite(rule.bound(1)):
            return  # it takes one that carries both
        name = "whole"
    chosen = BY_KIND[name]
    if (problem := chosen.refuses(rule)) is not None:
        refuse(recipe, "execution.gradients", problem)
    if (problem := chosen.refuses(rule, execution.precision)) is not None:
        refuse(recipe, "execution.precision", problem)


def moving_rules_see_every_step(facts: RecipeFacts) -> None:
    """A norm that moves is carried from step to step, and a party keeps nothing between rounds."""
    recipe, rule = facts.recipe, pieces.clip(facts.recipe)
    if recipe.federated_learning is not None and rule.moved():
        refuse(
            recipe,
            "gradient_clipping" if recipe.within_parties is None else "within_parties",
            f"{rule.kind} would begin again in every round of every party, since a party keeps "
            "nothing between rounds; use `gradient_clipping: {kind: automatic}`, which has no norm "
            "to tune",
        )


def copies_are_of_images(facts: RecipeFacts) -> None:
    """Augmented copies are flipped and shifted images, or rows of numbers moved by noise; a table's
    row has neither left nor right, and a token is no number."""
    copies = facts.recipe.training.augment
    if copies is not None and copies.noise and isinstance(facts.recipe.data, Text):
        refuse(
            facts.recipe,
            "training.augment.noise",
            "noise moves numbers and the rows of these data are tokens; leave `augment` out",
        )
    problem = copies.problem(facts.schema.shape) if copies is not None else None
    if problem is not None:
        refuse(facts.recipe, "training.augment", problem)


def parts_fit(recipe: Recipe, model: nn.Module, personal: Collection[str] = ()) -> None:
    """Refuses a rule whose parts are not those of the model as it will be trained; of whole parties
    those of what they send, which is without their `personal` weights."""
    for key, rule in _rules(recipe):
        of_parties = key == "gradient_clipping" and pieces.protects(recipe) == "client"
        kept = personal if of_parties else ()
        try:
            rule.groups([name for name in trainable(model) if name not in kept])
        except Refusal as error:
            refuse(recipe, f"{key}.norms", str(error), type(error))

"""Refusals of clip rules and augmented copies that cannot carry what the recipe asks for."""

from __future__ import annotations

from torch import nn

from nacre.core.errors import Refusal
from nacre.core.tensors import trainable
from nacre.gradient_clipping import Adaptive, PerLayer, Unclipped
from nacre.recipe.places import refuse
from nacre.recipe.schema import Recipe
from nacre.training import pieces
from nacre.training.facts import Facts
from nacre.training.pieces import protects


def per_unit_clipping(facts: Facts) -> None:
    """Differential privacy needs a bound on each unit's share: `flat`, `automatic`, `per_layer` or
    `adaptive` give one."""
    recipe = facts.recipe
    if recipe.differential_privacy is not None and pieces.unit_clip(recipe) is None:
        kind = getattr(recipe.gradient_clipping, "kind", "absent")
        refuse(
            recipe,
            "gradient_clipping",
            f"{kind} clips the whole mean gradient at most, which bounds nobody's share of it, so "
            "noise would hide nobody; use `gradient_clipping: {kind: flat, norm: 1.0}`",
        )


_LEAST_NORM, _MOST_NORM = 1e-20, 1e20


def norms_leave_room_for_noise(facts: Facts) -> None:
    """Noise in proportion to the norm has to be a number of float32, and so have its grid and a sum
    of many units."""
    if facts.recipe.differential_privacy is None:
        return
    rule = pieces.unit_clip(facts.recipe)
    given: dict[str, float | None] = {"norm": getattr(rule, "norm", None)}
    own: dict[str, float] = getattr(rule, "norms", None) or {}
    given |= {f"norms.{name}": norm for name, norm in own.items()}
    for key, norm in given.items():
        if norm is None or _LEAST_NORM <= norm <= _MOST_NORM:
            continue
        refuse(
            facts.recipe,
            f"gradient_clipping.{key}",
            f"{norm:g} is so far from 1 that noise in proportion to it leaves 32-bit floating "
            f"point; use a norm between {_LEAST_NORM:g} and {_MOST_NORM:g}",
        )


def per_unit_sums(facts: Facts) -> None:
    """`gradients: whole` never sees one unit's gradient."""
    recipe = facts.recipe
    if pieces.unit_clip(recipe) is not None and recipe.execution.gradients == "whole":
        if protects(recipe) == "client":
            return  # the change of a party is clipped, not its gradients
        refuse(
            recipe,
            "execution.gradients",
            "whole adds gradients up before anyone could clip one unit's; use auto",
        )


def half_precision_is_for_the_tape(facts: Facts) -> None:
    """Only the sums of the tape compute in bfloat16 and add up in float32."""
    execution = facts.recipe.execution
    without = ("looped", "vmapped", "whole")
    unclipped = pieces.clip(facts.recipe) == Unclipped() and execution.gradients == "auto"
    if execution.precision != "float32" and (execution.gradients in without or unclipped):
        taken = "whole" if unclipped else execution.gradients
        refuse(
            facts.recipe,
            "execution.precision",
            f"{execution.precision} is for the sums of the tape, and this run takes `gradients: "
            f"{taken}`; use `precision: float32`",
        )


def one_factor_a_unit(facts: Facts) -> None:
    """`ghost` and `grouped` scale a unit's loss by one factor; `per_layer` has one a layer."""
    recipe = facts.recipe
    rule, sums = pieces.clip(recipe), recipe.execution.gradients
    if isinstance(rule, PerLayer) and sums in ("ghost", "grouped"):
        refuse(
            recipe,
            "execution.gradients",
            f"{sums} scales each unit's loss by one factor, and `per_layer` has one a layer; use "
            "`gradients: bookkeeping`",
        )


def adaptive_rules_see_every_step(facts: Facts) -> None:
    """An adaptive norm is carried from step to step, and a party keeps nothing between rounds."""
    recipe = facts.recipe
    if recipe.federated_learning is not None and isinstance(pieces.clip(recipe), Adaptive):
        refuse(
            recipe,
            "gradient_clipping",
            "adaptive would begin again in every round of every party, since a party keeps nothing "
            "between rounds; use `gradient_clipping: {kind: automatic}`, which has no norm to tune",
        )


def copies_are_of_images(facts: Facts) -> None:
    """Augmented copies are flipped and shifted images; a table's row has neither left nor right."""
    copies = facts.recipe.training.augment
    problem = copies.problem(facts.schema.shape) if copies is not None else None
    if problem is not None:
        refuse(facts.recipe, "training.augment", problem)


def parts_fit(recipe: Recipe, model: nn.Module) -> None:
    """Refuses a rule whose parts are not those of the model as it will be trained."""
    rule = pieces.unit_clip(recipe)
    if rule is not None:
        try:
            rule.groups(list(trainable(model)))
        except Refusal as error:
            refuse(recipe, "gradient_clipping.norms", str(error), type(error))

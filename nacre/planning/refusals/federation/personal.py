"""Refusals about layers that stay with the parties: which, and what means nothing beside them."""

from __future__ import annotations

from torch import nn

from nacre.core.errors import Incompatible
from nacre.planning.facts import RecipeFacts
from nacre.planning.robustness import rule_of
from nacre.recipe.places import refuse
from nacre.recipe.schema import Recipe
from nacre.training.local.personal import personal_names

KEY = "federated_learning.local.personal"


def personal_layers_exist(recipe: Recipe, model: nn.Module) -> tuple[str, ...]:
    """The weights that stay with the parties, of the model as it will be trained. Refuses names
    that it does not have, and a federation that would share nothing."""
    federation = recipe.federated_learning
    try:
        return personal_names(federation.local.personal if federation is not None else (), model)
    except Incompatible as error:
        refuse(recipe, KEY, str(error))


def common_models_are_not_measured(facts: RecipeFacts) -> None:
    """The common model lacks the layers that its parties keep, so no figure of it means anything;
    each party's own is measured at the party."""
    recipe = facts.recipe
    federation = recipe.federated_learning
    if federation is None or not federation.local.personal:
        return
    rule = rule_of(recipe)
    named = ", ".join(federation.local.personal)
    asked = {
        "federated_learning.stop": federation.stop is not None,
        "audit": bool(recipe.audit),
        "compare": bool(recipe.compare),
        "tune": recipe.tune is not None,
        "evaluate.groups": recipe.evaluate is not None and bool(recipe.evaluate.groups),
        "federated_learning.gather.aggregate": rule is not None and rule.rooted,
    }
    for key, there in asked.items():
        if there:
            refuse(
                recipe,
                key,
                f"it looks at the common model, in which nobody has trained what stays with the "
                f"parties ({named}), so what it finds would say nothing; leave it out (each "
                "party's own model is measured in `local/personal`), or let all layers be shared",
            )

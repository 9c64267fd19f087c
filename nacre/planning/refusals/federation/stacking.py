"""The refusal of parties that cannot be trained together."""

from __future__ import annotations

from nacre.federated_learning import SecureGather
from nacre.gradient_clipping import Unclipped
from nacre.planning.facts import RecipeFacts
from nacre.training import pieces
from nacre.training.local.trial import refuse_because, why_apart


def parties_can_be_stacked(facts: RecipeFacts) -> None:
    """Parties are trained together only where they get the numbers that each gets alone."""
    recipe = facts.recipe
    if recipe.execution.stacked is None:
        return
    federation = recipe.federated_learning
    if federation is None:
        reason = "the recipe has no parties"
    elif pieces.protects(recipe) not in (None, "client") or not isinstance(
        pieces.clip(recipe), Unclipped
    ):
        reason = "each party clips gradients of its own rows, by steps that are journalled alone"
    elif federation.local.personal:
        reason = "layers that stay with a party begin at each party's own weights"
    elif isinstance(federation.gather, SecureGather):
        reason = "a secure sum asks every party by a request of its own"
    else:
        reason = why_apart(recipe, facts.schema, facts.space, facts.model)
    refuse_because(recipe, reason)

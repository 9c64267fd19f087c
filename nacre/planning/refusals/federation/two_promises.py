"""Refusals of recipes that promise something within parties."""

from __future__ import annotations

from nacre.planning.facts import RecipeFacts
from nacre.recipe.places import refuse


def two_promises_are_to_different_units(facts: RecipeFacts) -> None:
    """A promise within parties stands beside one to whole parties; by itself it is the promise of
    the recipe."""
    recipe, ledger = facts.recipe, facts.recipe.ledger
    if recipe.within_parties is not None and recipe.privacy_of_parties is None:
        refuse(
            recipe,
            "within_parties",
            "it is for what parties promise beside `differential_privacy: {unit: client}`, and "
            "the recipe protects no whole party; write its two sections at the top of the recipe, "
            "without `within_parties`",
        )
    granted = ledger is not None and ledger.grant_within_parties is not None
    if recipe.within_parties is None and granted:
        refuse(
            recipe,
            "ledger.grant_within_parties",
            "it is for the accounts of what `within_parties` promises, and the recipe has no such "
            "section; the grant of its one promise is `ledger.grant`",
        )

"""Refusals about training against attacks: what it needs, and what it cannot go with."""

from __future__ import annotations

from nacre.adversarial_training import Mart
from nacre.adversarial_training.certificates.network import network_of
from nacre.core.errors import Refusal
from nacre.planning.facts import RecipeFacts
from nacre.recipe.audits import CertificateAudit
from nacre.recipe.places import refuse


def mart_has_classes(facts: RecipeFacts) -> None:
    """MART weighs a row by the probability of its class, so there must be classes."""
    option = facts.recipe.adversarial_training
    if isinstance(option, Mart) and facts.schema.task != "classification":
        refuse(
            facts.recipe,
            "adversarial_training.kind",
            f"mart weighs a row by the probability of its class, and the task is "
            f"{facts.schema.task}; use `kind: trades`",
        )


def ramps_know_their_end(facts: RecipeFacts) -> None:
    """A party starts its local steps anew in every round, so no threat grows over them."""
    recipe = facts.recipe
    option = recipe.adversarial_training
    if recipe.federated_learning is not None and option is not None and option.ramp is not None:
        refuse(
            recipe,
            "adversarial_training.ramp",
            "a ramp counts the steps of one run, and parties start theirs anew in each round; "
            "leave it out",
        )


def guards_have_public_rows(facts: RecipeFacts) -> None:
    """A guard attacks the model on rows while it trains, so they must be public."""
    recipe = facts.recipe
    option = recipe.adversarial_training
    if option is None or option.guard is None:
        return
    if not recipe.data.has_public and not recipe.data.public_demonstration:
        refuse(
            recipe,
            "adversarial_training.guard",
            "the guard looks at rows after each checkpoint, so they must be public, and the recipe "
            "declares none; declare `data: {public: …}`, or leave the guard out",
        )
    if recipe.execution.devices == "sharded":
        refuse(
            recipe,
            "adversarial_training.guard",
            "processes that share the weights have no whole copy of the best ones to go back to; "
            "use `execution: {devices: replicated}`, or leave the guard out",
        )


def certificates_have_bounds(facts: RecipeFacts) -> None:
    """A certificate proves which class is answered, and IBP and CROWN read every layer: what they
    know no bound of must not be found out when the run is paid for. Adapters are bounded as they
    are found in the finished model."""
    recipe = facts.recipe
    asked = [option for option in recipe.audit if isinstance(option, CertificateAudit)]
    if asked and facts.schema.task != "classification":
        refuse(
            recipe,
            "audit",
            f"the certificate audit proves which class is answered and the task is "
            f"{facts.schema.task}; leave `certificate` out",
        )
    if recipe.fine_tuning is not None or all(option.method.smooths for option in asked):
        return
    try:
        network_of(facts.model, facts.schema.shape)
    except Refusal as error:
        refuse(recipe, "audit", f"certificate: {error}", type(error))

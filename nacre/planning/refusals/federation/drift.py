"""Refusals of what parties do against client drift, where it would do nothing or something else."""

from __future__ import annotations

from nacre.core.optimizers import SGD
from nacre.planning.facts import RecipeFacts
from nacre.recipe.places import refuse


def drift_terms_act(facts: RecipeFacts) -> None:
    """FedProx pulls from the second step on; SCAFFOLD divides a change by the SGD that made it."""
    recipe = facts.recipe
    federation, optimizer = recipe.federated_learning, recipe.training.optimizer
    if federation is None:
        return
    local = federation.local
    if local.proximal and local.steps == 1:
        refuse(
            recipe,
            "federated_learning.local.proximal",
            "the first local step of a round starts at the weights that FedProx pulls back to, so "
            "with `steps: 1` the term is zero; take more local steps, or leave it out",
        )
    plain = isinstance(optimizer, SGD) and not optimizer.momentum and not optimizer.weight_decay
    if local.controls and not plain:
        refuse(
            recipe,
            "federated_learning.local.controls",
            "SCAFFOLD reads a party's mean gradient off its change, which only plain SGD allows; "
            "use `training: {optimizer: {kind: sgd, lr: …}}` without momentum and weight decay, "
            "or leave `controls` out",
        )

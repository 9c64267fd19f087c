"""Refusals about training against attacks: what it needs, and what it cannot go with."""

from __future__ import annotations

import torch

from nacre.adversarial_training import Mart
from nacre.adversarial_training.certificates import Smoothing
from nacre.adversarial_training.certificates.extremes import longest
from nacre.adversarial_training.certificates.network import network_of
from nacre.adversarial_training.certificates.smoothing import largest_radius
from nacre.adversarial_training.threats.ball import Ball
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
    for place, option in enumerate(recipe.audit):
        if isinstance(option, CertificateAudit) and isinstance(option.method, Smoothing):
            _votes_reach(facts, f"audit[{place}]", option, option.method)
    if recipe.fine_tuning is not None or all(option.method.smooths for option in asked):
        return
    try:
        network_of(facts.model, facts.schema.shape)
    except Refusal as error:
        refuse(recipe, "audit", f"certificate: {error}", type(error))


def _votes_reach(facts: RecipeFacts, key: str, option: CertificateAudit, method: Smoothing) -> None:
    """Votes certify no move that is longer than a row gets whose votes are all right."""
    trained = facts.recipe.adversarial_training
    ball = option.ball or (trained.ball if trained is not None else None)
    if not isinstance(ball, Ball):
        return
    most = largest_radius(method.count)
    length = float(longest(ball.region(facts.space), torch.zeros(1, *facts.space.shape)))
    if most > length:
        return
    where = f"{key}.ball" if option.ball is not None else key
    remedy = "raise `method.deviation` or `samples`, or take a smaller radius"
    if most > 0 and not ball.radii:
        remedy += f", below {ball.radius * most / length:.3g}"
    if ball.kind == "linf":
        remedy += "; smoothing is for `kind: l2`, for a corner of an `linf` ball is far away"
    refuse(
        facts.recipe,
        where,
        f"its longest move is {length:.3g} long, and {method.samples:,} votes under noise of "
        f"deviation {method.deviation:g} certify none beyond {max(most, 0):.3g}, so no row could "
        f"be certified; {remedy}",
    )

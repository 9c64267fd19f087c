"""Refusals of audits that train a federation again with parties at fault in it."""

from __future__ import annotations

from nacre.data.dataset import Schema
from nacre.federated_learning.attackers import (
    AttackerOption,
    LabelFlip,
    ModelReplacement,
    PixelBackdoor,
)
from nacre.planning.facts import RecipeFacts
from nacre.planning.robustness import rule_of
from nacre.recipe.audits import Poisoning
from nacre.recipe.places import refuse


def attackers_meet_a_federation(facts: RecipeFacts) -> None:
    """Poisoning needs parties, of which some stay honest, answers that are right or wrong, and
    attackers that can do what they do to such rows."""
    for place, option in enumerate(facts.recipe.audit):
        if isinstance(option, Poisoning):
            reason = _unfit(facts, option)
            if reason is not None:
                refuse(facts.recipe, f"audit[{place}]", reason)


def _unfit(facts: RecipeFacts, option: Poisoning) -> str | None:
    """Why this audit cannot be done, with the remedy; None where it can."""
    federation, schema = facts.recipe.federated_learning, facts.schema
    if federation is None:
        return (
            "poisoning asks what parties at fault do to a federation, and the recipe has none; "
            "leave it out, or add `federated_learning`"
        )
    if schema.task not in ("classification", "token_classification"):
        return (
            f"poisoning counts right answers, and the task {schema.task} has none that are right "
            "or wrong; leave it out"
        )
    rule = rule_of(facts.recipe)
    bad = option.bad or (rule.faults if rule is not None else 0) or 1
    parties = len(federation.parties.names)
    if bad >= parties:
        return (
            f"bad={bad} of {parties} parties leaves no honest one; say `bad: {parties - 1}` or "
            "fewer, or find more parties"
        )
    if option.rounds is not None and option.rounds > federation.rounds:
        return (
            f"rounds={option.rounds} are more than the {federation.rounds} of the run, whose noise "
            f"the twins have; say `rounds: {federation.rounds}` or fewer"
        )
    return next(filter(None, (_attacker(each, schema) for each in option.attackers)), None)


def _attacker(attacker: AttackerOption, schema: Schema) -> str | None:
    square = attacker.backdoor if isinstance(attacker, ModelReplacement) else attacker
    if isinstance(square, LabelFlip | PixelBackdoor) and schema.task != "classification":
        return (
            f"{attacker.kind} changes the class of a row, and the task {schema.task} has one for "
            "each position; name others, as `attackers: [sign_flip, alie]`"
        )
    outputs = schema.outputs()
    if isinstance(square, LabelFlip) and square.classes not in (None, outputs):
        return (
            f"label_flip turns labels around among {square.classes} classes, and there are "
            f"{outputs}; leave `classes` out"
        )
    if not isinstance(square, PixelBackdoor):
        return None
    if schema.tokens is not None or len(schema.shape) < 2 or min(schema.shape[-2:]) < square.size:
        return (
            f"{attacker.kind} stamps a square of {square.size} pixels on images, and a row has the "
            f"shape {schema.shape}; name others, as `attackers: [label_flip, alie]`, or a smaller "
            "`size`"
        )
    if square.target >= outputs:
        return (
            f"{attacker.kind} is to have target={square.target} answered, and there are {outputs} "
            f"classes, counted from 0; say `target: {outputs - 1}` or less"
        )
    return None

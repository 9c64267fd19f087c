"""The first screen: warnings, the run in plain words, and its key figures."""

from __future__ import annotations

import math
from typing import Any, get_args

from nacre.core.errors import RecipeError
from nacre.recipe.audits import AuditOption
from nacre.recipe.document import parse
from nacre.recipe.options import kinds
from nacre.report.facts import Evidence, FindingFacts, IntervalFacts, PartyFacts, Variant
from nacre.report.sections.blocks import Stat
from nacre.report.sections.numbers import (
    MISSING,
    count_in_words,
    delta,
    epsilon_text,
    listed,
    number_text,
    percent,
    signed_text,
    whole,
)

UNIT = {
    "example": "one row",
    "group": "all rows of one person or group",
    "client": "everything of one party",
}
_SHOWN = 5  # parties that fit under a key figure
STAYS_LOCAL = "from private rows, so it stays in local/"
"""Why a figure is not shown; the file's name follows."""
COMPARISON, FINDINGS = "comparison.json", "findings.json"


def finding(evidence: Evidence, audit: str) -> FindingFacts | None:
    """The finding of an audit; the first where there are several."""
    return next((found for found in evidence["findings"] if found["audit"] == audit), None)


def accuracy(evidence: Evidence) -> IntervalFacts | None:
    """Accuracy of the protected model on public test rows."""
    model, evasion = variant(evidence, "protected"), finding(evidence, "evasion")
    if model is not None and model["accuracy"] is not None:
        return model["accuracy"]
    return evasion["details"].get("clean") if evasion is not None else None


def loss(evidence: Evidence) -> IntervalFacts | None:
    """Mean loss of the protected model on public test rows, where no answer is right or wrong."""
    model = variant(evidence, "protected")
    return model.get("loss") if model is not None else None


def variant(evidence: Evidence, name: str) -> Variant | None:
    """One of the models compared; None where it was not."""
    found = evidence["comparison"]
    models = found["variants"] if found is not None else []
    return next((model for model in models if model["name"] == name), None)


def worst(evidence: Evidence) -> PartyFacts | None:
    """The party of the largest epsilon; None where nothing is promised."""
    promised = [party for party in evidence["plan"]["parties"] if party["epsilon"] is not None]
    return max(promised, key=lambda party: party["epsilon"] or 0.0, default=None)


def interval(figure: IntervalFacts | FindingFacts) -> str:
    """The two ends as percentages."""
    return f"{percent(figure['low'])} to {percent(figure['high'])}"


def signed_interval(figure: IntervalFacts | FindingFacts) -> str:
    """The two ends as signed numbers."""
    return f"{signed_text(figure['low'])} to {signed_text(figure['high'])}"


def figure_words(entry: FindingFacts) -> tuple[str, str]:
    """A finding's figure and its interval, each as its unit is read."""
    if entry["unit"] == "share":
        return percent(entry["value"]), interval(entry)
    return signed_text(entry["value"]), signed_interval(entry)


def by_loss(evidence: Evidence) -> bool:
    """Whether models are measured by their loss, since no answer is simply right."""
    return evidence["plan"]["task"] in ("causal_lm", "regression")


def steps(evidence: Evidence) -> str:
    """What the outermost loop counts."""
    return "rounds" if evidence["plan"]["techniques"]["federated_learning"] else "steps"


def _unlike_the_plan(evidence: Evidence) -> str | None:
    """How the record of releases contradicts plan.json; None where it does not."""
    released, outcome = evidence["released"], evidence["outcome"]
    done = outcome.get("released", outcome["done"])
    if released["count"] != done:
        return f"The record holds {released['count']} releases of {done} {steps(evidence)}"
    first = next((part["first"] for part in released["ranges"] if not part["as_planned"]), None)
    return None if first is None else f"Release {first} is not what the plan promises"


def warnings(evidence: Evidence) -> list[str]:
    """What a reader must see before any figure."""
    found: list[str] = []
    if not evidence["plan"]["private"]:
        found.append(
            "Nothing is protected. This run has no differential privacy: the model may give away "
            "any row it was trained on, and no figure below bounds that."
        )
    elif evidence["released"]["unprotected"]:
        count = count_in_words(evidence["released"]["unprotected"], "of its releases")
        found.append(
            f"The epsilon does not hold. The plan promises it, but {count} left without protection."
        )
    elif (broken := _unlike_the_plan(evidence)) is not None:
        found.append(
            f"The epsilon does not hold. {broken}: `nacre report RUN --check` says what differs."
        )
    ledger = evidence["ledger"]
    if ledger is not None and not ledger["verified"]:
        found.append(
            "The ledger is damaged. Its chain of hashes did not verify, so what was spent may be "
            "more than it says."
        )
    found += [
        f"The claim of the {entry['audit']} audit is broken: {entry['claim']}."
        for entry in evidence["findings"]
        if entry["verdict"] == "broken"
    ]
    return found


def abstract(evidence: Evidence) -> str:
    """The run in plain words."""
    sentences = [_who(evidence), _promise(evidence), _skill(evidence), _attacked(evidence)]
    return " ".join(sentence for sentence in sentences if sentence)


def _who(evidence: Evidence) -> str:
    parties = evidence["plan"]["parties"]
    if not evidence["plan"]["techniques"]["federated_learning"]:
        return f"One model was trained on {parties[0]['size']:,} declared units."
    if len(parties) == 1:
        count = count_in_words(parties[0]["size"], "parties").capitalize()
        return f"{count} trained one model, each on its own rows."
    count = count_in_words(len(parties), "parties").capitalize()
    named = [party["name"] for party in parties]
    names = f" ({listed(named)})" if len(parties) <= _SHOWN else ""
    return f"{count}{names} trained one model, each on its own rows."


def _promise(evidence: Evidence) -> str:
    party = worst(evidence)
    if party is None:
        return "Nothing bounds what the model gives away about a row."
    most = " at most" if len(evidence["plan"]["parties"]) > 1 else ""
    return (
        f"What the model can give away about {UNIT[party['unit']]} is bounded: epsilon is{most} "
        f"{epsilon_text(party['epsilon'])} at delta {delta(party['delta'])}."
    )


def _skill(evidence: Evidence) -> str:
    figure, comparison = accuracy(evidence), evidence["comparison"]
    if figure is None:
        return ""
    rows = f"{comparison['rows']:,} test rows" if comparison is not None else "test rows"
    twin = variant(evidence, "unprotected")
    beside = _beside(twin["accuracy"]) if twin is not None else ""
    return f"It answers {percent(figure['value'])} of {rows} correctly{beside}."


def _beside(figure: IntervalFacts | None) -> str:
    return f" (its unprotected twin: {percent(figure['value'])})" if figure is not None else ""


def _attacked(evidence: Evidence) -> str:
    evasion, membership = finding(evidence, "evasion"), finding(evidence, "membership")
    sentences: list[str] = []
    if evasion is not None:
        twin = variant(evidence, "unprotected")
        beside = _beside(twin["attacked_accuracy"]) if twin is not None else ""
        share = percent(evasion["value"])
        sentences.append(
            f"When an attacker may move each input a little, {share} stay correct{beside}."
        )
    if membership is not None:
        size = signed_text(membership["value"])
        sentences.append(
            f"An attack that guesses who was in the training data has an advantage of {size}: "
            f"{membership['verdict']}."
        )
    return " ".join(sentences)


def odds(party: PartyFacts) -> str:
    """What epsilon means, as the error rates of the best test an observer could run."""
    bound, slack = party["epsilon"] or 0.0, party["delta"] or 0.0
    rate = 0.001
    found = min(
        1.0, math.exp(min(bound, 99)) * rate + slack, 1 - math.exp(-bound) * (1 - slack - rate)
    )
    if party["adjacency"] == "replace_one":
        question = f"which of two values {UNIT[party['unit']]} had"
    else:
        question = f"whether {UNIT[party['unit']]} took part"
    return (
        f"No test of {question}, by anyone who sees everything that was released and knows "
        "whatever else, has a true positive rate above exp(ε) times its false positive rate plus "
        f"δ. At ε = {epsilon_text(bound)} and one false alarm in a thousand, it detects at most "
        f"{percent(found)}."
    )


def key_figures(evidence: Evidence) -> list[Stat]:
    """Privacy, accuracy, accuracy under attack, membership advantage, exposure of canaries.

    An attack that neither the recipe asked for nor `nacre audit` reported has no figure.
    """
    found = {entry["audit"]: entry["headline"] for entry in evidence["findings"]}
    named = _asked(evidence)
    asked = {audit: label for audit, label in HEADLINES.items() if audit in named}
    known = {audit: label for audit, label in HEADLINES.items() if audit in asked | found}
    attacked = [_figure(evidence, audit, label) for audit, label in (known | found).items()]
    return [_epsilon(evidence), _accuracy(evidence), *attacked]


HEADLINES = {kind: option.headline for kind, option in kinds(get_args(AuditOption)).items()}
"""Audit -> what its figure is called, of every audit that a recipe can name, in their order."""


def _asked(evidence: Evidence) -> set[str]:
    """The audits that the recipe names; those that nearly every recipe asks for where it can no
    longer be read."""
    try:
        found: Any = parse(evidence["recipe"].encode(), "recipe.yaml").values.get("audit")
        return {audit if isinstance(audit, str) else str(audit["kind"]) for audit in found or ()}
    except (RecipeError, TypeError, KeyError):
        return {"evasion", "membership"}


def _epsilon(evidence: Evidence) -> Stat:
    party, parties = worst(evidence), evidence["plan"]["parties"]
    if party is None:
        return Stat("Privacy loss ε", "unbounded", "no differential privacy", False)
    each = ", ".join(f"{p['name']} {epsilon_text(p['epsilon'])}" for p in parties[:_SHOWN])
    each += f" and {len(parties) - _SHOWN} more" if len(parties) > _SHOWN else ""
    by = f"at δ = {delta(party['delta'])}, by {str(party['accountant']).upper()}"
    label = "Privacy loss ε, largest" if len(parties) > 1 else "Privacy loss ε"
    return Stat(label, epsilon_text(party["epsilon"]), f"{each}; {by}" if len(parties) > 1 else by)


def _accuracy(evidence: Evidence) -> Stat:
    figure, lost = accuracy(evidence), loss(evidence)
    beside = evidence["comparison"] or finding(evidence, "evasion")
    if lost is not None and beside is not None:
        ends = f"{number_text(lost['low'])} to {number_text(lost['high'])}"
        detail = f"{whole(beside['confidence'])} interval {ends}; e^loss is the perplexity"
        return Stat("Mean loss", number_text(lost["value"]), detail)
    if figure is None:
        label = "Mean loss" if by_loss(evidence) else "Accuracy"
        return _absent(label, evidence, COMPARISON)
    level = f"{whole(beside['confidence'])} " if beside is not None else ""
    return Stat("Accuracy", percent(figure["value"]), f"{level}interval {interval(figure)}")


def _figure(evidence: Evidence, audit: str, label: str) -> Stat:
    """The key figure of an audit. A share that was only measured needs no verdict beside it."""
    entry = finding(evidence, audit)
    if entry is None:
        return _absent(label, evidence, FINDINGS)
    value, ends = figure_words(entry)
    plain = entry["unit"] == "share" and entry["verdict"] == "measured"
    verdict = "" if plain else f"; {entry['verdict']}"
    return Stat(label, value, f"{whole(entry['confidence'])} interval {ends}{verdict}")


def _absent(label: str, evidence: Evidence, file: str) -> Stat:
    """A figure that this page cannot show, why, and in which file of local/ it stands."""
    if evidence["findings_are_local"]:
        return Stat(label, "not shown", STAYS_LOCAL + file, False)
    return Stat(label, MISSING, "no audit measured it", False)

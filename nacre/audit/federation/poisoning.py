"""What parties at fault would have done to the federation of a run, under its own rule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from nacre.audit.answers import answers, existing, right
from nacre.audit.bounds import clopper_pearson, paired_difference
from nacre.audit.federation.facts import AttackerFacts, BackdoorFacts, PoisoningFacts
from nacre.audit.federation.twins import Twin, Twins
from nacre.audit.finding import Finding, Verdict
from nacre.audit.target import AuditProgress, Target, no_progress
from nacre.core.errors import DataError, Incompatible
from nacre.core.rows import select
from nacre.data.dataset import Schema
from nacre.federated_learning import at_fault
from nacre.federated_learning.attackers import (
    ALittleIsEnough,
    AttackerOption,
    GaussianLie,
    InnerProduct,
    LabelFlip,
    MinMax,
    ModelReplacement,
    PixelBackdoor,
    SignFlip,
)
from nacre.figures.intervals import IntervalFacts
from nacre.recipe.audits import Poisoning


def poisoning(target: Target, option: Poisoning, advance: AuditProgress = no_progress) -> Finding:
    """How much accuracy the worst of the attackers takes from a twin of the run's federation, and
    whether the rule kept its promise in every round of every twin.

    Twins have the run's recipe, rule, clip and noise, the same first weights and the same keys; in
    all but the first, `bad` parties do what an attacker does, before the server clips and
    aggregates. The drop is measured on the same rows before and after.

    *Guarantee:* the interval covers the accuracy that *these* twins lose, on rows drawn as these,
    with at least `option.confidence`, although the worst attacker was chosen by looking: each drop
    has the error divided by the number of attackers. Chance of training is not in it: one twin an
    attacker is trained. An attacker that nobody tried may do worse.

    Where the rule has a kappa for as many at fault, its promise is put to the test: "broken" says
    that in some round the result was further from the mean of the honest changes than it allows,
    which no choice of lies may do. Without one the drop is measured, and no claim is judged.

    *Covered:* `public` is true where every row that a twin saw or is measured on was declared
    public, so no private row moves a figure and nothing is charged; all else stays in `local/`.
    """
    if target.federation is None:
        raise Incompatible(
            "poisoning asks what parties at fault do to a federation, and this run has none; leave "
            "it out of `audit`, or add `federated_learning`"
        )
    twins = target.federation(option)
    attackers = attackers_of(option, twins.schema)
    test = existing(twins.test)
    if not len(test["label"]):
        raise DataError("poisoning needs rows to measure on and there are none")
    done, total = 0, twins.rounds * (1 + len(attackers))

    def after() -> None:
        nonlocal done
        done += 1
        advance(min(done, total), total)

    def trained(attacker: AttackerOption | None) -> Twin:
        nonlocal done
        begun, found = done, twins.train(attacker, after)
        done = begun + twins.rounds  # an attack may have ended the twin before
        advance(done, total)
        return found

    honest = trained(None)
    before = right(honest.model, target.task, test)
    each = 1 - (1 - option.confidence) / len(attackers)
    entries = [
        _entry(target, twins, attacker, honest, before, trained(attacker), option.confidence, each)
        for attacker in attackers
    ]
    worst = max(entries, key=lambda entry: entry["drop"]["value"])
    return _finding(target, option, twins, _share(before, option.confidence), entries, worst)


def attackers_of(option: Poisoning, schema: Schema) -> tuple[AttackerOption, ...]:
    """Those that the option names, or every one that rows of this schema allow; a label flip learns
    here how many classes there are."""
    chosen = option.attackers or tuple(_every(schema))
    return tuple(
        replace(attacker, classes=schema.outputs())
        if isinstance(attacker, LabelFlip) and attacker.classes is None
        else attacker
        for attacker in chosen
    )


def _every(schema: Schema) -> Iterator[AttackerOption]:
    if schema.task == "classification":
        yield LabelFlip()
    yield from (SignFlip(), GaussianLie(), ALittleIsEnough(), InnerProduct(), MinMax())
    square = PixelBackdoor()
    images = schema.tokens is None and len(schema.shape) >= 2
    if schema.task == "classification" and images and min(schema.shape[-2:]) >= square.size:
        yield from (square, ModelReplacement(backdoor=square))


def _entry(
    target: Target,
    twins: Twins,
    attacker: AttackerOption,
    honest: Twin,
    before: Tensor,  # (R,) bool
    found: Twin,
    confidence: float,
    each: float,  # of the drop
) -> AttackerFacts:
    """One attacker's figures."""
    after = right(found.model, target.task, existing(twins.test))
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    low, high = paired_difference(lost, gained, len(before), each)
    return {
        "kind": attacker.kind,
        "does": attacker.sentence(),
        "accuracy": _share(after, confidence),
        "drop": {"value": (lost - gained) / len(before), "low": low, "high": high},
        "backdoor": _backdoor(target, twins, attacker, honest, found, confidence),
        "reached": found.reached,
        "judged": found.judged,
        "rounds": found.done,
    }


def _share(hits: Tensor, confidence: float) -> IntervalFacts:
    count, total = int(hits.sum()), len(hits)
    low, high = clopper_pearson(count, total, confidence)
    return {"value": count / total, "low": low, "high": high}


def _backdoor(
    target: Target, twins: Twins, attacker: AttackerOption, honest: Twin, found: Twin,
    confidence: float,
) -> BackdoorFacts | None:  # fmt: skip
    """How many stamped rows of other classes are answered as the backdoor wants, and how many of
    them the twin without an attacker answers so; None for attackers that stamp nothing."""
    square = attacker.backdoor if isinstance(attacker, ModelReplacement) else attacker
    if not isinstance(square, PixelBackdoor):
        return None
    test = existing(twins.test)
    others = select(test, (test["label"] != square.target).nonzero().squeeze(1))
    if not len(others["label"]):
        return None
    stamped = square.stamped(others["features"])
    hits, without = (
        answers(twin.model, target.task, stamped).argmax(-1) == square.target
        for twin in (found, honest)
    )
    return {**_share(hits, confidence), "without": float(without.float().mean())}


def _finding(
    target: Target,
    option: Poisoning,
    twins: Twins,
    clean: IntervalFacts,
    entries: list[AttackerFacts],
    worst: AttackerFacts,
) -> Finding:
    kappa = twins.rule.kappa(math.floor(twins.expected))
    promised = math.isfinite(kappa) and len(twins.bad) <= twins.rule.faults
    drop, many = worst["drop"], len(entries)
    by = f"by {worst['kind']}" + (f", the worst of {many} attackers" if many > 1 else "")
    facts: PoisoningFacts = {
        "parties": twins.parties,
        "bad": len(twins.bad),
        "at_fault": list(twins.bad[:_NAMED]),
        "rounds": twins.rounds,
        "trained_on": twins.on,
        "rule": twins.rule.kind,
        "rule_bad": twins.rule.faults,
        "kappa": kappa if promised else None,
        "secure": twins.secure,
        "clean": clean,
        "attackers": entries,
        "worst": worst["kind"],
    }
    return Finding(
        audit=option.kind,
        headline=option.headline,
        unit=option.unit,
        claim=_claim(twins, kappa) if promised else "none: " + _nothing_promised(twins),
        measure=(
            f"accuracy that {len(twins.bad)} of {twins.parties} parties take from a twin of the "
            f"federation {by}"
        ),
        value=drop["value"],
        low=drop["low"],
        high=drop["high"],
        confidence=option.confidence,
        verdict=_verdict(twins, entries, drop, promised),
        public=twins.public,
        details={
            "rows_tested": len(existing(twins.test)["label"]),
            "poisoning": facts,
            "notes": list(_notes(twins, entries, worst, promised)),
        },
    )


_NAMED = 100  # parties at fault that a finding names


def _claim(twins: Twins, kappa: float) -> str:
    return (
        f"{twins.rule.kind} with {at_fault(twins.rule.faults)} of {twins.expected:g}: in every "
        f"round the result is off the mean of the honest changes by at most {math.sqrt(kappa):.2g} "
        "times their own distance from it (root mean square)"
    )


def _nothing_promised(twins: Twins) -> str:
    if twins.secure:
        return "a secure sum is a mean, which withstands no party at fault"
    rule, bad = twins.rule, len(twins.bad)
    if rule.faults and bad > rule.faults:
        return f"{rule.kind} is declared for {at_fault(rule.faults)}, and here are {bad}"
    if not rule.robust:
        return "a mean withstands no party at fault"
    return f"{rule.kind} has no proven distance from the honest changes"


def _verdict(
    twins: Twins, entries: list[AttackerFacts], drop: IntervalFacts, promised: bool
) -> Verdict:
    """A promise is a statement about numbers that were all seen, so it is judged without chance."""
    judged = [entry["reached"] for entry in entries if entry["reached"] is not None]
    if promised and judged:
        return "broken" if max(judged) > 1 else "holds"
    return "not distinguishable from none" if drop["low"] <= 0 else "measured"


def _notes(
    twins: Twins, entries: list[AttackerFacts], worst: AttackerFacts, promised: bool
) -> Iterator[str]:
    drop = worst["drop"]
    judged = [entry["reached"] for entry in entries if entry["reached"] is not None]
    if not promised:
        yield f"Warning: {_nothing_promised(twins)}; what is measured here is all that is known."
    elif judged and max(judged) > 1:
        yield (
            "Warning: the rule did not keep its promise; its code or its proof is wrong, and no "
            "figure of this run should rest on it."
        )
    elif judged and drop["low"] > 0:
        yield (
            f"Warning: the rule kept its promise ({max(judged):.0%} of the distance that it allows "
            f"was reached) and {worst['kind']} still took accuracy. The promise is one of a round, "
            "in lengths of what honest changes differ by: many rounds add up, and unlike parties "
            "leave much room."
        )
    if twins.secure:
        yield (
            "Attackers in these twins clip their change as agreed. A secure sum cannot check that: "
            "a party that does not clip puts any number into it and moves the model anywhere, "
            "whatever figure stands here."
        )
    for entry in entries:
        if (door := entry["backdoor"]) is not None and door["low"] > door["without"]:
            yield (
                f"Warning: {entry['kind']} gets its label for {door['value']:.0%} of the images "
                f"with its square ({door['low']:.0%} to {door['high']:.0%}), against "
                f"{door['without']:.0%} without it; accuracy does not show that."
            )
        if entry["rounds"] < twins.rounds:
            yield (
                f"{entry['kind']} ended the training in round {entry['rounds'] + 1} of "
                f"{twins.rounds}, with weights or changes that are no numbers."
            )
    yield f"Twins were trained on {twins.on}, each once: chance of training is in no interval."

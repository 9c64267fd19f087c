"""How many answers survive an attacker who may move each input a little."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nacre.adversarial_training.evaluation.untouched import untouched
from nacre.adversarial_training.text.words import Words
from nacre.adversarial_training.threats.options import ThreatOption
from nacre.adversarial_training.threats.table import TableThreat
from nacre.audit.answers import existing
from nacre.audit.bounds import Interval, clopper_pearson
from nacre.audit.finding import Finding
from nacre.audit.model_security.classes import attack_classes
from nacre.audit.model_security.examples import examples
from nacre.audit.model_security.gathering import of_classes, of_numbers
from nacre.audit.model_security.masking import examine
from nacre.audit.model_security.search import AttackSearch, search
from nacre.audit.model_security.signs import unconfirmed, unconfirmed_notes
from nacre.audit.target import AuditProgress, Target, no_progress
from nacre.core.errors import DataError, Incompatible
from nacre.core.theirs import theirs
from nacre.core.types import Batch
from nacre.models.tasks import Regression
from nacre.recipe.audits import Evasion

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of the radius at which accuracy is measured, beside the clean one."""

CLIMBS = {"quick": (20, 2), "standard": (40, 5), "full": (100, 10)}
"""Steps and starts of PGD by effort, for models that answer numbers: no cascade reads those."""

IntervalRule = Callable[[int, int, float], Interval]
"""(rows that stand, rows, confidence) -> an interval for the share that stands."""


def evasion(target: Target, option: Evasion, advance: AuditProgress = no_progress) -> Finding:
    """The share of test rows still answered rightly when each may be moved inside its ball.

    A row counts as robust only if no stage of the cascade that `option.effort` names breaks it at
    this radius or a smaller one. Rows the clean model gets wrong stay wrong, so attacked accuracy
    is never above clean accuracy. Every point is projected and scored by us. With `option.towards`
    the rows of other classes are attacked, and a row stands unless it is answered as that class.

    *Guarantee:* each interval covers the accuracy *under this attack*, on rows drawn as these,
    with at least `option.confidence` (one at a time); with `option.stop` at every number of rows
    at once, so that the audit may end where the interval is narrow. The true robust accuracy is at
    most the attacked one: another attack may break more. Where a probe shows that this one cannot
    be believed, the verdict is "not evidence".

    *Source:* Croce & Hein 2020, https://arxiv.org/abs/2003.01690; Carlini et al. 2019, "On
    evaluating adversarial robustness", https://arxiv.org/abs/1902.06705.
    """
    batch, ball = _asked(target, option)
    if target.task.kind == "classification" or isinstance(ball, Words):
        outcome = attack_classes(target, batch, ball, option, SHARES, advance)
        found, rule, details = outcome.search, outcome.interval, outcome.details
        if target.keep is not None:
            target.keep(of_classes(target, ball, outcome))
    else:
        found, details = _numbers(target, batch, ball, option, advance)
        rule = clopper_pearson
    curve = _curve(found, ball, (0.0, *SHARES), option.confidence, rule)
    clean, attacked = curve[0], curve[-1]
    shown = examples(target, found) if target.test_public or target.held else {}
    named = details.get("towards")
    measure = (
        f"share of test rows of other classes that no attack turned into {named!r}"
        if named is not None
        else "attacked accuracy: share of test rows whose right answer no attack changed"
    )
    return Finding(
        audit=option.kind,
        headline=option.headline,
        unit=option.unit,
        claim=f"none: no radius is certified; {_moves(ball)} were tried",
        measure=measure,
        value=attacked["value"],
        low=attacked["low"],
        high=attacked["high"],
        confidence=option.confidence,
        verdict="not evidence" if details["warnings"] else "measured",
        public=target.test_public,
        details={
            "rows_tested": len(found.broken_at),
            "rows_there": len(batch["label"]),
            "clean": clean,
            "attacked": attacked,
            "curve": curve,
            "ball": {"kind": ball.kind, "radius": ball.radius, "unit": ball.unit, **_floor(ball)},
            "effort": option.effort,
            **details,
            "notes": [
                *details["notes"],
                *_own_excess(target, ball, batch),
                *(f"not evidence: {said}" for said in details["warnings"]),
            ],
            "pictures": shown.get("pictures", []),
            "rows": shown.get("rows", []),
            "texts": shown.get("texts", []),
        },
    )


def _numbers(
    target: Target, batch: Batch, ball: ThreatOption, option: Evasion, advance: AuditProgress
) -> tuple[AttackSearch, dict[str, Any]]:
    """PGD on the task's loss, for models that answer numbers."""
    if option.towards is not None or option.stop is not None:
        key = "towards" if option.towards is not None else "stop"
        raise Incompatible(
            f"the evasion audit's `{key}` is for models that answer classes, and this one answers "
            f"{target.task.kind}: leave it out"
        )
    steps, restarts = CLIMBS[option.effort]
    steps, restarts = option.steps or steps, option.restarts or restarts
    with untouched(target.model), theirs("the model", "it was attacked", surely=False):
        found = search(
            target, batch, ball, shares=SHARES, steps=steps, restarts=restarts, advance=advance
        )
        found, signs = examine(target, ball, found, steps=steps, draws=restarts)
        called = found.standing_at(0) - found.standing_at(1)
        found = found.confirmed(target)
        lost = called - (found.standing_at(0) - found.standing_at(1))
        signs["unconfirmed_points"] = unconfirmed(lost, called)
    if target.keep is not None:
        target.keep(of_numbers(target, ball, found, steps))
    warned = signs["unconfirmed_points"]["warning"]
    notes = unconfirmed_notes(signs["unconfirmed_points"])
    if isinstance(target.task, Regression):
        within = f"{target.task.tolerance:g}"
        notes.append(f"an answer counts as right within {within} of the label, in its own units")
    warnings = [*signs["suspicions"], *([warned] if warned else [])]
    return found, {"signs": signs, "warnings": warnings, "notes": notes}


def _asked(target: Target, option: Evasion) -> tuple[Batch, ThreatOption | Words]:
    """The rows to attack and the ball; refused where either is missing."""
    ball = option.ball or target.ball or (Words() if target.text is not None else None)
    if ball is None:
        raise Incompatible(
            "the evasion audit needs a ball: give `audit: [{kind: evasion, ball: {radius: …}}]`, "
            "or train with `adversarial_training`"
        )
    if target.test is None:
        raise Incompatible(
            "the evasion audit needs test rows: declare a holdout or a test set in `data`, or "
            "leave `evasion` out of `audit`"
        )
    batch = existing(target.test)
    if not len(batch["label"]):
        raise DataError("the evasion audit needs test rows and the test set is empty")
    return batch, ball


def _floor(ball: ThreatOption | Words) -> dict[str, Any]:
    """What decides which words are near, where words are replaced."""
    if not isinstance(ball, Words):
        return {}
    return {"similarity": ball.similarity, "candidates": ball.candidates}


def _own_excess(target: Target, ball: ThreatOption | Words, batch: Batch) -> list[str]:
    """How many clean rows break a declared relation by themselves, where any does."""
    if not isinstance(ball, TableThreat):
        return []
    count = int(ball.region(target.space).violated(batch["features"]).sum())
    if not count:
        return []
    total = len(batch["label"])
    held = "held to their own excess, which no attack made larger"
    said = [f"{count} of {total} clean rows break a declared relation themselves: {held}"]
    if 2 * count > total:
        said.append(
            "most clean rows break a declared relation, so it is probably not what holds of these "
            "rows: look at the signs of its weights, its bound and its columns' units"
        )
    return said


def _curve(
    found: AttackSearch,
    ball: ThreatOption | Words,
    shares: Sequence[float],
    confidence: float,
    rule: IntervalRule,
) -> list[dict[str, float]]:
    """Accuracy at each share of the radius, each with its own interval; it never rises."""
    total = len(found.broken_at)
    result: list[dict[str, float]] = []
    for share in shares:
        standing = found.standing_at(share)
        low, high = rule(standing, total, confidence)
        result.append(
            {
                "share": share,
                "radius": share * ball.radius,
                "value": standing / total,
                "low": low,
                "high": high,
            }
        )
    return result


def _moves(ball: ThreatOption | Words) -> str:
    """The ball in words."""
    if isinstance(ball, TableThreat):
        return f"rows of {ball.sentence()}"
    if isinstance(ball, Words):
        return f"texts with {ball.sentence()},"
    named = f", {len(ball.radii)} features with radii of their own" if ball.radii else ""
    return f"moves of at most {ball.radius:g} ({ball.kind}, {ball.unit} units{named})"

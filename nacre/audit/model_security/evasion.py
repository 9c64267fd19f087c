"""How many answers survive an attacker who may move each input a little."""

from __future__ import annotations

from collections.abc import Sequence

from nacre.adversarial_training.threats.options import ThreatOption
from nacre.adversarial_training.threats.table import TableThreat
from nacre.audit.answers import existing
from nacre.audit.bounds import clopper_pearson
from nacre.audit.finding import Finding
from nacre.audit.model_security.examples import examples
from nacre.audit.model_security.masking import examine
from nacre.audit.model_security.search import AttackSearch, search
from nacre.audit.target import AuditProgress, Target, no_progress
from nacre.core.errors import DataError, Incompatible
from nacre.core.types import Batch
from nacre.recipe.audits import Evasion

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of the radius at which accuracy is measured, beside the clean one."""


def evasion(target: Target, option: Evasion, advance: AuditProgress = no_progress) -> Finding:
    """The share of test rows still answered rightly when each may be moved inside its ball.

    A row counts as robust only if nothing that was tried breaks it: every start of PGD at this
    and at every smaller radius (every second start climbs on the margin instead of the loss), the
    one-step attack, and random points. Rows the clean model gets wrong stay wrong, so attacked
    accuracy is never above clean accuracy. Every point is re-projected and re-scored by us.

    *Guarantee:* each interval covers the accuracy *under this attack*, on rows drawn as these,
    with at least `option.confidence` (one at a time). The true robust accuracy is at most the
    attacked one: another attack may break more. That is what `masking` looks for signs of.

    *Source:* Madry et al. 2018; Carlini et al. 2019, "On evaluating adversarial robustness".
    """
    batch, ball = _asked(target, option)
    found = search(
        target,
        batch,
        ball,
        shares=SHARES,
        steps=option.steps,
        restarts=option.restarts,
        advance=advance,
    )
    found, masking = examine(target, ball, found, steps=option.steps, draws=option.restarts)
    found = found.confirmed(target)
    curve = _curve(found, ball, (0.0, *SHARES), option.confidence)
    clean, attacked = curve[0], curve[-1]
    shown = examples(target, found) if target.test_public else {}
    return Finding(
        audit=option.kind,
        headline=option.headline,
        unit=option.unit,
        claim=f"none: no radius is certified; {_moves(ball)} were tried",
        measure="attacked accuracy: share of test rows whose right answer no attack changed",
        value=attacked["value"],
        low=attacked["low"],
        high=attacked["high"],
        confidence=option.confidence,
        verdict="measured",
        public=target.test_public,
        details={
            "rows_tested": len(batch["label"]),
            "clean": clean,
            "attacked": attacked,
            "curve": curve,
            "ball": {"kind": ball.kind, "radius": ball.radius, "unit": ball.unit},
            "steps": option.steps,
            "restarts": option.restarts,
            "masking": masking,
            "notes": [
                *[f"gradient masking? {sign}" for sign in masking["suspicions"]],
                *_own_excess(target, ball, batch),
            ],
            "pictures": shown.get("pictures", []),
            "rows": shown.get("rows", []),
        },
    )


def _asked(target: Target, option: Evasion) -> tuple[Batch, ThreatOption]:
    """The rows to attack and the ball; refused where either is missing."""
    ball = option.ball or target.ball
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


def _own_excess(target: Target, ball: ThreatOption, batch: Batch) -> list[str]:
    """How many clean rows break a declared relation by themselves, where any does."""
    if not isinstance(ball, TableThreat):
        return []
    count = int(ball.region(target.space).violated(batch["features"]).sum())
    held = "held to their own excess, which no attack made larger"
    return [f"{count} clean rows break a declared relation themselves: {held}"] if count else []


def _curve(
    found: AttackSearch, ball: ThreatOption, shares: Sequence[float], confidence: float
) -> list[dict[str, float]]:
    """Accuracy at each share of the radius, each with its own interval; it never rises."""
    total = len(found.broken_at)
    result: list[dict[str, float]] = []
    for share in shares:
        standing = found.standing_at(share)
        low, high = clopper_pearson(standing, total, confidence)
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


def _moves(ball: ThreatOption) -> str:
    """The ball in words."""
    if isinstance(ball, TableThreat):
        return f"rows of {ball.sentence()}"
    named = f", {len(ball.radii)} features with radii of their own" if ball.radii else ""
    return f"moves of at most {ball.radius:g} ({ball.kind}, {ball.unit} units{named})"

"""How many answers provably survive every attacker who may move each input a little."""

from __future__ import annotations

import torch

from nacre.adversarial_training.certificates import Smoothing
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.threats.ball import Ball
from nacre.audit.answers import existing, require_reads
from nacre.audit.bounds import clopper_pearson
from nacre.audit.finding import Finding
from nacre.audit.model_security.search import scaled
from nacre.audit.target import AuditProgress, Target, no_progress
from nacre.core.errors import DataError, Incompatible
from nacre.core.rows import select
from nacre.core.types import Batch
from nacre.recipe.audits import CertificateAudit

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the radius at which certified accuracy is counted."""


def certificate(
    target: Target, option: CertificateAudit, advance: AuditProgress = no_progress
) -> Finding:
    """The share of test rows whose right answer no input inside their ball changes, as proved.

    *Guarantee:* each interval, taken by itself, covers with at least `option.confidence` the share
    that this method certifies, on rows drawn as these; its lower end also bounds the true robust
    accuracy from below. By smoothing a row is certified wrongly with probability at most
    `failure`, so the certified share is at most the robust one plus `failure`, which the lower end
    gives away.

    *Privacy:* the finished model was released; bounds and votes are post-processing of it.
    """
    batch, ball = _asked(target, option)
    rows = Inputs(
        torch.arange(len(batch["label"])), batch["unit"], batch["features"], batch["label"]
    )
    if option.method.smooths:  # noisy copies of a row must not answer for each other
        require_reads(target.model, batch["features"])
    regions = [scaled(ball, share).region(target.space) for share in SHARES]
    found = option.method.certify(
        target.model, regions, rows, target.source.child("certificate"), advance
    )
    advance(1, 1)
    total, curve = len(rows), list[dict[str, float]]()
    for share, certified in zip(SHARES, found, strict=True):
        standing = int(certified.sum())
        low, high = clopper_pearson(standing, total, option.confidence)
        low = max(0.0, low - option.method.failure)
        curve.append(
            {
                "share": share, "radius": share * ball.radius, "value": standing / total,
                "low": low, "high": high,
            }
        )  # fmt: skip
    whole = curve[-1]
    return Finding(
        audit=option.kind,
        headline=option.headline,
        unit=option.unit,
        claim=f"no input inside {ball.sentence()} changes the answer",
        measure=f"certified accuracy: share of test rows proved by {option.method.sentence()}",
        value=whole["value"],
        low=whole["low"],
        high=whole["high"],
        confidence=option.confidence,
        verdict="measured",
        public=target.test_public,
        details={
            "rows_tested": total,
            "curve": curve,
            "ball": {"kind": ball.kind, "radius": ball.radius, "unit": ball.unit},
            "method": option.method.kind,
            "smoothed": option.method.smooths,
            "failure": option.method.failure,
            "notes": _notes(option),
        },
    )


def _asked(target: Target, option: CertificateAudit) -> tuple[Batch, Ball]:
    """The rows to certify and the ball; refused where either is missing."""
    ball = option.ball or (target.ball if isinstance(target.ball, Ball) else None)
    if ball is None and target.ball is not None:
        raise Incompatible(
            f"the certificate audit proves what holds inside a ball, and the model was trained "
            f"against a threat of kind {target.ball.kind!r}, within which none of its methods "
            "proves anything: give it a ball of its own, or leave `certificate` out of `audit`"
        )
    if ball is None:
        raise Incompatible(
            "the certificate audit needs a ball: give `audit: [{kind: certificate, ball: "
            "{kind: l2, radius: …}}]`, or train with `adversarial_training`"
        )
    if target.task.kind != "classification":
        raise Incompatible(
            f"the certificate audit proves which class is answered and the task is "
            f"{target.task.kind}; leave `certificate` out of `audit`"
        )
    if target.test is None:
        raise Incompatible(
            "the certificate audit needs test rows: declare a holdout or a test set in `data`, or "
            "leave `certificate` out of `audit`"
        )
    batch = existing(target.test)
    count = len(batch["label"])
    if not count:
        raise DataError("the certificate audit needs test rows and the test set is empty")
    if count > option.rows:
        order = target.source.child("certificate", "rows").stream().permutation(count)
        batch = select(batch, order[: option.rows].sort().values)
    return batch, ball


def _notes(option: CertificateAudit) -> list[str]:
    """What the figure is to be read with."""
    if not isinstance(option.method, Smoothing):
        return []
    return [
        "Certified is the smoothed model, which answers with the commonest answer under noise of "
        f"deviation {option.method.deviation:g}; a single answer of the model without noise is not "
        "covered."
    ]

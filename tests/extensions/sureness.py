"""An audit: how many test rows the model answers rightly and with hardly a doubt."""

from __future__ import annotations

from nacre.audit.answers import right, row_losses
from nacre.audit.bounds import clopper_pearson
from nacre.audit.finding import Finding
from nacre.audit.target import AuditProgress, Target, no_progress
from nacre.recipe import audits


def sureness(
    target: Target, option: audits.Sureness, advance: AuditProgress = no_progress
) -> Finding:
    """The share of test rows that are right at a loss of at most `option.most`."""
    assert target.test is not None  # `lacks` has refused the rest
    sure = row_losses(target.model, target.task, target.test) <= option.most
    count = int((sure & right(target.model, target.task, target.test)).sum())
    rows = len(target.test["label"])
    low, high = clopper_pearson(count, rows, option.confidence)
    advance(1, 1)
    return Finding(
        audit=option.kind,
        headline=option.headline,
        unit=option.unit,
        claim="none: nothing is promised about how sure a model is",
        measure="share of test rows answered rightly and surely",
        value=count / rows,
        low=low,
        high=high,
        confidence=option.confidence,
        verdict="measured",
        public=target.test_public,
    )

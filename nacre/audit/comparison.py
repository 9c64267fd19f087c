"""comparison.json: how good each variant of a model is on the test rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from nacre.audit.answers import answers, right, row_losses
from nacre.audit.bounds import clopper_pearson
from nacre.audit.finding import Finding
from nacre.audit.target import Target
from nacre.core.files import read_json
from nacre.core.run_folder import RunFolder
from nacre.data.dataset import Column
from nacre.figures.answers import answers_of
from nacre.figures.intervals import CONFIDENCE
from nacre.figures.measured import GroupRows, MeasuredFigures, measured
from nacre.recipe.audits import Evasion, Membership

FILE = "comparison.json"
_DEVIATIONS = 1.959964  # of the normal law that the mean of many losses follows, at 0.95


class OwnFigures(NamedTuple):
    """What was measured of the model of a run, and on whose rows."""

    facts: dict[str, Any]
    """Of the protected variant, as in comparison.json."""
    public: bool
    """Whether the rows are public: only then may it be shown to others."""


def own_figures(folder: RunFolder) -> OwnFigures | None:
    """What the last audit measured of the model of a run; None where it had no test rows. For the
    owner's eyes where it is not public. Raises `FileDamaged`."""
    for place, public in ((folder.path, True), (folder.local, False)):
        if (place / FILE).exists():
            found = read_json(place / FILE)
            return OwnFigures(found["variants"][0], public) if found["rows"] else None
    return None


def group_rows(
    columns: Sequence[Column],  # of the schema, in the order of the features
    features: Tensor,  # (N, entries) as the model reads them: categories are one-hot
    names: Sequence[str],  # of columns with categories
) -> GroupRows:
    """Which rows have which category of the named columns."""
    found: dict[str, dict[str, Any]] = {}
    start = 0
    for column in columns:
        width = len(column.entries())
        if column.name in names:
            hot = features[:, start : start + width].cpu().numpy() > 0.5
            others = ("(other)",) if column.other else ()
            found[column.name] = {
                name: np.ascontiguousarray(hot[:, i])
                for i, name in enumerate((*column.categories, *others))
            }
        start += width
    return {name: found[name] for name in names}


def variant_entry(
    name: str, target: Target, findings: Sequence[Finding], groups: GroupRows
) -> dict[str, Any]:
    """One variant's entry: accuracy or loss, what the audits found, and all figures of its task."""
    by_kind = {finding.audit: finding for finding in findings}
    return {
        "name": name,
        **_utility(target),
        "attacked_accuracy": _figure(by_kind.get(Evasion().kind)),
        "membership_advantage": _figure(by_kind.get(Membership().kind)),
        "figures": _measured(target, groups),
        "note": _NOTES[name],
    }


def _measured(target: Target, groups: GroupRows) -> MeasuredFigures | None:
    """None without test rows, and for tasks that have no more figures than the loss. All variants
    are measured on the same resamples."""
    if target.test is None or target.task.kind not in ("classification", "regression"):
        return None
    outputs = answers(target.model, target.task, target.test["features"])
    found = answers_of(target.task.kind, outputs, target.test["label"])
    return (
        measured(found, target.classes, groups, target.source.child("figures"))
        if found is not None
        else None
    )


def _utility(target: Target) -> dict[str, dict[str, float] | None]:
    """The share of test rows answered rightly, or, where answers are not right or wrong, the mean
    loss; each with its interval."""
    if target.test is None:
        return {"accuracy": None, "loss": None}
    if target.task.kind not in ("classification", "token_classification"):
        losses = row_losses(target.model, target.task, target.test)
        mean, spread = float(losses.mean()), float(losses.std()) / len(losses) ** 0.5
        reach = _DEVIATIONS * spread if len(losses) > 1 else math.inf
        found = {"value": mean, "low": mean - reach, "high": mean + reach}
        return {"accuracy": None, "loss": found if math.isfinite(mean + reach) else None}
    answered = int(right(target.model, target.task, target.test).sum())
    count = len(target.test["label"])
    low, high = clopper_pearson(answered, count, CONFIDENCE)
    return {"accuracy": {"value": answered / count, "low": low, "high": high}, "loss": None}


_NOTES = {
    "protected": "the model of this run",
    "unprotected": "the same recipe without noise, per-unit clipping and adversarial training; "
    "trained on rows declared public, so it charges nothing",
    "public base": "the model before any private row was used",
}


def _figure(finding: Finding | None) -> dict[str, float] | None:
    if finding is None:
        return None
    return {"value": finding.value, "low": finding.low, "high": finding.high}

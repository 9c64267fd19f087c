"""Who took part? Guessing the training rows of a finished model from its losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nacre.audit import bounds
from nacre.audit.answers import existing, row_losses
from nacre.audit.bounds import Counts, Interval
from nacre.audit.data_privacy.cohorts import single
from nacre.audit.data_privacy.thresholds import Scores, at_false_positives, strongest
from nacre.audit.finding import Finding, Verdict
from nacre.audit.target import AuditProgress, Target, no_progress
from nacre.core.errors import DataError, Incompatible
from nacre.core.rows import select
from nacre.core.types import Batch
from nacre.recipe.audits import Membership

ROC = (0.01, 0.05, 0.1, 0.25, 0.5)
"""False positive rates aimed at; 0.01 is the one that matters (Carlini et al. 2022)."""

_SMALLEST = 4  # rows of a cohort: two in each half


def membership(target: Target, option: Membership, advance: AuditProgress = no_progress) -> Finding:
    """How well an attacker with the model tells members from outsiders, at best of two attacks.

    `loss` calls a row a member where its loss is small (Yeom et al. 2018). `calibrated` does so
    where its loss is small *for this row*: less than that of reference models that saw neither
    cohort (Watson et al. 2022); it needs references. The value is the advantage, the true minus
    the false positive rate, of the attack and threshold that did best on one half of the rows,
    counted on the other half.

    *Guarantee:* the interval covers the advantage of the chosen rule, on rows drawn as these,
    with at least `option.confidence`. Members and outsiders are treated alike throughout. An
    honest claim is called broken in at most 5 % of runs: rows that equal others are left out, and
    no claim is judged unless each row was a member by a coin of its own (`Target.drawn`).

    Edge cases: a loss that is not finite speaks for an outsider. Where references alone tell the
    cohorts apart, members and outsiders are not of one population: then no verdict on the claim
    is given, since what was seen need not be memory.
    """
    members, outsiders, equal = _cohorts(target, option.rows)
    attacks, blind = _scores(target, members, outsiders, advance)
    name, counts, threshold = _headline(attacks, target)
    interval = bounds.advantage(counts, option.confidence)
    shift = _shift(blind, target, option.confidence)
    evidence = _epsilon(attacks[name], threshold, target, max(option.confidence, bounds.JUDGED))
    details = {
        "attack": name,
        "attacks": _each(attacks, target, option.confidence),
        "threshold": threshold,
        "members": len(members["label"]),
        "outsiders": len(outsiders["label"]),
        "equal_rows_left_out": equal,
        "measured_on": {"members": counts.members, "outsiders": counts.outsiders},
        "references": len(target.references),
        "roc": _roc(attacks[name], target),
        "tpr_at_1_percent_fpr": _tpr_at(0.01, attacks[name], target, option.confidence),
        "shift": shift,
        "epsilon": evidence,
        "notes": [*_notes(shift), *_notes_on_rows(target, equal)],
    }
    return Finding(
        audit=option.kind,
        headline=option.headline,
        unit=option.unit,
        claim=_claim(target),
        measure="membership advantage: true minus false positive rate of the better attack",
        value=counts.advantage,
        low=interval.low,
        high=interval.high,
        confidence=option.confidence,
        verdict=_verdict(interval, shift, evidence),
        public=target.members_public and target.test_public,
        details=details,
    )


def _cohorts(target: Target, most: int) -> tuple[Batch, Batch, int]:
    """At most `most` rows of each cohort, and how many rows were left out since they equal others;
    refuses a cohort that is missing or too small to halve."""
    if target.members is None or target.outsiders is None:
        raise Incompatible(
            "the membership audit needs rows that took part and rows that did not: declare a "
            "holdout or a test set in `data`, or leave `membership` out of `audit`"
        )
    members, outsiders, equal = single(existing(target.members), existing(target.outsiders))
    for name, batch in (("members", members), ("outsiders", outsiders)):
        if len(batch["label"]) < _SMALLEST:
            raise DataError(
                f"the membership audit needs at least {_SMALLEST} {name}, one half to fix the "
                f"threshold and one to measure: there are {len(batch['label'])}"
                + (f", without {equal} rows that equal others" if equal else "")
            )
    some = (_some(members, most, target, "members"), _some(outsiders, most, target, "outsiders"))
    return (*some, equal)


def _some(batch: Batch, most: int, target: Target, name: str) -> Batch:
    """The batch, or `most` of its rows drawn at random."""
    count = len(batch["label"])
    if count <= most:
        return batch
    keyed = target.source.child("membership", name).stream()
    return select(batch, keyed.permutation(count)[:most].sort().values)


def _scores(
    target: Target, members: Batch, outsiders: Batch, advance: AuditProgress
) -> tuple[dict[str, Scores], dict[str, Scores]]:
    """(attacks, blind): scores by name; blind ones never look at the target."""
    total = 1 + len(target.references)

    def both(model: nn.Module, done: int) -> tuple[Tensor, Tensor]:
        losses = tuple(row_losses(model, target.task, batch) for batch in (members, outsiders))
        advance(done, total)
        return losses[0], losses[1]

    own = both(target.model, 1)
    attacks = {"loss": Scores.of(-own[0], -own[1])}
    if not target.references:
        return attacks, {}
    pairs = [both(model, place) for place, model in enumerate(target.references, start=2)]
    hard = [torch.stack([pair[side] for pair in pairs]).mean(0) for side in (0, 1)]
    attacks["calibrated"] = Scores.of(hard[0] - own[0], hard[1] - own[1])
    blind = {"easier": Scores.of(-hard[0], -hard[1]), "harder": Scores.of(hard[0], hard[1])}
    return attacks, blind


def _halves(scores: Scores, target: Target) -> tuple[Scores, Scores]:
    """(fixing, measuring), the same rows for every attack on this target."""
    return scores.halves(target.source.child("membership", "halves"))


def _headline(attacks: Mapping[str, Scores], target: Target) -> tuple[str, Counts, float]:
    """(attack, counts, threshold): chosen on the fixing halves, counted on the measuring ones."""
    halves = {name: _halves(scores, target) for name, scores in attacks.items()}
    name, fixed = strongest({name: fixing for name, (fixing, _) in halves.items()})
    return name, halves[name][1].counts(fixed.threshold), fixed.threshold


def _each(
    attacks: Mapping[str, Scores], target: Target, confidence: float
) -> dict[str, dict[str, float]]:
    """Each attack by itself; the intervals hold one at a time, not all at once."""
    result: dict[str, dict[str, float]] = {}
    for name, scores in attacks.items():
        _, counts, threshold = _headline({name: scores}, target)
        low, high = bounds.advantage(counts, confidence)
        result[name] = {
            "advantage": counts.advantage,
            "low": low,
            "high": high,
            "tpr": counts.tpr,
            "fpr": counts.fpr,
            "threshold": threshold,
        }
    return result


def _roc(scores: Scores, target: Target) -> list[dict[str, float]]:
    """A few points of the curve: thresholds from the fixing half, rates from the measuring one."""
    fixing, measuring = _halves(scores, target)
    thresholds = [at_false_positives(fixing, rate) for rate in ROC]
    counts = [measuring.counts(threshold) for threshold in thresholds if threshold is not None]
    return [{"fpr": count.fpr, "tpr": count.tpr} for count in counts]


def _tpr_at(
    rate: float, scores: Scores, target: Target, confidence: float
) -> dict[str, float] | None:
    """The true positive rate at a false positive rate; None where the sample is too small."""
    fixing, measuring = _halves(scores, target)
    threshold = at_false_positives(fixing, rate)
    if threshold is None:
        return None
    counts = measuring.counts(threshold)
    low, high = bounds.clopper_pearson(counts.true_positives, counts.members, confidence)
    return {"fpr": counts.fpr, "tpr": counts.tpr, "low": low, "high": high}


def _shift(blind: Mapping[str, Scores], target: Target, confidence: float) -> dict[str, Any] | None:
    """Whether models that saw neither cohort tell them apart: then the cohorts differ by nature.

    None without references. *Source:* Das, Zhang & Tramèr 2024, blind baselines.
    """
    if not blind:
        return None
    name, counts, _ = _headline(blind, target)
    low, high = bounds.advantage(counts, confidence)
    return {
        "members_look": name,
        "advantage": counts.advantage,
        "low": low,
        "high": high,
        "detected": not low <= 0 <= high,
    }


def _epsilon(
    scores: Scores, threshold: float, target: Target, confidence: float
) -> dict[str, Any] | None:
    """Lower bounds on epsilon, to stand beside the claimed one; None where nothing is claimed.

    `one_run` decides: it allows for rows that share a model. `independent_rows` is the figure
    most papers print; it takes each row as a trial of its own.
    """
    if target.claimed_epsilon is None or target.claimed_delta is None or target.drawn != "row":
        return None
    measuring = _halves(scores, target)[1]
    delta = target.claimed_delta
    return {
        "claimed": target.claimed_epsilon,
        "delta": delta,
        "one_run": bounds.epsilon_from_one_run(
            measuring.balanced().counts(threshold), delta, confidence
        ),
        "independent_rows": bounds.epsilon_from_rates(
            measuring.counts(threshold), delta, confidence
        ),
    }


def _verdict(
    interval: Interval,
    shift: Mapping[str, Any] | None,
    evidence: Mapping[str, Any] | None,
) -> Verdict:
    """What may be said: a claim is judged only where both cohorts are of one population."""
    if shift is not None and shift["detected"]:
        return "measured"
    if evidence is not None and evidence["one_run"] > evidence["claimed"]:
        return "broken"
    if interval.low <= 0 <= interval.high:
        return "not distinguishable from none"
    return "measured" if evidence is None else "holds"


def _notes(shift: Mapping[str, Any] | None) -> list[str]:
    """What a reader has to know to take the figure for what it is."""
    if shift is None:
        return [
            "no reference model: whether members and outsiders are of one population was not "
            "checked, and only the loss threshold was tried"
        ]
    if shift["detected"]:
        return [
            "models that saw neither cohort tell members from outsiders too: they are not of one "
            "population, so this figure is no evidence of memory and no claim is judged by it"
        ]
    return []


def _notes_on_rows(target: Target, equal: int) -> list[str]:
    """What the cohorts leave out, and whether they allow a claim to be judged."""
    notes: list[str] = []
    if equal:
        notes.append(
            f"{equal} rows that equal other rows were left out: no coin was thrown for one of them "
            "alone"
        )
    if target.claimed_epsilon is None or target.drawn == "row":
        return notes
    why = {
        "group": "rows of one group went in or stayed out together",
        "apart": "the rows that stayed out come from another file",
    }[target.drawn]
    return [*notes, f"{why}, so the claim about one row is not judged by this figure"]


def _claim(target: Target) -> str:
    if target.claimed_epsilon is None:
        return "none: nothing bounds what the model gives away about a row"
    return (
        f"one row moves no probability by more than epsilon={target.claimed_epsilon:.4g} "
        f"at delta={target.claimed_delta:.3g}"
    )

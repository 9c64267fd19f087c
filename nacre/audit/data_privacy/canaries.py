"""Does the model know the random secrets of this run? Their exposure, and the epsilon it shows."""

# Parts of torch are untyped, scipy's distributions are typed in part.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from nacre.audit import bounds
from nacre.audit.answers import row_losses
from nacre.audit.finding import Finding, Verdict
from nacre.audit.target import AuditProgress, Target, no_progress
from nacre.core.errors import Incompatible
from nacre.core.types import Batch
from nacre.recipe.audits import CanaryAudit


def canaries(target: Target, option: CanaryAudit, advance: AuditProgress = no_progress) -> Finding:
    """How much likelier the model finds the canaries it was trained on than others like them.

    The *exposure* of a canary is log2 of the number of documents like it over its rank among
    them by loss: 1 bit and a half on average for a secret that the model never saw, and at most
    log2 of their number. The value is the mean exposure of the canaries that went in, minus that
    of the canaries that a coin left out, which carry whatever the form of the text does.

    *Guarantee:* the interval (Welch) covers the difference of the means with about
    `option.confidence`. The lower bound on epsilon holds with `option.confidence`, and at least
    0.95, in this one run, since each canary went in by a fair coin of its own; it guesses the most
    and the least exposed quarter, so nothing is chosen by looking.

    Edge cases: equal losses share the worse rank; a loss that is not finite counts as the largest.

    *Sources:* Carlini et al. 2019, "The Secret Sharer", definition 1; Steinke, Nasr & Jagielski
    2023, theorem 5.2.
    """
    held = target.canaries
    if held is None:
        raise Incompatible(
            "the canaries audit needs canaries among the documents; declare `data: {canaries: "
            "{count: 32}}`, or leave it out"
        )
    exposures, scores = _exposures(target, held.batches, advance)
    within = torch.tensor(held.inserted)
    inside, outside = exposures[within], exposures[~within]
    largest = math.log2(held.candidates + 1)
    low, high, value = _difference(inside, outside, largest, option.confidence)
    evidence = None if held.claimed is None else _epsilon(
        held.claimed, scores, within, max(option.confidence, bounds.JUDGED)
    )  # fmt: skip
    return Finding(
        audit=option.kind,
        headline=option.headline,
        unit=option.unit,
        claim=_claim(held.claimed),
        measure="exposure of canaries in bits, beyond that of canaries left out",
        value=value,
        low=low,
        high=high,
        confidence=option.confidence,
        verdict=_verdict(low, high, evidence),
        # Canaries are random, and their losses are functions of the released model alone.
        public=True,
        details={
            "inserted": int(within.sum()),
            "left_out": int((~within).sum()),
            "candidates": held.candidates,
            "largest": largest,
            "exposure_inserted": _listed(inside),
            "exposure_left_out": _listed(outside),
            "epsilon": evidence,
            "notes": _notes(held.candidates, evidence),
        },
    )


def _exposures(
    target: Target, batches: tuple[Batch, ...], advance: AuditProgress
) -> tuple[Tensor, Tensor]:
    """(exposures, scores), (n,) float64 each; the first row of a batch is the canary itself.

    The score is how many deviations its loss lies below the mean of the others: it separates
    canaries that all have the first rank.
    """
    exposures: list[float] = []
    scores: list[float] = []
    for place, batch in enumerate(batches):
        losses = row_losses(target.model, target.task, batch).nan_to_num(nan=math.inf)
        own, rest = losses[0], losses[1:]
        rank = 1 + int((rest <= own).sum())
        exposures.append(math.log2(len(losses)) - math.log2(rank))
        score = float((rest.mean() - own) / rest.std().clamp(min=1e-12))
        scores.append(score if math.isfinite(score) else -math.inf)
        advance(place + 1, len(batches))
    return torch.tensor(exposures, dtype=torch.float64), torch.tensor(scores, dtype=torch.float64)


def _difference(
    inside: Tensor,
    outside: Tensor,
    largest: float,  # exposure that there is
    confidence: float,
) -> tuple[float, float, float]:
    """(low, high, value) of the difference of two means."""
    counts = [len(inside), len(outside)]
    if min(counts) == 0:
        return -largest, largest, 0.0  # the coins left one side empty: nothing can be said
    value = float(inside.mean() - outside.mean())
    if min(counts) < 2:
        return value - largest, value + largest, value
    shares = [float(side.var()) / len(side) for side in (inside, outside)]
    spread = math.sqrt(sum(shares))
    if spread == 0:  # all at one rank, as where all are known: Hoeffding's inequality stays true
        reach = largest * math.sqrt(math.log(2 / (1 - confidence)) / 2 * sum(1 / n for n in counts))
        return value - reach, value + reach, value
    freedom = sum(shares) ** 2 / sum(
        share**2 / (n - 1) for share, n in zip(shares, counts, strict=True)
    )
    reach = float(stats.t.ppf((1 + confidence) / 2, freedom)) * spread
    return value - reach, value + reach, value


def _epsilon(
    claimed: tuple[float, float], scores: Tensor, within: Tensor, confidence: float
) -> dict[str, Any]:
    """Lower bounds from guessing the most exposed quarter in, and the least exposed quarter out."""
    epsilon, delta = claimed
    guessed = len(scores) // 4
    order = scores.argsort(stable=True)
    out, into = order[:guessed], order[len(order) - guessed :]
    right = int(within[into].sum()) + int((~within[out]).sum())
    counts = bounds.Counts(
        true_positives=int(within[into].sum()), members=int(within.sum()),
        false_positives=int((~within[into]).sum()), outsiders=int((~within).sum()),
    )  # fmt: skip
    return {
        "claimed": epsilon,
        "provable": bounds.epsilon_from_guesses(
            len(scores), 2 * guessed, 2 * guessed, delta, confidence
        ),
        "delta": delta,
        "one_run": bounds.epsilon_from_guesses(len(scores), 2 * guessed, right, delta, confidence),
        "independent_rows": bounds.epsilon_from_rates(counts, delta, confidence),
    }


def _verdict(low: float, high: float, evidence: dict[str, Any] | None) -> Verdict:
    if evidence is not None and evidence["one_run"] > evidence["claimed"]:
        return "broken"
    if low <= 0 <= high:
        return "not distinguishable from none"
    if evidence is None or evidence["provable"] <= evidence["claimed"]:
        return "measured"  # not even a model that knows them all could contradict the claim
    return "holds"


def _claim(claimed: tuple[float, float] | None) -> str:
    if claimed is None:
        return "none: no epsilon is promised for one canary as a whole"
    return "one canary moves no probability by more than epsilon={:.4g} at delta={:.3g}".format(
        *claimed
    )


def _listed(exposures: Tensor) -> list[float]:
    values: list[float] = exposures.sort(descending=True).values.tolist()
    return [round(value, 3) for value in values]


def _notes(candidates: int, evidence: dict[str, Any] | None) -> list[str]:
    found = [
        f"ranked among {candidates} others, a canary's exposure cannot exceed "
        f"{math.log2(candidates + 1):.1f} bits",
        "in short runs canaries that stand in the data once mostly show nothing: an exposure near "
        "none is no proof that other secrets are safe",
    ]
    if evidence is not None and evidence["provable"] <= evidence["claimed"]:
        found.append(
            f"this number of canaries shows an epsilon of {evidence['provable']:.2f} at most, "
            f"which is below the claimed {evidence['claimed']:.4g}: no claim is judged; "
            "use more canaries"
        )
    if evidence is None:
        found.append("no epsilon is promised for one canary, so no claim is judged")
    return found

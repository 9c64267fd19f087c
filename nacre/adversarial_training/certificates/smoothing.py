"""Randomized smoothing: the answer that a model gives most often under Gaussian noise cannot
change within a radius, whatever the model is (Cohen, Rosenfeld & Kolter 2019,
https://arxiv.org/abs/1902.02918).

What is certified is the smoothed model, which answers with the commonest of the base model's
answers at x + N(0, deviation² I). Noise and votes are post-processing of a released model: they
cost no epsilon.

*Rounding:* the theorem speaks of real numbers. Noise of 24 bits keeps bits when it is added to 0
that it loses when it is added to 0.02, so a model can be built that tells the two apart and breaks
what was certified (Voráček & Hein 2023, https://arxiv.org/abs/2207.07209). So noise and sum have 53
bits here, and the sum is rounded once to what the model reads, which is the rounded real sum in all
but about one of 1e7 entries. What a model built for those could tell is not charged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import special, stats  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor

from nacre.adversarial_training.evaluation.access import LabelOnly
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.core.random import Source

ABSTAINED = -1.0
"""The radius of a row whose smoothed answer is wrong or not known surely enough."""

LOOKS = ((0.01, 0.1), (0.1, 0.1), (1.0, 0.8))
"""(share of the samples, share of the failure probability) of each look at the votes."""

DROPPED = 1e-3
"""At most how likely one look drops a row that a radius could yet be certified of."""

VoteProgress = Callable[[int, int], None]
"""(rows decided, rows): called after each look."""


@dataclass(frozen=True, kw_only=True)
class VoteCount:
    """How the votes are taken."""

    deviation: float  # of the noise on each entry of an input
    samples: int  # votes of a row that is not decided earlier
    guesses: int  # votes that choose the class to be certified
    failure: float  # how likely a row may get a radius that is too large, each row for itself
    width: int = 1024  # noisy inputs evaluated at once


def certified_radii(
    model: LabelOnly,
    rows: Inputs,
    wanted: Tensor,  # (G, R) radii that are asked about
    count: VoteCount,
    source: Source,
    told: VoteProgress | None = None,
) -> tuple[Tensor, Tensor]:  # (R,) float64 L2 radii or `ABSTAINED`, (R,) int64 votes taken
    """For each row a radius inside which the smoothed answer is the right one.

    *Guarantee:* each radius is at most the true one with probability at least 1 - failure over
    the noise, for each row whatever the others are. With p the chance of the right class under
    noise, the true radius is at least deviation * Phi^-1(p) (Cohen, theorem 1 with the second
    class bounded by 1 - p). p is bounded below by Clopper and Pearson at each of `LOOKS`; a look
    may be wrong with its share of `failure`, so all are right together with 1 - failure, and the
    largest radius counts.

    *Early ends:* a row is not certified at all where the guess is not its label. After a look it
    ends where it has the largest radius wanted, and as hopeless where the next one is out of reach
    even if all votes to come are right, or where so few votes are less likely than `DROPPED` if its
    p reached that radius. A row that ends has looked less often, so it never gets a radius that it
    would not have got in the end: ending early costs none of the failure probability, only (in the
    last case) a radius that would have come with later votes.

    A row's noise is keyed by its unit: its neighbours change nothing.
    """
    goals = wanted.double().sort(0).values.T.tolist()
    radius = torch.full((len(rows),), ABSTAINED, dtype=torch.float64)
    right, seen, taken = (torch.zeros(len(rows), dtype=torch.int64) for _ in range(3))
    draws = [_Noise(source, int(unit)) for unit in rows.unit]
    guessed = _votes(model, rows, torch.arange(len(rows)), count.guesses, draws, "guess", count)
    taken += count.guesses
    left = (guessed == rows.label[:, None]).sum(1) > 0
    left &= _commonest(guessed) == rows.label
    for share, spent in LOOKS:
        work = left.nonzero().squeeze(1)
        more = max(1, round(share * count.samples)) - (int(seen[work[0]]) if len(work) else 0)
        if len(work) and more > 0:
            votes = _votes(model, rows, work, more, draws, "estimate", count)
            right[work] += (votes == rows.label[work][:, None]).sum(1)
            seen[work] += more
            taken[work] += more
            for row in work.tolist():
                hits, all_ = int(right[row]), int(seen[row])
                found = radius_of(hits, all_, count.failure * spent, count.deviation)
                radius[row] = max(float(radius[row]), found)
                left[row] = not _decided(float(radius[row]), hits, all_, goals[row], count)
        if told is not None:
            told(len(rows) - int(left.sum()), len(rows))
    return radius, taken


def radius_of(right: int, seen: int, failure: float, deviation: float) -> float:
    """The radius that follows from `right` of `seen` votes, or `ABSTAINED`.

    >>> round(radius_of(100_000, 100_000, 0.001, 0.5), 3)  # Cohen et al.: about 4 deviations
    1.906
    """
    if not right:
        return ABSTAINED
    least = float(stats.beta.ppf(failure, right, seen - right + 1))
    return deviation * float(special.ndtri(least)) if least > 0.5 else ABSTAINED


def largest_radius(count: VoteCount) -> float:
    """The radius of a row all of whose votes are right: no row gets a larger one.

    >>> count = VoteCount(deviation=0.5, samples=10_000, guesses=100, failure=0.001)
    >>> round(largest_radius(count), 2)
    1.59
    """
    looks = [(max(1, round(share * count.samples)), spent) for share, spent in LOOKS]
    return max(
        radius_of(seen, seen, count.failure * spent, count.deviation) for seen, spent in looks
    )


def _decided(
    radius: float, right: int, seen: int, goals: Sequence[float], count: VoteCount
) -> bool:
    """Whether no later vote is needed, or hopeful."""
    if not goals:
        return False
    missing = [goal for goal in goals if not radius > goal]
    if not missing:
        return True
    spent = count.failure * LOOKS[-1][1]
    most = radius_of(right + count.samples - seen, count.samples, spent, count.deviation)
    if not most > missing[0]:
        return True
    chance = float(special.ndtr(missing[0] / count.deviation))
    return float(special.bdtr(right, seen, chance)) < DROPPED


class _Noise:
    """One row's normal numbers: a stream for each purpose, each going on where it ended."""

    def __init__(self, source: Source, unit: int) -> None:
        self._streams = {
            name: np.random.Generator(np.random.PCG64(source.number(name, unit)))
            for name in ("guess", "estimate")
        }

    def around(self, name: str, count: int, clean: Tensor, deviation: float) -> Tensor:
        """(count, *shape): the row with noise, summed in float64 and rounded once."""
        drawn = self._streams[name].standard_normal((count, *clean.shape))
        noise = torch.from_numpy(drawn)  # pyright: ignore[reportUnknownMemberType]
        return noise.mul_(deviation).add_(clean.cpu().double()).to(clean)


def _votes(
    model: LabelOnly,
    rows: Inputs,
    work: Tensor,  # (W,) places in `rows`
    each: int,
    draws: Sequence[_Noise],
    name: str,
    count: VoteCount,
) -> Tensor:  # (W, each) int64
    """The base model's answers at noisy copies of each row."""
    together = max(1, count.width // each)
    found = [torch.zeros(0, each, dtype=torch.int64)]
    for part in work.split(together):
        if not len(part):
            continue
        votes: list[Tensor] = []
        for begun in range(0, each, count.width):
            size = min(count.width, each - begun)
            noisy = [
                draws[i].around(name, size, rows.clean[i], count.deviation) for i in part.tolist()
            ]
            votes.append(model.labels(torch.cat(noisy)).reshape(len(part), size).cpu())
        found.append(torch.cat(votes, 1))
    return torch.cat(found)


def _commonest(votes: Tensor) -> Tensor:
    """(W, n) -> (W,): the answer that was given most often, the smallest of equally common ones;
    answers that are no number (-1) count for nothing."""
    classes = int(votes.max()) + 1 if votes.numel() else 0
    if classes < 1:
        return torch.full((len(votes),), -1)
    counts = torch.stack([(votes == number).sum(1) for number in range(classes)], 1)
    return torch.where(counts.amax(1) > 0, counts.argmax(1), -1)

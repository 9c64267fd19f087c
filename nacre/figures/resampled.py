"""The same figures on many resamples at once: each row counted as often as a resample drew it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nacre.core.random import Stream
from nacre.figures.answers import AnyAnswers, ClassAnswers, Ints, NumberAnswers, Reals
from nacre.figures.names import FigureName
from nacre.figures.values import BINS, confidence, of_interest

_Bools = npt.NDArray[np.bool_]
_Ranked = Callable[[Reals, Reals], Reals]


def drawn_counts(
    strata: Ints,  # (N,) the stratum of each row
    resamples: int,
    stream: Stream,
) -> Reals:  # (resamples, N) how often each row was drawn
    """Resamples with replacement, within each stratum as many rows as it has.

    *Source:* Davison & Hinkley 1997, "Bootstrap Methods and their Application", section 3.2.
    """
    counts = np.zeros((resamples, len(strata)))
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        uniform = stream.uniform(resamples, len(rows)).numpy()
        drawn = np.minimum((uniform * len(rows)).astype(np.int64), len(rows) - 1)
        cells = drawn + np.arange(resamples)[:, None] * len(rows)
        found = np.bincount(cells.reshape(-1), minlength=resamples * len(rows))
        counts[:, rows] = found.reshape(resamples, len(rows))
    return counts


def resampled(
    name: FigureName,
    answers: AnyAnswers,  # that have this figure
    counts: Reals,  # (R, N), each row of it with every class that occurs
) -> Reals:  # (R,)
    """The figure of each resample. With counts of 1 it is `nacre.figures.values.value`, as with any
    counts it is what scikit-learn gives to `sample_weight`.

    Raises `ValueError` for a figure of another task.
    """
    if isinstance(answers, ClassAnswers):
        return _of_classes(name, answers, counts)
    return _of_numbers(name, answers, counts)


def _of_classes(name: FigureName, answers: ClassAnswers, counts: Reals) -> Reals:
    label, guessed = answers.label, answers.guessed
    match name:
        case "accuracy":
            return _mean(counts, (label == guessed).astype(np.float64))
        case "balanced_accuracy":
            recalls = [_share(counts, label == k, guessed == k) for k in answers.occurring]
            return np.mean(recalls, axis=0)
        case "f1":
            found = [_f1(counts, label == k, guessed == k) for k in of_interest(answers)]
            return np.mean(found, axis=0)
        case "auroc":
            return _by_rank(answers, counts, _auroc)
        case "average_precision":
            return _by_rank(answers, counts, _average_precision)
        case "brier":
            distance = ((answers.probabilities - np.eye(answers.classes)[label]) ** 2).sum(1)
            return _mean(counts, distance / (2 if answers.classes == 2 else 1))
        case "calibration_error":
            place, sure, right = confidence(answers)
            gaps = np.zeros((len(label), BINS))
            gaps[np.arange(len(label)), place] = right - sure
            return np.abs(counts @ gaps).sum(1) / counts.sum(1)
        case _:
            raise ValueError(f"classes have no figure {name!r}")


def _of_numbers(name: FigureName, answers: NumberAnswers, counts: Reals) -> Reals:
    label = answers.label
    error = label - answers.predicted
    match name:
        case "mae":
            return _mean(counts, np.abs(error))
        case "rmse":
            return np.sqrt(_mean(counts, error**2))
        case "r2":
            total, far = counts.sum(1), label - label.mean()  # about the mean: no large squares
            spread = counts @ far**2 - (counts @ far) ** 2 / total
            with np.errstate(divide="ignore"):  # a resample of equal targets has no R²
                return np.where(spread > 0, 1 - (counts @ error**2) / spread, -np.inf)
        case _:
            raise ValueError(f"numbers have no figure {name!r}")


def _mean(counts: Reals, values: Reals) -> Reals:
    return (counts @ values) / counts.sum(1)


def _share(counts: Reals, of: _Bools, those: _Bools) -> Reals:
    """(R,) the share of the rows in `of` that are in `those` too."""
    return (counts @ (of & those).astype(np.float64)) / (counts @ of.astype(np.float64))


def _f1(counts: Reals, actual: _Bools, guessed: _Bools) -> Reals:
    both = counts @ (actual & guessed).astype(np.float64)
    return 2 * both / (counts @ actual.astype(np.float64) + counts @ guessed.astype(np.float64))


def _by_rank(answers: ClassAnswers, counts: Reals, score: _Ranked) -> Reals:
    """(R,) the mean over classes of a score of (rows of the class, others) at each distinct score,
    the highest first."""
    found: list[Reals] = []
    for k in of_interest(answers):
        scores = answers.probabilities[:, k]
        order = np.argsort(-scores, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
        own = (answers.label == k)[order]
        ranked = counts[:, order]
        found.append(
            score(
                np.add.reduceat(ranked * own, starts, axis=1),
                np.add.reduceat(ranked * ~own, starts, axis=1),
            )
        )
    return np.mean(found, axis=0)


def _auroc(own: Reals, others: Reals) -> Reals:
    """The chance that a row of the class is ranked above another; ties count by half (Mann and
    Whitney 1947)."""
    above = np.cumsum(own, axis=1) - own / 2
    return (others * above).sum(1) / (own.sum(1) * others.sum(1))


def _average_precision(own: Reals, others: Reals) -> Reals:
    """The precision at each distinct score, weighted by the recall gained there."""
    found, seen = np.cumsum(own, axis=1), np.cumsum(own + others, axis=1)
    precision = np.divide(found, seen, out=np.zeros_like(seen), where=seen > 0)
    return (own * precision).sum(1) / own.sum(1)

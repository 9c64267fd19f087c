"""The value of a figure, by scikit-learn; the calibration error, which it lacks, by its source.

With two classes `average_precision` and `f1` are those of the second class that the recipe lists,
and `brier` is the mean squared error of its probability. With more classes they are the plain mean
over the classes that occur, each against the rest, and `brier` is the sum over classes (Brier
1950), from 0 to 2.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nacre.figures.answers import AnyAnswers, ClassAnswers, Ints, NumberAnswers, Reals
from nacre.figures.names import FigureName
from nacre.figures.undefined import why_undefined

BINS = 15
"""Of confidence, of equal width, as in the source."""


def value(name: FigureName, answers: AnyAnswers) -> float | None:
    """The figure; None where `why_undefined` says why. `loss` is the task's own, never asked here.

    Raises `ValueError` for a figure of another task.
    """
    if why_undefined(name, answers) is not None:
        return None
    if isinstance(answers, ClassAnswers):
        return _of_classes(name, answers)
    return _of_numbers(name, answers)


def _of_classes(name: FigureName, answers: ClassAnswers) -> float:
    from sklearn import metrics  # a second to import, which a run without figures need not wait for

    label, guessed, chances = answers.label, answers.guessed, answers.probabilities
    match name:
        case "accuracy":
            return float(metrics.accuracy_score(label, guessed))
        case "balanced_accuracy":  # mean recall of the classes that occur
            classes = answers.occurring
            return float(metrics.recall_score(label, guessed, labels=classes, average="macro"))
        case "f1":
            classes = of_interest(answers)
            return float(metrics.f1_score(label, guessed, labels=classes, average="macro"))
        case "auroc":
            return _mean(metrics.roc_auc_score, answers)
        case "average_precision":
            return _mean(metrics.average_precision_score, answers)
        case "brier":
            right = np.eye(answers.classes)[label]
            each = float(metrics.mean_squared_error(right, chances))  # the mean over classes too
            return each * answers.classes / (2 if answers.classes == 2 else 1)
        case "calibration_error":
            return calibration_error(*confidence(answers))
        case _:
            raise ValueError(f"classes have no figure {name!r}")


def _of_numbers(name: FigureName, answers: NumberAnswers) -> float:
    from sklearn import metrics

    label, predicted = answers.label, answers.predicted
    match name:
        case "mae":
            return float(metrics.mean_absolute_error(label, predicted))
        case "rmse":
            return float(metrics.mean_squared_error(label, predicted)) ** 0.5
        case "r2":
            return float(metrics.r2_score(label, predicted))
        case _:
            raise ValueError(f"numbers have no figure {name!r}")


def of_interest(answers: ClassAnswers) -> list[int]:
    """The classes that a mean over classes is taken of: of two the second, else all that occur."""
    return [1] if answers.classes == 2 else answers.occurring


def _mean(score: Callable[[Ints, Reals], float], answers: ClassAnswers) -> float:
    """The mean of a binary score, each class against the rest."""
    found = [
        float(score((answers.label == k).astype(np.int64), answers.probabilities[:, k]))
        for k in of_interest(answers)
    ]
    return sum(found) / len(found)


def confidence(answers: ClassAnswers) -> tuple[Ints, Reals, Reals]:
    """(bin of each row, its confidence, 1 where it is right): what calibration is judged by. The
    confidence is the largest probability; a bin holds its upper end."""
    sure = answers.probabilities.max(1)
    place = np.clip(np.ceil(sure * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return place, sure, (answers.guessed == answers.label).astype(np.float64)


def calibration_error(place: Ints, sure: Reals, right: Reals) -> float:
    """The expected calibration error: how far confidence and accuracy lie apart in a bin, averaged
    over the rows. Small samples raise it: each bin's share differs from its chance by chance.

    *Source:* Guo, Pleiss, Sun & Weinberger 2017, "On Calibration of Modern Neural Networks",
    equation 5.
    """
    gaps = np.bincount(place, weights=right - sure, minlength=BINS)
    return float(np.abs(gaps).sum() / len(place))

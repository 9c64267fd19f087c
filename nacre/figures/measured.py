"""All figures of a model on a set of rows: of the whole, by class, by group, and by confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

import numpy as np
import numpy.typing as npt

from nacre.core.random import Source
from nacre.figures.answers import AnyAnswers, ClassAnswers
from nacre.figures.intervals import MeasuredFigure, measured_figure, share_of
from nacre.figures.names import FigureName, figures_of
from nacre.figures.values import BINS, confidence

MOST_CLASSES = 50
"""More classes than these are not told one by one."""

GroupRows = Mapping[str, Mapping[str, npt.NDArray[np.bool_]]]
"""Column -> its values -> which rows have that value, (N,) bool."""

_BY_CLASS: tuple[FigureName, ...] = ("auroc", "average_precision", "f1")


class CurvePoint(TypedDict):
    """A figure on public rows after a round (or step)."""

    round: int
    accuracy: NotRequired[float]
    loss: NotRequired[float]
    """Mean loss, in nats for classes and tokens."""
    balanced_accuracy: NotRequired[float]
    """As the others below: where the recipe names it, and the rows define it."""
    auroc: NotRequired[float]
    average_precision: NotRequired[float]
    f1: NotRequired[float]
    brier: NotRequired[float]
    calibration_error: NotRequired[float]
    mae: NotRequired[float]
    rmse: NotRequired[float]
    r2: NotRequired[float]
    fgsm: NotRequired[float]
    """Accuracy under FGSM, where a guard watches the training; so `pgd`."""
    pgd: NotRequired[float]


class ClassFigures(TypedDict):
    """One class against the others."""

    name: str
    rows: int
    figures: dict[str, MeasuredFigure]
    """`recall`, `precision`, `auroc`, `average_precision` and `f1`."""


class GroupFigures(TypedDict):
    """The rows that have one value in a declared column."""

    column: str
    name: str
    rows: int
    figures: dict[str, MeasuredFigure]


class ConfidenceBin(TypedDict):
    """Rows about whose answers the model is about equally sure."""

    low: float
    """Of the confidence, not included; the upper end is."""
    high: float
    rows: int
    confidence: float | None
    """Their mean confidence; null without rows."""
    right: MeasuredFigure
    """The share of them that is right."""


class MeasuredFigures(TypedDict):
    """Everything measured of a model on a set of rows."""

    rows: int
    figures: dict[str, MeasuredFigure]
    """Of all rows."""
    classes: list[ClassFigures]
    """`[]` where answers are numbers, or more than 50 classes."""
    groups: list[GroupFigures]
    """`[]` where the recipe declares no columns under `evaluate.groups`."""
    bins: list[ConfidenceBin]
    """By confidence, the least first; `[]` where answers are numbers, or one is no number."""
    confusion: list[list[int]]
    """Rows of class i that were answered by class j; `[]` as `classes`. An answer that is no number
    is in no column."""


def measured(
    answers: AnyAnswers,
    classes: Sequence[str],  # their names, in the order of the model's outputs
    groups: GroupRows,
    source: Source,
) -> MeasuredFigures:
    """Every figure of the task, with intervals that the same source draws again."""
    by_class = answers if isinstance(answers, ClassAnswers) else None
    few = by_class if by_class is not None and by_class.classes <= MOST_CLASSES else None
    return {
        "rows": len(answers),
        "figures": _figures(answers, source.child("whole")),
        "classes": _by_class(few, classes, source.child("class")) if few is not None else [],
        "groups": [
            {
                "column": column,
                "name": name,
                "rows": int(rows.sum()),
                "figures": _figures(answers.take(rows), source.child("group", column, name)),
            }
            for column, values in groups.items()
            for name, rows in values.items()
        ],
        "bins": _bins(by_class) if by_class is not None else [],
        "confusion": _confusion(few) if few is not None else [],
    }


def _figures(answers: AnyAnswers, source: Source) -> dict[str, MeasuredFigure]:
    """Of the loss the comparison speaks itself."""
    task = "classification" if isinstance(answers, ClassAnswers) else "regression"
    return {
        name: measured_figure(name, answers, source) for name in figures_of(task) if name != "loss"
    }


def _by_class(answers: ClassAnswers, names: Sequence[str], source: Source) -> list[ClassFigures]:
    found: list[ClassFigures] = []
    for k in range(answers.classes):
        own, guessed = answers.label == k, answers.guessed == k
        both = int((own & guessed).sum())
        chance = answers.probabilities[:, k]
        against = ClassAnswers(np.stack([1 - chance, chance], axis=1), own.astype(np.int64))
        figures = {
            "recall": share_of(both, int(own.sum()), "no row is of this class"),
            "precision": share_of(both, int(guessed.sum()), "no answer is this class"),
        }
        for name in _BY_CLASS:
            other = against if name != "f1" else _as_guessed(own, guessed)
            figures[name] = measured_figure(name, other, source.child(k))
        name = names[k] if k < len(names) else str(k)
        found.append({"name": name, "rows": int(own.sum()), "figures": figures})
    return found


def _as_guessed(own: npt.NDArray[np.bool_], guessed: npt.NDArray[np.bool_]) -> ClassAnswers:
    """Certain answers: a class is guessed where it is the likeliest, not where it passes a half."""
    sure = guessed.astype(np.float64)
    return ClassAnswers(np.stack([1 - sure, sure], axis=1), own.astype(np.int64))


def _bins(answers: ClassAnswers) -> list[ConfidenceBin]:
    if not len(answers) or not answers.whole.all():
        return []
    place, sure, right = confidence(answers)
    found: list[ConfidenceBin] = []
    for number in range(BINS):
        rows = place == number
        count = int(rows.sum())
        found.append(
            {
                "low": number / BINS,
                "high": (number + 1) / BINS,
                "rows": count,
                "confidence": float(sure[rows].mean()) if count else None,
                "right": share_of(int(right[rows].sum()), count, "no answer is this sure"),
            }
        )
    return found


def _confusion(answers: ClassAnswers) -> list[list[int]]:
    table = np.zeros((answers.classes, answers.classes + 1), dtype=np.int64)
    np.add.at(table, (answers.label, answers.guessed), 1)  # -1 falls into the last column
    found: list[list[int]] = table[:, :-1].tolist()
    return found

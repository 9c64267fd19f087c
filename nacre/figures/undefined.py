"""When a figure has no value, and why."""

from __future__ import annotations

from nacre.figures.answers import AnyAnswers, ClassAnswers
from nacre.figures.names import FigureName

_BY_PROBABILITY = ("auroc", "average_precision", "brier", "calibration_error", "mae", "rmse", "r2")
_NEED_TWO_CLASSES = ("auroc", "average_precision", "balanced_accuracy", "f1")


def why_undefined(name: FigureName, answers: AnyAnswers) -> str | None:
    """Why these answers have no such figure, in a few words; None where they have one.

    Ranks, balanced accuracy and F1 compare classes, so two must occur. An answer that is no number
    is a wrong one, but it has no distance and no rank.
    """
    if not len(answers):
        return "there are no rows"
    odd = int((~answers.whole).sum())
    if odd and name in _BY_PROBABILITY:
        return f"{odd} of {len(answers)} answers are no numbers"
    if isinstance(answers, ClassAnswers):
        if name in _NEED_TWO_CLASSES and len(answers.occurring) < 2:
            return "all rows are of one class"
    elif name == "r2" and (answers.label == answers.label[0]).all():
        return "all rows have the same target"
    return None

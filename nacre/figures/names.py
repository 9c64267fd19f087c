"""The figures that a recipe can name, which tasks they belong to, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

FigureName = Literal[
    "loss", "accuracy", "balanced_accuracy", "auroc", "average_precision", "f1", "brier",
    "calibration_error", "mae", "rmse", "r2",
]  # fmt: skip
"""Every figure that `evaluate`, `stop` and `tune` take."""

FIGURE_NAMES: tuple[FigureName, ...] = get_args(FigureName)


@dataclass(frozen=True)
class FigureKind:
    """What is known of a figure before it is computed."""

    words: str
    """What it is called."""
    higher: bool
    """Whether a higher value is the better one."""
    tasks: tuple[str, ...]
    """The tasks that have it."""
    share: bool = False
    """Whether it reads as a share of rows, from 0 to 1."""


_CLASSES, _NUMBERS = ("classification",), ("regression",)
_ANY = ("classification", "token_classification", "causal_lm", "regression")

KINDS: dict[FigureName, FigureKind] = {
    "loss": FigureKind("loss", False, _ANY),
    "accuracy": FigureKind("accuracy", True, ("classification", "token_classification"), True),
    "balanced_accuracy": FigureKind("balanced accuracy", True, _CLASSES, True),
    "auroc": FigureKind("AUROC", True, _CLASSES),
    "average_precision": FigureKind("average precision", True, _CLASSES),
    "f1": FigureKind("F1", True, _CLASSES),
    "brier": FigureKind("Brier score", False, _CLASSES),
    "calibration_error": FigureKind("calibration error", False, _CLASSES),
    "mae": FigureKind("mean absolute error", False, _NUMBERS),
    "rmse": FigureKind("root mean squared error", False, _NUMBERS),
    "r2": FigureKind("R²", True, _NUMBERS),
}


def figures_of(task: str) -> tuple[FigureName, ...]:
    """The figures that a task has, in the order in which they are listed.

    >>> figures_of("regression")
    ('loss', 'mae', 'rmse', 'r2')
    """
    return tuple(name for name, kind in KINDS.items() if task in kind.tasks)


def usual(task: str) -> FigureName:
    """The figure that speaks for a model where a recipe names none: accuracy, or the loss where
    answers are numbers or next tokens."""
    return "accuracy" if task in KINDS["accuracy"].tasks else "loss"


def goodness(name: FigureName, value: float) -> float:
    """The value, turned so that more is better.

    >>> goodness("auroc", 0.75), goodness("brier", 0.25)
    (0.75, -0.25)
    """
    return value if KINDS[name].higher else -value

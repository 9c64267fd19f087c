"""The figures on public rows that a run may watch: they cost nothing, since the rows are public."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import nn

from nacre.core.parts import Task
from nacre.data.dataset import Rows
from nacre.figures.answers import answers_of
from nacre.figures.names import KINDS, FigureName
from nacre.figures.values import value
from nacre.models.scoring import outputs_of, scored


def figure_in_words(point: Mapping[str, float], name: FigureName) -> str:
    """One figure of a point in words; a point lacks a figure that its rows leave undefined.

    >>> figure_in_words({"accuracy": 0.5, "loss": 0.7}, "accuracy")
    'public accuracy 50.0%'
    >>> figure_in_words({"accuracy": 0.5, "loss": 0.7}, "auroc")
    'public AUROC undefined'
    """
    kind, found = KINDS[name], point.get(name)
    if found is None:
        return f"public {kind.words} undefined"
    return f"public {kind.words} {found:.1%}" if kind.share else f"public {kind.words} {found:.3g}"


def point_in_words(point: Mapping[str, float], name: FigureName) -> str:
    """What a point of a curve knows of public rows: the figure, where the model was asked without
    an attack, and the accuracy under the PGD of a guard, where there is one.

    >>> point_in_words({"accuracy": 0.9, "loss": 0.7, "fgsm": 0.6, "pgd": 0.5}, "accuracy")
    'public accuracy 90.0%, under PGD 50.0%'
    >>> point_in_words({"fgsm": 0.6, "pgd": 0.5}, "accuracy")
    'public accuracy under PGD 50.0%'
    """
    clean = figure_in_words(point, name) if "loss" in point else ""
    if "pgd" not in point:
        return clean
    share = f"under PGD {point['pgd']:.1%}"
    return f"{clean}, {share}" if clean else f"public accuracy {share}"


def figures(
    model: nn.Module, task: Task, rows: Rows, names: Collection[FigureName] = ()
) -> dict[str, float]:
    """Accuracy (0 to 1) and mean loss of the model on these rows, in evaluation mode, and the named
    figures of its task, but for those that these rows leave undefined."""
    mode = model.training
    model.eval()
    losses, right = scored(model, task, rows.features, rows.label)
    found = {"accuracy": float(right.double().mean()), "loss": float(losses.mean())}
    more: list[FigureName] = [name for name in dict.fromkeys(names) if name not in found]
    if more:
        outputs = outputs_of(model, task, rows.features)
        answers = answers_of(task.kind, outputs, rows.label)
        assert answers is not None  # planning has refused figures of other tasks
        known = {name: value(name, answers) for name in more}
        found |= {name: each for name, each in known.items() if each is not None}
    model.train(mode)
    return found

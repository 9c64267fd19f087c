"""Figures beside accuracy: of every model, and of the protected one by group and by class."""

from __future__ import annotations

from collections.abc import Sequence

from nacre.figures.intervals import MeasuredFigure
from nacre.figures.measured import ClassFigures, GroupFigures
from nacre.figures.names import KINDS
from nacre.figures.protected import ProtectedFigure
from nacre.report.facts import Comparison
from nacre.report.sections.blocks import AnyBlock, Cell, TableBlock, TextBlock
from nacre.report.sections.numbers import number_text, percent, whole
from nacre.report.sections.words import NOT_FOR_OTHERS

FIGURES = "figures"
"""How the private ones are named under `on_private_rows`."""

_FEW = 6  # classes whose table a narrow screen can stack
_IN_CHARTS = ("accuracy", "loss")
_OF_GROUPS = ("accuracy", "auroc", "balanced_accuracy", "mae", "r2")
_OF_CLASSES = ("recall", "precision", "auroc", "f1")
_WORDS = {str(name): kind.words for name, kind in KINDS.items()}
_SHARES = {name for name, kind in KINDS.items() if kind.share} | {"recall", "precision"}


def further_figures(found: Comparison) -> list[AnyBlock]:
    """A table of what the charts do not show, a row for each figure and model; one of the declared
    groups, and one of the classes. [] where an audit measured none."""
    told = [
        (variant["name"], figures)
        for variant in found["variants"]
        if (figures := variant.get("figures")) is not None
    ]
    if not told:
        return []
    private = FIGURES in found.get("on_private_rows", [])
    marked = f" ({NOT_FOR_OTHERS})" if private else ""
    level = f"intervals at {whole(found['confidence'])} confidence{marked}"
    rows: list[list[Cell]] = []
    for name in told[0][1]["figures"]:
        if name in _IN_CHARTS:
            continue
        for number, (variant, figures) in enumerate(told):
            label = "" if number else _words(name)
            rows.append([Cell(label), Cell(variant), *_cells(name, figures["figures"][name])])
    head = ["figure", "of", "value", "interval"]
    blocks: list[AnyBlock] = [TableBlock(f"Further figures, {level}", head, rows, stacked=True)]
    variant, own = told[0]
    if own["groups"]:
        groups = [(f"{g['column']} = {g['name']}", g) for g in own["groups"]]
        blocks.append(_parts(f"Groups of rows, {variant} model, {level}", groups, _OF_GROUPS))
    if own["classes"]:
        classes = [(each["name"], each) for each in own["classes"]]
        blocks.append(_parts(f"Classes, {variant} model, {level}", classes, _OF_CLASSES))
    return blocks


def protected_figure(found: ProtectedFigure | None) -> list[AnyBlock]:
    """The figure that epsilon covers, and the noised votes it was computed from; [] without one."""
    if found is None:
        return []
    value, ends = _cells("accuracy", found["accuracy"])
    told = f"{value.text} ({ends.text})" if found["accuracy"]["value"] is not None else ends.text
    names = found["classes"]
    rows = [
        [Cell(name), *(Cell(number_text(votes), number=True) for votes in row)]
        for name, row in zip(names, found["votes"], strict=True)
    ]
    caption = "Noised votes: a row for each true class, a column for each answer"
    return [
        TextBlock(
            f"Protected accuracy on held-out private rows: {told}. {found['covered']} The interval "
            "counts the noise and the rows, at 95% confidence."
        ),
        TableBlock(caption, ["", *names], rows, stacked=len(names) <= _FEW),
    ]


def _parts(
    caption: str,
    parts: Sequence[tuple[str, ClassFigures | GroupFigures]],
    wanted: Sequence[str],
) -> TableBlock:
    """A row for each part of the rows, and a column for each figure that one of them has."""
    names = [name for name in wanted if any(name in part["figures"] for _, part in parts)]
    rows = [
        [
            Cell(label),
            Cell(f"{part['rows']:,}", number=True),
            *(_short(name, part["figures"][name]) for name in names),
        ]
        for label, part in parts
    ]
    return TableBlock(caption, ["", "rows", *map(_words, names)], rows, stacked=True)


def _words(name: str) -> str:
    said = _WORDS.get(name, name)
    return said if said[0].isupper() else said.capitalize()


def _text(name: str, value: float) -> str:
    return percent(value) if name in _SHARES else number_text(value)


def _cells(name: str, figure: MeasuredFigure) -> list[Cell]:
    """Value and interval; the reason where there is none."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None:
        return [Cell("undefined", number=True), Cell(str(figure["why"]))]
    ends = str(figure["why"] or "")
    if low is not None and high is not None:
        ends = f"{_text(name, low)} to {_text(name, high)}"
    return [Cell(_text(name, value), number=True), Cell(ends, number=True)]


def _short(name: str, figure: MeasuredFigure) -> Cell:
    """Value over interval in one cell."""
    value, ends = _cells(name, figure)
    return Cell(value.text, detail=ends.text, number=True)

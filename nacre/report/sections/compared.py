"""The section on utility: the model of the run beside others, on the same test rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from nacre.figures.intervals import MeasuredFigure
from nacre.figures.measured import ClassFigures, GroupFigures
from nacre.figures.names import KINDS
from nacre.figures.protected import ProtectedFigure, counted_words
from nacre.report.facts import Comparison, Evidence, Variant
from nacre.report.sections.blocks import (
    AnyBlock,
    Cell,
    FactList,
    Figure,
    Figures,
    Section,
    TableBlock,
    TextBlock,
)
from nacre.report.sections.dots import Dot, dots
from nacre.report.sections.drawing import Caption, TickFormat
from nacre.report.sections.headline import FIGURES, STAYS_LOCAL, private_measure
from nacre.report.sections.numbers import (
    MISSING,
    listed,
    number_text,
    percent,
    signed_text,
    whole,
)
from nacre.report.sections.words import NOT_FOR_OTHERS, variant_words

Measure = Literal["accuracy", "loss", "attacked_accuracy", "membership_advantage"]
MEASURES: dict[Measure, tuple[str, TickFormat]] = {
    "accuracy": ("Accuracy", percent),
    "loss": ("Mean loss", number_text),
    "attacked_accuracy": ("Accuracy under attack", percent),
    "membership_advantage": ("Membership advantage", signed_text),
}
_FEW = 6  # classes whose table a narrow screen can stack
_IN_CHARTS = ("accuracy", "loss")
_OF_GROUPS = ("accuracy", "auroc", "balanced_accuracy", "mae", "r2")
_OF_CLASSES = ("recall", "precision", "auroc", "f1")
_WORDS = {str(name): kind.words for name, kind in KINDS.items()}
_SHARES = {name for name, kind in KINDS.items() if kind.share} | {"recall", "precision"}

_TONES = {"protected": 0, "the model": 0, "unprotected": 1, "public base": 2}


def absent(evidence: Evidence, what: str) -> TextBlock:
    """That a figure is withheld or was not measured."""
    if evidence["findings_are_local"]:
        return TextBlock(f"{what}: {STAYS_LOCAL}.")
    return TextBlock(f"{what}: {MISSING}. `nacre audit` measures it.")


def utility(evidence: Evidence) -> Section:
    """The model beside its unprotected twin and the public base."""
    found = _in_words(evidence)
    protected = figure_under_epsilon(evidence.get("evaluation"))
    if found is None:
        blocks: list[AnyBlock] = [*protected, absent(evidence, "Accuracy and comparison")]
        return Section("utility", "Utility and comparison", blocks)
    shown: list[Measure] = [m for m in MEASURES if _told(found, m)]
    private: list[Measure] = [
        m for m in MEASURES if _values(found, m) and private_measure(evidence, m)
    ]
    marked = f" {listed([MEASURES[m][0] for m in private])}: {NOT_FOR_OTHERS}." if private else ""
    rows = f"{found['rows']:,} {'test' if private else 'public test'} rows"
    several = len(found["variants"]) > 1
    lead = f"Every model answered the same {rows}" if several else f"The model answered {rows}"
    notes = FactList("", [(variant["name"], variant["note"]) for variant in found["variants"]])
    blocks = [
        TextBlock(
            f"{lead}. Whiskers are intervals at {whole(found['confidence'])} confidence, one at a "
            f"time.{marked}"
        ),
        *protected,
        *([Figures([_panel(found, measure) for measure in shown])] if shown else []),
        *_by_chance(found),
        *([notes] if several else []),
        *further_figures(found),
        *_why_free(found),
    ]
    return Section("utility", "Utility and comparison", blocks)


def _in_words(evidence: Evidence) -> Comparison | None:
    """The comparison with its models as they are called on the page."""
    found = evidence["comparison"]
    if found is None:
        return None
    named: list[Variant] = [
        {**each, "name": variant_words(evidence, each["name"])} for each in found["variants"]
    ]
    return {**found, "variants": named}


def _values(found: Comparison, measure: Measure) -> list[Dot]:
    return [
        Dot(
            label=variant["name"],
            value=figure["value"],
            low=figure["low"],
            high=figure["high"],
            tone=_TONES.get(variant["name"], 3),
        )
        for variant in found["variants"]
        if (figure := variant.get(measure)) is not None
    ]


def _told(found: Comparison, measure: Measure) -> bool:
    """Whether a chart of the measure shows more than chance."""
    values = _values(found, measure)
    if measure == "membership_advantage":
        return any(dot.low is not None and dot.low > 0 for dot in values)
    return bool(values)


def _panel(found: Comparison, measure: Measure) -> Figure:
    """One measure of every model, as dots with their intervals."""
    label, form = MEASURES[measure]
    entries = _values(found, measure)
    said = ", ".join(f"{dot.label} {form(dot.value)}" for dot in entries)
    words = Caption(name=measure, title=label, description=said)
    if measure == "loss":
        svg = dots(words, entries, form=form, axis=number_text)
        return Figure(svg, label, "On the test rows as they are: less is better.")
    if measure == "membership_advantage":
        svg = dots(words, entries, form=form, axis=number_text, span=(0.0,))
        return Figure(svg, label, "0 is guessing; 1 tells every member from every outsider.")
    # Both shares of rows stand on one axis, so that they can be compared.
    both = [*_values(found, "accuracy"), *_values(found, "attacked_accuracy")]
    span = [n for dot in both for n in (dot.value, dot.low, dot.high) if n is not None]
    svg = dots(words, entries, form=form, axis=whole, span=span)
    moved = "on inputs that an attacker moved" if measure == "attacked_accuracy" else "as they are"
    return Figure(svg, label, f"Share of test rows answered rightly, {moved}.")


def _by_chance(found: Comparison) -> list[AnyBlock]:
    """What is not drawn because chance alone explains it."""
    values = _values(found, "membership_advantage")
    if not values or _told(found, "membership_advantage"):
        return []
    said = listed([f"{dot.label} {signed_text(dot.value)}" for dot in values])
    return [
        TextBlock(
            f"Membership advantage ({said}): every interval holds 0, which is guessing, so it has "
            "no chart."
        )
    ]


def _why_free(found: Comparison) -> list[AnyBlock]:
    if not any(variant["name"] == "unprotected" for variant in found["variants"]):
        return []
    text = (
        "The unprotected twin charges nothing to any account because its rows are declared public; "
        "on rows that are not public Nacre refuses to train it."
    )
    return [TextBlock(text, aside=True)]


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
    name, own = told[0]
    variant = name if name == "the model" else f"{name} model"
    if own["groups"]:
        groups = [(f"{g['column']} = {g['name']}", g) for g in own["groups"]]
        blocks.append(_parts(f"Groups of rows, {variant}, {level}", groups, _OF_GROUPS))
    if own["classes"]:
        classes = [(each["name"], each) for each in own["classes"]]
        blocks.append(_parts(f"Classes, {variant}, {level}", classes, _OF_CLASSES))
    return blocks


def figure_under_epsilon(found: ProtectedFigure | None) -> list[AnyBlock]:
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
            f"Protected accuracy on held-out private rows: {told}. It {counted_words(found)}. "
            f"{found['covered']} The interval counts the noise and the rows, at 95% confidence."
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

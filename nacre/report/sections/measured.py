"""Sections on what was measured: utility, attacks, attacked inputs, training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from nacre.audit.finding import MEANING, Verdict
from nacre.report.facts import AttackedRowFacts, Comparison, Evidence, FindingFacts, Picture
from nacre.report.sections import charts
from nacre.report.sections.blocks import (
    AnyBlock,
    Cell,
    Example,
    Figure,
    Figures,
    Gallery,
    Listing,
    Section,
    TableBlock,
    TextBlock,
)
from nacre.report.sections.headline import (
    COMPARISON,
    FINDINGS,
    STAYS_LOCAL,
    by_loss,
    figure_words,
    interval,
    signed_interval,
    steps,
)
from nacre.report.sections.numbers import (
    MISSING,
    epsilon_text,
    listed,
    number_text,
    percent,
    seconds,
    signed_text,
    whole,
)
from nacre.report.sections.pictures import difference, png

Measure = Literal["accuracy", "loss", "attacked_accuracy", "membership_advantage"]
_MEASURES: dict[Measure, tuple[str, charts.TickFormat]] = {
    "accuracy": ("Accuracy", percent),
    "loss": ("Mean loss", number_text),
    "attacked_accuracy": ("Accuracy under attack", percent),
    "membership_advantage": ("Membership advantage", signed_text),
}
_TONES = {"protected": 0, "unprotected": 1, "public base": 2}


def _absent(evidence: Evidence, what: str, file: str) -> TextBlock:
    if evidence["findings_are_local"]:
        return TextBlock(f"{what}: {STAYS_LOCAL}{file}. Whoever holds the rows finds it there.")
    return TextBlock(f"{what}: {MISSING}. `nacre audit` measures it.")


def utility(evidence: Evidence) -> Section:
    """The protected model beside its unprotected twin and the public base."""
    found = evidence["comparison"]
    if found is None:
        blocks: list[AnyBlock] = [_absent(evidence, "Accuracy and comparison", COMPARISON)]
        return Section("utility", "Utility and comparison", blocks)
    blocks = [
        TextBlock(
            f"Every model answered the same {found['rows']:,} public test rows. Whiskers are "
            f"intervals at {whole(found['confidence'])} confidence, one at a time."
        ),
        Figures([_panel(found, measure) for measure in _MEASURES if _values(found, measure)]),
        _compared(found),
        *_why_free(found),
    ]
    return Section("utility", "Utility and comparison", blocks)


def _values(found: Comparison, measure: Measure) -> list[charts.Bar]:
    return [
        charts.Bar(
            label=variant["name"],
            value=figure["value"],
            low=figure["low"],
            high=figure["high"],
            tone=_TONES.get(variant["name"], 3),
        )
        for variant in found["variants"]
        if (figure := variant.get(measure)) is not None
    ]


def _panel(found: Comparison, measure: Measure) -> Figure:
    """One measure of every model as bars."""
    label, form = _MEASURES[measure]
    entries = _values(found, measure)
    said = ", ".join(f"{bar.label} {form(bar.value)}" for bar in entries)
    words = charts.Caption(name=measure, title=label, description=said)
    if measure == "loss":
        svg = charts.bars(words, entries, form=form, axis=number_text)
        return Figure(svg, label, "On the test rows as they are: less is better.")
    if measure == "membership_advantage":
        svg = charts.bars(words, entries, form=form, axis=number_text, low=-0.1, high=0.1)
        return Figure(svg, label, "0 is guessing; 1 tells every member from every outsider.")
    svg = charts.bars(words, entries, form=form, axis=whole)
    moved = "on inputs that an attacker moved" if measure == "attacked_accuracy" else "as they are"
    return Figure(svg, label, f"Share of test rows answered rightly, {moved}.")


def _compared(found: Comparison) -> TableBlock:
    shown: list[Measure] = [
        m for m in _MEASURES if m != ("accuracy" if _values(found, "loss") else "loss")
    ]
    head = ["model", *(_MEASURES[measure][0].lower() for measure in shown), "what it is"]
    rows = [
        [
            Cell(variant["name"]),
            *(_figure(variant.get(measure), measure) for measure in shown),
            Cell(variant["note"]),
        ]
        for variant in found["variants"]
    ]
    return TableBlock("The models compared", head, rows, stacked=True)


def _figure(figure: Any, measure: Measure) -> Cell:
    if figure is None:
        return Cell(MISSING)
    if measure == "loss":
        ends = f"{number_text(figure['low'])} to {number_text(figure['high'])}"
        return Cell(number_text(figure["value"]), detail=ends)
    if measure == "membership_advantage":
        return Cell(signed_text(figure["value"]), detail=signed_interval(figure))
    return Cell(percent(figure["value"]), detail=interval(figure))


def _why_free(found: Comparison) -> list[AnyBlock]:
    if not any(variant["name"] == "unprotected" for variant in found["variants"]):
        return []
    text = (
        "The unprotected twin is the same recipe without its protection. It charges nothing to "
        "any account because its rows are declared public: there is nothing to protect, and on "
        "rows that are not public Nacre refuses to train it."
    )
    return [TextBlock(text)]


def attacks(evidence: Evidence) -> Section:
    """What was tried against the finished model, and what came of it."""
    found = evidence["findings"]
    if not found:
        return Section("attacks", "Attacks", [_absent(evidence, "What attacks achieve", FINDINGS)])
    blocks: list[AnyBlock] = [_findings(found)]
    figures = [figure for entry in found for figure in _figures(entry)]
    if figures:
        blocks.append(Figures(figures))
    notes = [note for entry in found for note in _notes(entry)]
    if notes:
        blocks += [TextBlock("To be read with it:"), Listing(notes)]
    verdicts: dict[Verdict, None] = dict.fromkeys(entry["verdict"] for entry in found)
    meanings = [f"“{verdict}”: {MEANING[verdict]}." for verdict in verdicts]
    blocks += [TextBlock("How to read the verdicts:"), Listing(meanings)]
    return Section("attacks", "Attacks", blocks)


def _findings(found: Sequence[FindingFacts]) -> TableBlock:
    rows = [
        [
            Cell(entry["audit"]),
            Cell(entry["claim"]),
            Cell(entry["measure"]),
            _result(entry),
            Cell(entry["verdict"]),
        ]
        for entry in found
    ]
    head = ["attack", "claim under test", "measure", "result", "verdict"]
    return TableBlock(
        f"Findings, with intervals at {_levels(found)} confidence", head, rows, stacked=True
    )


def _notes(entry: FindingFacts) -> list[str]:
    """What the audit wants to be read with its figure."""
    notes = list(entry["details"].get("notes", []))
    if bounds := entry["details"].get("epsilon"):
        notes.append(
            f"The {entry['audit']} attack shows an epsilon of at least "
            f"{number_text(bounds['one_run'])}; the claim is {epsilon_text(bounds['claimed'])}."
        )
    return notes


def _levels(found: Sequence[FindingFacts]) -> str:
    return listed(sorted({whole(entry["confidence"]) for entry in found}))


def _result(entry: FindingFacts) -> Cell:
    value, ends = figure_words(entry)
    return Cell(value, detail=ends)


def _figures(entry: FindingFacts) -> list[Figure]:
    """The curves that an audit gave."""
    figures: list[Figure] = []
    if curve := entry["details"].get("curve"):
        line = charts.LineChart(
            label="accuracy",
            points=[(point["radius"], point["value"]) for point in curve],
            intervals=[(point["low"], point["high"]) for point in curve],
        )
        ends = f"from {percent(curve[0]['value'])} to {percent(curve[-1]['value'])}"
        words = charts.Caption(
            name=f"{entry['audit']}-curve",
            title="Accuracy by radius",
            description=f"Accuracy falls {ends} as the attacker may move inputs further.",
        )
        svg = charts.lines(
            words, [line], x=("radius", number_text), y=("accuracy", whole), floor=0.0, ceiling=1.0
        )
        caption = f"Accuracy {ends} as the attacker may move inputs further."
        figures.append(Figure(svg, "Accuracy by radius", caption))
    if roc := entry["details"].get("roc"):
        figures.append(_roc(entry["audit"], [(rate["fpr"], rate["tpr"]) for rate in roc]))
    return figures


def _roc(audit: str, points: list[tuple[float, float]]) -> Figure:
    series = [
        charts.LineChart(label="the attack", points=sorted({(0.0, 0.0), *points, (1.0, 1.0)})),
        charts.LineChart(label="guessing", points=[(0, 0), (1, 1)], tone=3, dashed=True),
    ]
    words = charts.Caption(
        name=f"{audit}-roc",
        title="Members found against outsiders accused",
        description="; ".join(f"{percent(tpr)} at {percent(fpr)}" for fpr, tpr in points),
    )
    svg = charts.lines(
        words, series, x=("outsiders accused", whole), y=("members found", whole), ceiling=1.0
    )
    caption = "The closer to the dashed line, the less the attack knows."
    return Figure(svg, "Members found", caption)


def examples_section(evidence: Evidence) -> Section | None:
    """Attacked public inputs, for people to look at; None where there are none."""
    pictures = [p for entry in evidence["findings"] for p in entry["details"].get("pictures", [])]
    rows = [row for entry in evidence["findings"] for row in entry["details"].get("rows", [])]
    if not pictures and not rows:
        return None
    blocks: list[AnyBlock] = [
        TextBlock(
            "Public test rows whose right answer an attack changed, each at the smallest of the "
            "tried radii that did."
        )
    ]
    if pictures:
        blocks.append(Gallery([_example(picture) for picture in pictures]))
    blocks += [_moved(row, place) for place, row in enumerate(rows, start=1)]
    return Section("examples", "What an attack looks like", blocks)


def _example(picture: Picture) -> Example:
    shape, clean, attacked = picture["shape"], picture["clean"], picture["attacked"]
    moved = difference(clean, attacked)
    panels = [
        (png(shape, clean), f"clean: {picture['before']}"),
        (png(shape, attacked), f"attacked: {picture['after']}"),
        (png(shape, moved), "what moved"),
    ]
    return Example(panels, _changed(picture))


def _changed(entry: Picture | AttackedRowFacts) -> str:
    at = f" at {whole(entry['share'])} of the radius" if "share" in entry else ""
    return f"Label {entry['label']}: answered {entry['before']}, then {entry['after']}{at}."


def _moved(row: AttackedRowFacts, place: int) -> TableBlock:
    rows = [
        [
            Cell(change["feature"]),
            Cell(number_text(change["before"])),
            Cell(number_text(change["after"])),
        ]
        for change in row["changes"]
    ]
    return TableBlock(f"Row {place}. {_changed(row)}", ["feature", "before", "after"], rows)


def training(evidence: Evidence) -> Section:
    """How the training went, as far as public rows and releases tell."""
    outcome, released = evidence["outcome"], evidence["released"]
    unit, done, planned = steps(evidence), outcome["done"], outcome["planned"]
    taken = outcome.get("released", done)
    run = f"All {planned:,}" if taken == planned else f"{taken:,} of {planned:,}"
    kinds = {
        "noised": released["noised"],
        "computed from noised ones": released["inherited"],
        "unprotected": released["unprotected"],
    }
    said = listed([f"{count:,} {name}" for name, count in kinds.items() if count] or ["none"])
    blocks: list[AnyBlock] = [
        TextBlock(
            f"{run} planned {unit} were run ({outcome['stopped']}){_older(evidence)}. "
            f"{released['count']:,} releases left the private side: {said}. Losses on private rows "
            "were not recorded."
        ),
        *_curve(evidence),
    ]
    if outcome["seconds"]:
        rows = [[Cell(name), Cell(seconds(spent))] for name, spent in outcome["seconds"].items()]
        blocks.append(TableBlock("Time", ["stage", "took"], rows))
    return Section("training", "Training", blocks)


def _older(evidence: Evidence) -> str:
    """That more has left than the model was made of; nothing where the last release made it."""
    outcome = evidence["outcome"]
    released, done = outcome.get("released", outcome["done"]), outcome["done"]
    said = f", {released:,} released, the model is that of step {done:,}"
    lost = outcome.get("unrecorded", 0)
    return (said if released != done else "") + (
        f"; {lost:,} more steps over rows were charged, and no line records them" if lost else ""
    )


def _curve(evidence: Evidence) -> list[AnyBlock]:
    """The loss of models that predict numbers or tokens, the accuracy of others."""
    measure: Literal["loss", "accuracy"] = "loss" if by_loss(evidence) else "accuracy"
    label, form = _MEASURES[measure]
    curve = evidence["outcome"]["curve"]
    points = [(p["round"], value) for p in curve if (value := p.get(measure)) is not None]
    if not points:
        return []
    title = f"{label} on public rows"
    words = charts.Caption(
        name="training-curve",
        title=title,
        description=f"From {form(points[0][1])} to {form(points[-1][1])}.",
    )
    line = charts.LineChart(label=label.lower(), points=points)
    y = (label.lower(), number_text if measure == "loss" else whole)
    svg = charts.lines(words, [line], x=(steps(evidence), number_text), y=y)
    caption = "Measured on public rows as training went on; watching it costs no privacy."
    return [Figures([Figure(svg, title, caption)])]

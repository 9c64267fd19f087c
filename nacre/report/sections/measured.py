"""Sections on what was measured: attacks, attacked inputs, training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from nacre.adversarial_training.objectives import OVERFITTED
from nacre.audit.federation.facts import BackdoorFacts, PoisoningFacts
from nacre.audit.finding import MEANING, AttackStageFacts, Verdict
from nacre.audit.model_security.facts import AttackedRowFacts, Picture
from nacre.figures.intervals import IntervalFacts
from nacre.report.facts import Evidence, FindingFacts
from nacre.report.sections import charts
from nacre.report.sections.blocks import (
    AnyBlock,
    Cell,
    Example,
    Figure,
    Figures,
    Fold,
    Gallery,
    Listing,
    Section,
    TableBlock,
    TextBlock,
)
from nacre.report.sections.compared import MEASURES, absent
from nacre.report.sections.dots import Dot, Dumbbell, dots, dumbbells
from nacre.report.sections.drawing import Caption
from nacre.report.sections.headline import (
    by_loss,
    figure_words,
    steps,
)
from nacre.report.sections.numbers import (
    epsilon_text,
    listed,
    number_text,
    percent,
    seconds,
    whole,
)
from nacre.report.sections.pictures import difference, png
from nacre.report.sections.words import (
    NOT_FOR_OTHERS,
    changed_texts,
    moved_by,
    recipe_section,
    stage_words,
)


def attacks(evidence: Evidence) -> Section:
    """What was tried against the finished model, and what came of it."""
    found = evidence["findings"]
    if not found:
        return Section("attacks", "Attacks", [absent(evidence, "What attacks achieve")])
    blocks: list[AnyBlock] = [_findings(evidence, found)]
    figures = [figure for entry in found for figure in _figures(evidence, entry)]
    if figures:
        blocks.append(Figures(figures))
    staged = [stages for e in found if (stages := e["details"].get("stages"))]
    blocks += [_stages(stages) for stages in staged]
    if known := stage_words([stage["name"] for stages in staged for stage in stages]):
        blocks.append(TextBlock(f"Their names: {known}", aside=True))
    notes = [note for entry in found for note in _notes(entry)]
    verdicts: dict[Verdict, None] = dict.fromkeys(entry["verdict"] for entry in found)
    notes += [f"“{verdict}”: {MEANING[verdict]}." for verdict in verdicts]
    blocks += [TextBlock("To be read with it:"), Listing(notes)]
    return Section("attacks", "Attacks", blocks)


def _findings(evidence: Evidence, found: Sequence[FindingFacts]) -> TableBlock:
    rows = [
        [
            Cell(entry["audit"]),
            Cell(_claim(evidence, entry)),
            Cell(entry["measure"]),
            _result(entry),
            Cell(entry["verdict"], detail=_beside(entry)),
        ]
        for entry in found
    ]
    head = ["attack", "claim under test", "measure", "result", "verdict"]
    return TableBlock(
        f"Findings, with intervals at {_levels(found)} confidence", head, rows, stacked=True
    )


def _beside(entry: FindingFacts) -> str:
    """What stands beside a verdict: why a figure is no evidence, and whom it is for."""
    return "; ".join(
        [*entry["details"].get("warnings", []), *([] if entry["public"] else [NOT_FOR_OTHERS])]
    )


def _stages(stages: Sequence[AttackStageFacts]) -> TableBlock:
    """What each attack of a cascade was tried on, broke and cost."""
    rows = [
        [
            Cell(stage["name"]),
            Cell(f"{stage['tried']:,}", number=True),
            Cell(f"{stage['broke']:,}", number=True),
            Cell(
                "" if stage["median_steps"] is None else f"{stage['median_steps']:,.0f}",
                number=True,
            ),
            Cell(f"{stage['forwards']:,}", number=True),
            Cell(f"{stage['backwards']:,}", number=True),
        ]
        for stage in stages
    ]
    head = [
        "attack", "rows tried", "rows broken", "median steps until then", "forward passes",
        "gradients",
    ]  # fmt: skip
    caption = "The attacks at the whole radius, each on the rows that those before left standing"
    return TableBlock(caption, head, rows, stacked=True)


def _claim(evidence: Evidence, entry: FindingFacts) -> str:
    """The claim; of moved inputs with the move in plain words."""
    moved = moved_by(evidence, entry)
    if not moved:
        return entry["claim"]
    if entry["audit"] == charts.PROOF:
        return f"no answer changes with {moved}"
    return f"none: nothing is certified; tried with {moved}"


def _notes(entry: FindingFacts) -> list[str]:
    """What the audit wants to be read with its figure."""
    warned = entry["details"].get("warnings", [])
    said = entry["details"].get("notes", [])
    notes = [note for note in said if not any(text in note for text in warned)]
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
    clean = entry["details"].get("clean")
    before = f"; {percent(clean['value'])} before any attack" if clean is not None else ""
    return Cell(value, detail=f"{ends}{before}", number=True)


def _figures(evidence: Evidence, entry: FindingFacts) -> list[Figure]:
    """The curves that an audit gave, where they show more than chance."""
    figures: list[Figure] = []
    figures += charts.by_radius(evidence, entry)
    if found := entry["details"].get("poisoning"):
        figures += _poisoned(found)
    if entry["low"] > 0 and (roc := entry["details"].get("roc")):
        figures.append(_roc(entry["audit"], [(rate["fpr"], rate["tpr"]) for rate in roc]))
    return figures


def _poisoned(found: PoisoningFacts) -> list[Figure]:
    """What each kind of attacker left of a twin's accuracy, and how often a backdoor opened."""
    title = f"Accuracy with {found['bad']} of {found['parties']} parties at fault"
    named = [(entry["kind"].replace("_", " "), entry) for entry in found["attackers"]]
    left = [("no attack", found["clean"], 0), *((name, e["accuracy"], 1) for name, e in named)]
    figures = [_shares("poisoning", title, left, f"Twins under {found['rule']}, one an attacker.")]
    if doors := [(name, door, 1) for name, e in named if (door := e["backdoor"]) is not None]:
        caption = "Stamped images of other classes that are answered as the backdoor wants."
        figures.append(_shares("backdoors", "Backdoors that open", doors, caption))
    return figures


def _shares(
    name: str,
    title: str,
    entries: Sequence[tuple[str, IntervalFacts | BackdoorFacts, int]],  # label, figure, tone
    caption: str,
) -> Figure:
    """Shares of rows as dots with their intervals, on an axis from 0 to 1."""
    said = "; ".join(f"{label} {percent(found['value'])}" for label, found, _ in entries)
    drawn = [
        Dot(label=label, value=found["value"], low=found["low"], high=found["high"], tone=tone)
        for label, found, tone in entries
    ]
    words = Caption(name=name, title=title, description=said)
    return Figure(dots(words, drawn, form=percent, axis=whole, span=(0.0, 1.0)), title, caption)


def _roc(audit: str, points: list[tuple[float, float]]) -> Figure:
    series = [
        charts.LineChart(label="the attack", points=sorted({(0.0, 0.0), *points, (1.0, 1.0)})),
        charts.LineChart(label="guessing", points=[(0, 0), (1, 1)], tone=3, dashed=True),
    ]
    words = Caption(
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
    """Attacked inputs, for people to look at: public ones, or all on the page of their holder. None
    where there are none."""
    pictures = [p for entry in evidence["findings"] for p in entry["details"].get("pictures", [])]
    rows = [row for entry in evidence["findings"] for row in entry["details"].get("rows", [])]
    texts = [text for entry in evidence["findings"] for text in entry["details"].get("texts", [])]
    if not pictures and not rows and not texts:
        return None
    blocks = changed_texts(texts) if texts else list[AnyBlock]()
    if pictures or rows:
        with_some = [
            entry
            for entry in evidence["findings"]
            if entry["details"].get("pictures") or entry["details"].get("rows")
        ]
        public = all(entry["public"] for entry in with_some)
        whose = "Public test rows" if public else "Test rows"
        marked = "" if public else f" Examples {NOT_FOR_OTHERS}."
        blocks.append(
            TextBlock(
                f"{whose} whose right answer an attack changed, each at the smallest of the tried "
                f"radii that did.{marked}"
            )
        )
    if pictures:
        blocks.append(Gallery([_example(picture) for picture in pictures]))
    charted = [_moved(row, place) for place, row in enumerate(rows, start=1)]
    if drawn := [figure for figure in charted if figure is not None]:
        axis = "standard deviations from the mean" if _standard(evidence) else "the model's inputs"
        legend = f"Ring: before. Dot: after. The axis is in {axis}; figures are in own units."
        blocks += [Figures(drawn), TextBlock(legend, aside=True)]
    if left := [row for row, figure in zip(rows, charted, strict=True) if figure is None]:
        blocks.append(Fold(f"{len(left)} rows before and after", [_table(row) for row in left]))
    return Section("examples", "What an attack looks like", blocks)


def _standard(evidence: Evidence) -> bool:
    """Whether the model's inputs are in standard deviations of the public rows."""
    scaling: Any = recipe_section(evidence, "data").get("scaling")
    return isinstance(scaling, dict) and scaling.get("kind") == "public"  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


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


def _moved(row: AttackedRowFacts, place: int) -> Figure | None:
    """What an attack moved in one row, on the axis of the model's inputs; None where it is not
    known there, as of runs audited by an earlier version."""
    entries = [
        Dumbbell(
            label=change["feature"],
            figure=f"{number_text(change['before'])} → {number_text(change['after'])}",
            before=scaled[0],
            after=scaled[1],
        )
        for change in row["changes"]
        if len(scaled := [*change.get("scaled", ())]) == 2
    ]
    if not entries or len(entries) < len(row["changes"]):
        return None
    said = "; ".join(f"{entry.label} {entry.figure}" for entry in entries)
    words = Caption(name=f"row-{place}", title=f"Row {place}", description=said)
    return Figure(dumbbells(words, entries, axis=number_text), _changed(row), "")


def _table(row: AttackedRowFacts) -> TableBlock:
    rows = [
        [
            Cell(change["feature"]),
            Cell(number_text(change["before"]), number=True),
            Cell(number_text(change["after"]), number=True),
        ]
        for change in row["changes"]
    ]
    return TableBlock(_changed(row), ["feature", "before", "after"], rows)


def training(evidence: Evidence) -> Section:
    """How the training went, as far as public rows and releases tell."""
    outcome, released = evidence["outcome"], evidence["released"]
    unit, done, planned = steps(evidence), outcome["done"], outcome["planned"]
    taken = outcome.get("released", done)
    run = f"All {planned:,}" if taken == planned else f"{taken:,} of {planned:,}"
    kinds = {
        "noised sums": released["noised"],
        "models computed from the parties' noised sums": released["inherited"],
        "unprotected": released["unprotected"],
        "draws for the protected figure": released.get("evaluation", 0),
    }
    said = listed([f"{count:,} {name}" for name, count in kinds.items() if count] or ["nothing"])
    spent = ", ".join(f"{name} {seconds(took)}" for name, took in outcome["seconds"].items())
    blocks: list[AnyBlock] = [
        TextBlock(
            f"{run} planned {unit} were run ({outcome['stopped']}){_older(evidence)}. What left "
            f"the private side: {said}. Losses on private rows are not on this page."
            + (f" Time: {spent}." if spent else "")
        ),
        *_overfitted(evidence),
        *_curve(evidence),
    ]
    return Section("training", "Training", blocks)


def _overfitted(evidence: Evidence) -> list[AnyBlock]:
    """Why a guard ended the training, and which model is left; nothing where none did."""
    outcome = evidence["outcome"]
    if outcome["stopped"] != OVERFITTED:
        return []
    points = {point["round"]: point for point in outcome["curve"] if "pgd" in point}
    kept, last = points[outcome["done"]], points[max(points)]
    return [
        TextBlock(
            f"The guard ended the training: accuracy under PGD on public rows fell from "
            f"{percent(kept.get('pgd', 0.0))} to {percent(last.get('pgd', 0.0))} while under FGSM "
            f"it was {percent(last.get('fgsm', 0.0))}, so the model had learnt to withstand one "
            f"step and no attack. The model is that of step {outcome['done']:,}, the best under "
            "PGD."
        )
    ]


def _older(evidence: Evidence) -> str:
    """That more has left than the model was made of; nothing where the last release made it."""
    outcome = evidence["outcome"]
    released, done = outcome.get("released", outcome["done"]), outcome["done"]
    said = f", {released:,} released, the model is that of step {done:,}"
    lost = outcome.get("unrecorded", 0)
    return (said if released != done else "") + (
        f"; {lost:,} more steps over rows were charged, and no line records them" if lost else ""
    )


_WATCHED = {"fgsm": "under FGSM", "pgd": "under PGD"}
"""What a guard measures, as accuracies on public rows."""


def _curve(evidence: Evidence) -> list[AnyBlock]:
    """The loss of models that predict numbers or tokens, the accuracy of others."""
    measure: Literal["loss", "accuracy"] = "loss" if by_loss(evidence) else "accuracy"
    label, form = MEASURES[measure]
    curve = evidence["outcome"]["curve"]
    names = {measure: label.lower(), **(_WATCHED if measure == "accuracy" else {})}
    lines = [
        charts.LineChart(label=name, points=points, tone=tone)
        for tone, (key, name) in enumerate(names.items())
        if (points := [(p["round"], value) for p in curve if (value := p.get(key)) is not None])
    ]
    if not lines:
        return []
    ways = [f"{form(line.points[0][1])} to {form(line.points[-1][1])}" for line in lines]
    each = "; ".join(f"{line.label} {way}" for line, way in zip(lines, ways, strict=True))
    title = f"{label} on public rows"
    words = Caption(
        name="training-curve",
        title=title,
        description=f"From {ways[0]}." if len(lines) == 1 else f"{each}.",
    )
    y = (label.lower(), number_text if measure == "loss" else whole)
    svg = charts.lines(words, lines, x=(steps(evidence), number_text), y=y)
    if not recipe_section(evidence, "fine_tuning").get("pretrain"):
        caption = "Measured on public rows as training went on; watching it costs no privacy."
        return [Figures([Figure(svg, title, caption)])]
    caption = (
        "The base was trained on these very rows, so it knows them better than rows that it has "
        "not seen, and steps on other rows lead away from them. This is no "
        f"{label.lower()} on new rows."
    )
    figure = Figures([Figure(svg, "", caption)])
    return [Fold(f"{label} on the public rows that the base was trained on", [figure])]

"""Curves and budgets as SVG: pure functions from numbers to text, coloured by the page's style
sheet; and accuracy by radius, of an attack and as it is proved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nacre.audit.model_security.facts import Attacked
from nacre.report.facts import Evidence, FindingFacts
from nacre.report.sections.blocks import Figure
from nacre.report.sections.drawing import (
    GLYPH,
    RECT,
    WIDTH,
    Caption,
    Scale,
    TickFormat,
    chart_svg,
    require_finite,
    text_cut,
    through,
    tick_label,
    ticks,
)
from nacre.report.sections.numbers import percent, whole
from nacre.report.sections.words import moved_by, radius_axis

PROOF = "certificate"
"""The audit that attacks nothing."""


@dataclass(frozen=True, kw_only=True)
class LineChart:
    """Points joined from left to right."""

    label: str
    points: Sequence[tuple[float, float]]
    tone: int = 0
    dashed: bool = False
    intervals: Sequence[tuple[float, float]] = ()  # (low, high) of each point, or none


@dataclass(frozen=True, kw_only=True)
class BudgetBar:
    """What an account was granted, what it has spent, and what runs that are open hold of it."""

    label: str
    figure: str  # the same in words
    granted: float
    spent: float
    reserved: float = 0.0


def lines(
    words: Caption,
    series: Sequence[LineChart],
    *,
    x: tuple[str, TickFormat],  # what the axis shows, and how its numbers are written
    y: tuple[str, TickFormat],
    floor: float | None = None,  # the vertical axis starts here, or lower
    ceiling: float | None = None,
) -> Markup:
    """One or more curves over a common axis, with a legend where there are several.

    A curve of one point is a dot. Raises `ValueError` where there is no point at all.
    """
    points = [point for line in series for point in line.points]
    if not points:
        raise ValueError("a chart of lines needs at least one point")
    heights = [n for line in series for pair in line.intervals for n in pair]
    heights += [value for _, value in points] + [n for n in (floor, ceiling) if n is not None]
    across = [place for place, _ in points]
    require_finite([*across, *heights])
    left_marks, bottom_marks = ticks(min(heights), max(heights)), ticks(min(across), max(across))
    left = 12 + GLYPH * max(len(y[1](mark)) for mark in left_marks)
    legend = 18.0 * len(series) + 10 if len(series) > 1 else 0.0
    top, bottom = 24 + legend, 160 + legend
    right = WIDTH - 8 - GLYPH * len(x[1](bottom_marks[-1])) / 2
    across_scale, up = through(bottom_marks, left, right), through(left_marks, bottom, top)
    drawn = _legend(series) if legend else []
    drawn += _axes(left_marks, bottom_marks, across_scale, up, x[1], y[1])
    drawn.append(tick_label(0, top - 12, y[0], "start"))
    drawn.append(tick_label((left + right) / 2, bottom + 34, x[0], "middle"))
    for line in series:
        drawn += _curve(line, across_scale, up)
    return chart_svg(words, bottom + 42, drawn)


def _axes(
    left_marks: Sequence[float],
    bottom_marks: Sequence[float],
    across: Scale,
    up: Scale,
    x_form: TickFormat,
    y_form: TickFormat,
) -> list[Markup]:
    drawn: list[Markup] = []
    for mark in left_marks:
        level = up(mark)
        path = f"M{across.start:.1f} {level:.1f}H{across.end:.1f}"
        drawn.append(Markup('<path class="grid" d="{}"/>').format(path))
        drawn.append(tick_label(across.start - 6, level + 4, y_form(mark), "end"))
    for mark in bottom_marks:
        path = f"M{across(mark):.1f} {up.start:.1f}v4"
        drawn.append(Markup('<path class="axis" d="{}"/>').format(path))
        drawn.append(tick_label(across(mark), up.start + 17, x_form(mark), "middle"))
    path = f"M{across.start:.1f} {up.start:.1f}H{across.end:.1f}"
    return [*drawn, Markup('<path class="axis" d="{}"/>').format(path)]


def _curve(line: LineChart, across: Scale, up: Scale) -> list[Markup]:
    places = [(across(x), up(y)) for x, y in line.points]
    dash = " dashed" if line.dashed else ""
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    drawn = [
        Markup('<path class="line-{}{}" d="{}"/>').format(line.tone, dash, path),
    ]
    for (x, _), (low, high) in zip(places, line.intervals, strict=False):
        path = f"M{x - 3:.1f} {up(low):.1f}h6m-3 0V{up(high):.1f}m-3 0h6"
        drawn.append(Markup('<path class="whisker" d="{}"/>').format(path))
    dots = places if len(places) <= 12 and not line.dashed else places[-1:]
    return drawn + [
        Markup('<circle class="fill-{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(line.tone, x, y)
        for x, y in dots
    ]


def _legend(series: Sequence[LineChart]) -> list[Markup]:
    drawn: list[Markup] = []
    for row, line in enumerate(series):
        dash = " dashed" if line.dashed else ""
        path = f"M0 {10 + 18 * row}h22"
        drawn.append(Markup('<path class="line-{}{}" d="{}"/>').format(line.tone, dash, path))
        drawn.append(text_cut(30, 14 + 18.0 * row, line.label, WIDTH - 30, "name"))
    return drawn


def budget(words: Caption, entries: Sequence[BudgetBar]) -> Markup:
    """A row for each account: its name and figure, and below what was granted as a track, what was
    spent as its filling, what is reserved as a paler one behind it."""
    require_finite([n for entry in entries for n in (entry.granted, entry.spent, entry.reserved)])
    drawn: list[Markup] = []
    for row, entry in enumerate(entries):
        top = 28.0 * row
        share = entry.spent / entry.granted if entry.granted > 0 else 1.0
        width = WIDTH * min(1.0, max(0.0, share))
        room = WIDTH - GLYPH * (len(entry.figure) + 2)
        figure = Markup('<text class="figure" x="{}" y="{:.1f}" text-anchor="end">{}</text>')
        drawn += [
            text_cut(0, top + 12, entry.label, room, "name"),
            figure.format(WIDTH, top + 12, entry.figure),
            RECT.format("track", 0, top + 17, WIDTH, 5),
        ]
        if entry.reserved > 0 and share <= 1:
            held = WIDTH * min(1.0, share + entry.reserved / entry.granted)
            drawn.append(RECT.format("held", 0, top + 17, held, 5))
        drawn.append(RECT.format("fill-0" if share <= 1 else "over", 0, top + 17, width, 5))
    return chart_svg(words, 28.0 * len(entries), drawn)


def by_radius(evidence: Evidence, entry: FindingFacts) -> list[Figure]:
    """Accuracy by radius: under attack, with what is proved of the same model below it; or as
    proved, where no attack's figure shows it. [] for a finding without a curve."""
    curve, proved = entry["details"].get("curve"), entry["audit"] == PROOF
    shown = proved and any(_proof_below(evidence, other) is entry for other in evidence["findings"])
    if not curve or shown:
        return []
    drawn = [_radii("certified", curve, tone=1) if proved else _radii("under attack", curve)]
    if below := _proof_below(evidence, entry):
        drawn.append(_radii("certified", below["details"].get("curve", []), tone=1))
    ends = f"from {percent(curve[0]['value'])} to {percent(curve[-1]['value'])}"
    moved = moved_by(evidence, entry) or "as inputs move further"
    words = entry["details"].get("ball", {}).get("kind") == "words"
    accuracy = "Certified accuracy" if proved else "Accuracy"
    title = f"{accuracy} by {'words replaced' if words else 'radius'}"
    caption = f"{accuracy} {ends}, {moved}."
    named = Caption(name=f"{entry['audit']}-curve", title=title, description=caption)
    svg = lines(
        named,
        drawn,
        x=radius_axis(evidence, entry),
        y=(f"{'certified ' if proved else ''}accuracy", whole),
    )
    proven = " Below it what a certificate proves." if below else ""
    return [Figure(svg, title, f"{caption}{proven} The axis is cut.")]


def _proof_below(evidence: Evidence, entry: FindingFacts) -> FindingFacts | None:
    """The certificate of the model that this evasion attacked, over the same ball: one of votes
    under noise speaks of another model."""
    if entry["audit"] == PROOF:
        return None
    for other in evidence["findings"]:
        if (
            other["audit"] == PROOF
            and other["details"].get("smoothed") is False
            and other["details"].get("ball") == entry["details"].get("ball")
        ):
            return other
    return None


def _radii(label: str, points: Sequence[Attacked], tone: int = 0) -> LineChart:
    return LineChart(
        label=label,
        points=[(point["radius"], point["value"]) for point in points],
        intervals=[(point["low"], point["high"]) for point in points],
        tone=tone,
    )

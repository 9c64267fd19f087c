"""Dots as SVG: figures with their intervals, values before and after, and a hundred outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nacre.report.sections.drawing import (
    GLYPH,
    WIDTH,
    Caption,
    Scale,
    TickFormat,
    chart_svg,
    require_finite,
    text_cut,
    through,
    tick_anchor,
    tick_label,
    ticks,
    whisker,
)

_DOT = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"/>')
_END = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>')
_EDGE = 6.0  # units between the frame and the ends of an axis


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A figure with its interval, where there is one."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    tone: int = 0


@dataclass(frozen=True, kw_only=True)
class Dumbbell:
    """A value before and after, on the axis of its chart, and the same in words."""

    label: str
    figure: str
    before: float
    after: float


def dots(
    words: Caption,
    entries: Sequence[Dot],
    *,
    form: TickFormat,  # how figures are written
    axis: TickFormat,  # how the axis' numbers are
    span: Sequence[float] = (),  # values that the axis covers beside those of the entries
) -> Markup:
    """A row for each entry: its label, figure and interval above, the dot with its whisker below.

    The axis runs from the least to the greatest number shown, so it need not begin at 0; where it
    does not, the chart says from where to where it runs.
    """
    numbers = [n for dot in entries for n in (dot.value, dot.low, dot.high) if n is not None]
    require_finite(numbers)
    marks = ticks(min([*numbers, *span]), max([*numbers, *span]))
    scale = through(marks, _EDGE, WIDTH - _EDGE)
    bottom = 32.0 * len(entries) + 2
    drawn = [
        tick_label(scale(mark), bottom + 12, axis(mark), tick_anchor(mark, marks)) for mark in marks
    ]
    for row, dot in enumerate(entries):
        top = 32.0 * row
        drawn += _titled(top + 12, dot, form)
        drawn += [_grid(mark, scale, top + 17, 14) for mark in marks]
        if dot.low is not None and dot.high is not None:
            drawn.append(whisker(scale(dot.low), scale(dot.high), top + 24))
        drawn.append(_DOT.format(f"fill-{dot.tone}", scale(dot.value), top + 24, 4.5))
    if marks[0] > 0:
        cut = f"axis cut: {axis(marks[0])} to {axis(marks[-1])}"
        drawn.append(tick_label(WIDTH / 2, bottom + 27, cut, "middle"))
    return chart_svg(words, bottom + (30 if marks[0] > 0 else 16), drawn)


def _titled(level: float, dot: Dot, form: TickFormat) -> list[Markup]:
    """The label on the left, figure and interval on the right."""
    ends = ""
    if dot.low is not None and dot.high is not None:
        ends = f"{form(dot.low)} to {form(dot.high)}"
    figure, reach = form(dot.value), GLYPH * len(ends)
    room = WIDTH - reach - GLYPH * (len(figure) + 3)
    at = WIDTH - (reach + 6 if ends else 0)
    return [
        text_cut(0, level, dot.label, room, "name"),
        _END.format("figure", at, level, figure),
        *([_END.format("tick", WIDTH, level, ends)] if ends else []),
    ]


def dumbbells(words: Caption, entries: Sequence[Dumbbell], *, axis: TickFormat) -> Markup:
    """A row for each entry: its label, a ring where it was and a dot where it went, its figure."""
    require_finite([n for entry in entries for n in (entry.before, entry.after)])
    numbers = [n for entry in entries for n in (entry.before, entry.after)]
    marks = ticks(min(numbers), max(numbers), 4)
    left, right = 0.38 * WIDTH, 0.62 * WIDTH
    scale = through(marks, left, right)
    bottom = 19.0 * len(entries)
    drawn = [tick_label(scale(mark), bottom + 13, axis(mark), "middle") for mark in marks]
    for row, entry in enumerate(entries):
        middle = 19.0 * row + 9
        start, end = scale(entry.before), scale(entry.after)
        bar = Markup('<path class="line-0" d="M{:.1f} {:.1f}H{:.1f}"/>')
        drawn += [_grid(mark, scale, middle - 9, 19) for mark in marks]
        drawn += [
            text_cut(0, middle + 4, entry.label, left - 14, "name"),
            bar.format(start, middle, end),
            _DOT.format("ring", start, middle, 3.5),
            _DOT.format("fill-0", end, middle, 4),
            _END.format("tick", WIDTH, middle + 4, entry.figure),
        ]
    return chart_svg(words, bottom + 16, drawn)


def hundreds(words: Caption, counts: Sequence[tuple[str, int]]) -> Markup:
    """For each (label, count) a square of a hundred dots, of which so many are filled, side by
    side; at most two fit."""
    drawn: list[Markup] = []
    for place, (label, count) in enumerate(counts):
        left = 185.0 * place
        drawn.append(text_cut(left, 12, label, 175, "name"))
        for number in range(100):
            row, column = divmod(number, 20)
            kind = "fill-1" if number < count else "empty"
            drawn.append(_DOT.format(kind, left + 4 + 8.6 * column, 26 + 10.0 * row, 3.2))
    return chart_svg(words, 72, drawn)


def _grid(mark: float, scale: Scale, top: float, height: float) -> Markup:
    """A tick's line behind one row."""
    kind = "axis" if mark == 0 else "grid"
    path = Markup('<path class="{}" d="M{:.1f} {:.1f}v{:.0f}"/>')
    return path.format(kind, scale(mark), top, height)

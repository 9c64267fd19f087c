"""Charts as SVG: pure functions from numbers to text, coloured by the page's style sheet.

Every chart is as wide as a telephone's column and grows with the page. Labels have rows of their
own, so they cannot overlap; text that does not fit is cut, and stands whole in its tooltip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from nacre.report.sections.axes import Scale, require_finite, through, ticks

WIDTH = 360.0
_GLYPH = 6.4  # average width of a character at 12 units
_RECT = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="12" rx="2"/>')
TickFormat = Callable[[float], str]


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What a chart is called, and what it shows for those who cannot see it."""

    name: str  # unique on the page
    title: str
    description: str


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A figure with its interval, where there is one."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    tone: int = 0


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


def bars(
    words: Caption,
    entries: Sequence[Bar],
    *,
    form: TickFormat,  # how figures are written
    axis: TickFormat,  # how the axis' numbers are
    low: float = 0.0,
    high: float = 1.0,
) -> Markup:
    """A row for each entry: its label and figure above, the bar with its whisker below.

    The axis runs at least from `low` to `high`, and further where an entry does.
    """
    numbers = [n for bar in entries for n in (bar.value, bar.low, bar.high) if n is not None]
    require_finite(numbers)
    marks = ticks(min([low, *numbers]), max([high, *numbers]))
    scale = through(marks, 6, WIDTH - 6)
    bottom = 40.0 * len(entries) + 4
    drawn = [_label(scale(mark), bottom + 14, axis(mark), _anchor(mark, marks)) for mark in marks]
    for row, bar in enumerate(entries):
        top = 40.0 * row
        drawn += _named(top + 14, bar.label, form(bar.value))
        drawn += [_grid(mark, scale, top + 19) for mark in marks]
        drawn.append(_bar(scale, max(marks[0], 0.0), bar, top + 22))
        if bar.low is not None and bar.high is not None:
            drawn.append(_whisker(scale(bar.low), scale(bar.high), top + 28))
    return _svg(words, bottom + 20, drawn)


def _bar(scale: Scale, origin: float, bar: Bar, top: float) -> Markup:
    left, right = sorted((scale(origin), scale(bar.value)))
    return _RECT.format(f"fill-{bar.tone}", left, top, max(1.5, right - left))


def _whisker(left: float, right: float, middle: float) -> Markup:
    path = f"M{left:.1f} {middle - 4:.1f}v8m0-4H{right:.1f}m0-4v8"
    return Markup('<path class="halo" d="{0}"/><path class="whisker" d="{0}"/>').format(path)


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
    left = 12 + _GLYPH * max(len(y[1](mark)) for mark in left_marks)
    legend = 18.0 * len(series) + 10 if len(series) > 1 else 0.0
    top, bottom = 24 + legend, 200 + legend
    right = WIDTH - 8 - _GLYPH * len(x[1](bottom_marks[-1])) / 2
    across_scale, up = through(bottom_marks, left, right), through(left_marks, bottom, top)
    drawn = _legend(series) if legend else []
    drawn += _axes(left_marks, bottom_marks, across_scale, up, x[1], y[1])
    drawn.append(_label(0, top - 12, y[0], "start"))
    drawn.append(_label((left + right) / 2, bottom + 34, x[0], "middle"))
    for line in series:
        drawn += _curve(line, across_scale, up)
    return _svg(words, bottom + 42, drawn)


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
        drawn.append(_label(across.start - 6, level + 4, y_form(mark), "end"))
    for mark in bottom_marks:
        path = f"M{across(mark):.1f} {up.start:.1f}v4"
        drawn.append(Markup('<path class="axis" d="{}"/>').format(path))
        drawn.append(_label(across(mark), up.start + 17, x_form(mark), "middle"))
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
        drawn.append(_cut(30, 14 + 18.0 * row, line.label, WIDTH - 30, "name"))
    return drawn


def budget(words: Caption, entries: Sequence[BudgetBar]) -> Markup:
    """A row for each account: what was granted as a track, what was spent as its filling, what is
    reserved as a paler one behind it."""
    require_finite([n for entry in entries for n in (entry.granted, entry.spent, entry.reserved)])
    drawn: list[Markup] = []
    for row, entry in enumerate(entries):
        top = 40.0 * row
        share = entry.spent / entry.granted if entry.granted > 0 else 1.0
        width = (WIDTH - 12) * min(1.0, max(0.0, share))
        drawn += _named(top + 14, entry.label, entry.figure)
        drawn.append(_RECT.format("track", 6, top + 20, WIDTH - 12))
        if entry.reserved > 0 and share <= 1:
            held = (WIDTH - 12) * min(1.0, share + entry.reserved / entry.granted)
            drawn.append(_RECT.format("held", 6, top + 20, held))
        drawn.append(_RECT.format("fill-0" if share <= 1 else "over", 6, top + 20, width))
    return _svg(words, 40.0 * len(entries), drawn)


def _named(level: float, label: str, figure: str) -> list[Markup]:
    """A label on the left and a figure on the right of one row."""
    room = WIDTH - 12 - _GLYPH * (len(figure) + 2)
    shown = Markup('<text class="figure" x="{}" y="{:.1f}" text-anchor="end">{}</text>')
    return [_cut(6, level, label, room, "name"), shown.format(WIDTH - 6, level, figure)]


def _cut(x: float, y: float, text: str, room: float, kind: str) -> Markup:
    """Text that ends where its room does; then the whole of it is the tooltip."""
    fitting = max(1, int(room / _GLYPH))
    if len(text) <= fitting:
        return Markup('<text class="{}" x="{}" y="{:.1f}">{}</text>').format(kind, x, y, text)
    short = text[: fitting - 1] + "…"
    whole = Markup('<text class="{}" x="{}" y="{:.1f}">{}<title>{}</title></text>')
    return whole.format(kind, x, y, short, text)


def _grid(mark: float, scale: Scale, top: float) -> Markup:
    """A tick's line behind one bar, clear of the row's label."""
    kind = "axis" if mark == 0 else "grid"
    return Markup('<path class="{}" d="M{:.1f} {:.1f}v18"/>').format(kind, scale(mark), top)


def _anchor(mark: float, marks: Sequence[float]) -> str:
    return "start" if mark == marks[0] else "end" if mark == marks[-1] else "middle"


def _label(x: float, y: float, text: str, anchor: str) -> Markup:
    shape = Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    return shape.format(x, y, anchor, text)


def _svg(words: Caption, height: float, drawn: Sequence[Markup]) -> Markup:
    head = Markup(
        '<svg class="chart" viewBox="0 0 {} {:.0f}" role="img" aria-labelledby="{n}-t {n}-d">'
        '<title id="{n}-t">{}</title><desc id="{n}-d">{}</desc>'
    ).format(f"{WIDTH:.0f}", height, words.title, words.description, n=escape(words.name))
    return head + Markup("").join(drawn) + Markup("</svg>")

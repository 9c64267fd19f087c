"""What charts are drawn with: round ticks, text that fits, whiskers, the frame with its words.

Every chart is as wide as a telephone's column and grows with the page. Text that does not fit is
cut, and stands whole in its tooltip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 360.0
GLYPH = 6.4  # average width of a character at 12 units
RECT = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}" rx="2"/>')
TickFormat = Callable[[float], str]
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


def require_finite(numbers: Sequence[float]) -> None:
    """Raises `ValueError` where a number is NaN or infinite: a chart would lie about it."""
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"a chart takes finite numbers only, got {list(numbers)}")


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """At most `count` round numbers, evenly apart; the first is <= `low`, the last >= `high`.

    Equal ends get some room around them.

    >>> ticks(0, 3.98)
    [0.0, 1.0, 2.0, 3.0, 4.0]
    >>> ticks(0.81, 0.955, 4)
    [0.8, 0.85, 0.9, 0.95, 1.0]
    """
    require_finite((low, high))
    if low == high:
        room = abs(low) / 2 or 0.5
        low, high = low - room, high + room
    raw = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in _STEPS if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, 2 - math.floor(math.log10(step)))
    return [round(place * step, digits) + 0.0 for place in range(first, last + 1)]


@dataclass(frozen=True)
class Scale:
    """A straight line from numbers to places on the paper."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of `value`, held inside the axis."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)


def through(marks: Sequence[float], start: float, end: float) -> Scale:
    """The scale whose ends are the first and the last tick."""
    return Scale(marks[0], marks[-1], start, end)


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What a chart is called, and what it shows for those who cannot see it."""

    name: str  # unique on the page
    title: str
    description: str


def whisker(left: float, right: float, middle: float) -> Markup:
    """An interval as a line with an end on each side."""
    path = f"M{left:.1f} {middle - 4:.1f}v8m0-4H{right:.1f}m0-4v8"
    return Markup('<path class="halo" d="{0}"/><path class="whisker" d="{0}"/>').format(path)


def text_cut(x: float, y: float, text: str, room: float, kind: str) -> Markup:
    """Text that ends where its room does; then the whole of it is the tooltip."""
    fitting = max(1, int(room / GLYPH))
    if len(text) <= fitting:
        return Markup('<text class="{}" x="{}" y="{:.1f}">{}</text>').format(kind, x, y, text)
    short = text[: fitting - 1] + "…"
    whole = Markup('<text class="{}" x="{}" y="{:.1f}">{}<title>{}</title></text>')
    return whole.format(kind, x, y, short, text)


def tick_anchor(mark: float, marks: Sequence[float]) -> str:
    """Where the text of a tick is held, so that none leaves the frame."""
    return "start" if mark == marks[0] else "end" if mark == marks[-1] else "middle"


def tick_label(x: float, y: float, text: str, anchor: str) -> Markup:
    """Small text on an axis."""
    shape = Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    return shape.format(x, y, anchor, text)


def chart_svg(words: Caption, height: float, drawn: Sequence[Markup]) -> Markup:
    """The chart with its title and description."""
    head = Markup(
        '<svg class="chart" viewBox="0 0 {} {:.0f}" role="img" aria-labelledby="{n}-t {n}-d">'
        '<title id="{n}-t">{}</title><desc id="{n}-d">{}</desc>'
    ).format(f"{WIDTH:.0f}", height, words.title, words.description, n=escape(words.name))
    return head + Markup("").join(drawn) + Markup("</svg>")

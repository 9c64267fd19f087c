"""Charts: well-formed, escaped, inside their frame, and safe on odd numbers."""

from __future__ import annotations

import itertools
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from nacre.report.sections import charts
from nacre.report.sections.dots import Dot, Dumbbell, dots, dumbbells, hundreds
from nacre.report.sections.drawing import WIDTH, Caption, ticks
from nacre.report.sections.numbers import number_text, percent

WORDS = Caption(name="c", title="<title> & more", description="what it shows")
FINITE = st.floats(-1e6, 1e6)


def parsed(svg: Markup) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert [child.tag for child in root][:2] == ["title", "desc"]
    return root


def texts(svg: Markup) -> list[str]:
    return [node.text or "" for node in parsed(svg).iter("text")]


def dotted(*entries: Dot, span: tuple[float, ...] = ()) -> Markup:
    return dots(WORDS, entries, form=percent, axis=number_text, span=span)


def lines(*series: charts.LineChart) -> Markup:
    return charts.lines(WORDS, series, x=("round", number_text), y=("value", number_text))


@given(FINITE, FINITE, st.integers(2, 8))
def test_ticks_are_round_few_and_cover_the_range(a: float, b: float, count: int) -> None:
    low, high = min(a, b), max(a, b)
    if 0 < high - low < 1e-6:
        return
    marks = ticks(low, high, count)
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert marks[0] <= low + slack
    assert marks[-1] >= high - slack
    assert marks == sorted(set(marks))
    assert 2 <= len(marks) <= count + 2


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e9])
def test_equal_ends_get_room(value: float) -> None:
    marks = ticks(value, value)
    assert marks[0] < value < marks[-1]


def test_text_is_escaped() -> None:
    svg = dotted(Dot(label="<script>alert(1)</script>", value=0.5))
    assert "<script>" not in svg
    assert "<script>alert(1)</script>" in texts(svg)


def test_a_long_label_is_cut_and_whole_in_its_tooltip() -> None:
    label = "a hospital with a very long name " * 4
    (title,) = (node.text for node in parsed(dotted(Dot(label=label, value=0.1))).iterfind(
        ".//text/title"))  # fmt: skip
    assert title == label
    assert any(text.endswith("…") for text in texts(dotted(Dot(label=label, value=0.1))))


def test_dots_without_interval_have_no_whisker() -> None:
    assert "whisker" not in dotted(Dot(label="a", value=0.5))
    assert dotted(Dot(label="a", value=0.5, low=0.4, high=0.6)).count('class="whisker"') == 1


def test_an_axis_that_does_not_begin_at_zero_says_so() -> None:
    svg = dotted(Dot(label="a", value=0.8, low=0.7, high=0.9))
    assert "axis cut: 0.7 to 0.9" in texts(svg)
    assert not any(
        text.startswith("axis cut") for text in texts(dotted(Dot(label="a", value=-0.4)))
    )
    wide = texts(dotted(Dot(label="a", value=0.8, low=0.7, high=0.9), span=(0.0,)))
    assert not any(text.startswith("axis cut") for text in wide)


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=5))
def test_a_dumbbell_runs_from_its_ring_to_its_dot(pairs: list[tuple[float, float]]) -> None:
    entries = [Dumbbell(label="a", figure="x", before=b, after=a) for b, a in pairs]
    root = parsed(dumbbells(WORDS, entries, axis=number_text))
    circles = list(root.iter("circle"))
    for (before, after), ring, dot in zip(pairs, circles[::2], circles[1::2], strict=True):
        assert (ring.get("class"), dot.get("class")) == ("ring", "fill-0")
        places = float(ring.get("cx", "")), float(dot.get("cx", ""))
        assert all(0 <= place <= WIDTH for place in places)
        assert (places[0] <= places[1]) if before <= after else (places[0] >= places[1])


@pytest.mark.parametrize("count", [0, 1, 55, 100])
def test_of_a_hundred_outcomes_so_many_are_filled(count: int) -> None:
    circles = list(parsed(hundreds(WORDS, [("left out", count)])).iter("circle"))
    assert [circle.get("class") for circle in circles] == ["fill-1"] * count + ["empty"] * (
        100 - count
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        dotted(Dot(label="a", value=bad))
    with pytest.raises(ValueError, match="finite"):
        dotted(Dot(label="a", value=0.1, low=bad, high=0.2))
    with pytest.raises(ValueError, match="finite"):
        lines(charts.LineChart(label="a", points=[(0, bad)]))
    with pytest.raises(ValueError, match="finite"):
        charts.budget(WORDS, [charts.BudgetBar(label="a", figure="", granted=bad, spent=1)])


def test_no_points_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one point"):
        lines(charts.LineChart(label="a", points=[]))


def test_one_point_is_a_dot() -> None:
    svg = lines(charts.LineChart(label="a", points=[(3, 0.5)]))
    assert len(list(parsed(svg).iter("circle"))) == 1


def test_equal_points_are_drawn() -> None:
    parsed(lines(charts.LineChart(label="a", points=[(1, 2), (1, 2), (1, 2)])))


def test_many_points_have_one_dot_and_several_curves_a_legend() -> None:
    long = charts.LineChart(label="long", points=[(x, x) for x in range(40)])
    dashed = charts.LineChart(label="dashed", points=[(0, 0), (39, 39)], dashed=True, tone=1)
    svg = lines(long, dashed)
    assert len(list(parsed(svg).iter("circle"))) == 2
    assert {"long", "dashed"} <= set(texts(svg))
    assert "long" not in texts(lines(long))


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=20))
def test_every_point_lies_in_the_frame(points: list[tuple[float, float]]) -> None:
    root = parsed(lines(charts.LineChart(label="a", points=points)))
    _, _, width, height = map(float, str(root.get("viewBox")).split())
    for dot in root.iter("circle"):
        assert 0 <= float(dot.get("cx", "-1")) <= width
        assert 0 <= float(dot.get("cy", "-1")) <= height


def test_tick_labels_of_one_axis_keep_apart() -> None:
    svg = lines(charts.LineChart(label="a", points=[(0, 0), (123456, 1)]))
    places = [
        (float(node.get("x", "0")), len(node.text or "") * 6.4)
        for node in parsed(svg).iter("text")
        if node.get("text-anchor") == "middle" and re.fullmatch(r"[\d,]+", node.text or "")
    ]
    for (left, wide), (right, other) in itertools.pairwise(places):
        assert left + wide / 2 < right - other / 2


@pytest.mark.parametrize(
    ("granted", "spent", "kind", "width"),
    [(4, 1, "fill-0", 90), (4, 0, "fill-0", 0), (4, 5, "over", 360), (0, 0, "fill-0", 360)],
)
def test_budgets(granted: float, spent: float, kind: str, width: float) -> None:
    entry = charts.BudgetBar(label="clinic", figure="1", granted=granted, spent=spent)
    track, filling = parsed(charts.budget(WORDS, [entry])).iter("rect")
    assert track.get("class") == "track"
    assert filling.get("class") == kind
    assert float(filling.get("width", "-1")) == width


def test_what_open_runs_hold_is_drawn_behind_what_is_spent() -> None:
    entry = charts.BudgetBar(label="clinic", figure="1", granted=4.0, spent=1.0, reserved=2.0)
    _, held, filling = parsed(charts.budget(WORDS, [entry])).iter("rect")
    assert (held.get("class"), filling.get("class")) == ("held", "fill-0")
    assert float(held.get("width", "0")) == 3 * float(filling.get("width", "0"))

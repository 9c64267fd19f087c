"""local/rounds.jsonl and the figures of parties' own models, as a section of the owner's page."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from nacre.core.errors import FileDamaged
from nacre.core.files import read_json
from nacre.core.run_folder import RunFolder
from nacre.core.strict import parsed
from nacre.report.sections import charts
from nacre.report.sections.blocks import (
    AnyBlock,
    Cell,
    Figure,
    Figures,
    Section,
    TableBlock,
    TextBlock,
)
from nacre.report.sections.drawing import Caption
from nacre.report.sections.numbers import number_text
from nacre.runs.evaluation.personal import FIGURES
from nacre.runs.workers.rounds import FILE


class _Measure(NamedTuple):
    key: str
    title: str
    axis: str
    caption: str


_MEASURES = (
    _Measure("loss", "Training loss", "loss", "Mean over the local steps of a round."),
    _Measure("norm", "Length of the change", "L2 norm", "Of what a party sends, before any clip."),
    _Measure("seconds", "Time of the local steps", "seconds", "Of a party's own steps alone."),
    _Measure("bytes", "Bytes of the reply", "bytes", "As it travels, without its envelope."),
)
_CURVES = 4  # that are told apart by their tones; of more parties quantiles are drawn


def rounds_section(run: Path) -> Section | None:
    """A curve for each party and measure, or the cohort's quantiles where the parties are more than
    four; a table of the parties, with how good their own models are. None where nothing was kept.

    Raises `FileDamaged` where a file does not hold what training writes.
    """
    lines = _lines(RunFolder(run).local / FILE)
    models = _models(RunFolder(run).personal / FIGURES)
    if not lines and not models:
        return None
    answered, asked = (sum(line[key] for line in lines) for key in ("answered", "asked"))
    blocks: list[AnyBlock] = [
        TextBlock(
            f"{answered:,} of {asked:,} requests were answered in {len(lines):,} rounds. These "
            "figures are of private rows, without noise: they are for the holder of the rows alone."
        )
    ]
    drawn = [found for measure in _MEASURES if (found := _figure(lines, measure)) is not None]
    if drawn:
        blocks.append(Figures(drawn))
    if rows := _rows(lines, models):
        head = ["party", "rounds", "bytes", "seconds", "last loss", "own model, held-out rows"]
        blocks.append(TableBlock("Each party", head, rows, stacked=True))
    return Section("parties", "Parties, round by round", blocks)


def _lines(file: Path) -> list[dict[str, Any]]:
    """The first line of each round, in order; what a crash cut short is no line."""
    found: dict[int, dict[str, Any]] = {}
    for text in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            line = cast(dict[str, Any], parsed(text))
        except ValueError:
            continue
        try:
            whole = all(type(line[key]) is int for key in ("round", "asked", "answered"))
            each, five = line.get("parties", {}).values(), line.get("quantiles", {}).values()
            numbers = all(_numbers(one.values()) and "bytes" in one for one in each)
            sound = whole and numbers and all(_numbers(q) and len(q) in (0, 5) for q in five)
        except (KeyError, TypeError, AttributeError):
            sound = False
        if not sound:
            raise FileDamaged(f"{file} holds a line that training does not write; remove the file")
        found.setdefault(line["round"], line)
    return [found[number] for number in sorted(found)]


def _numbers(values: Any) -> bool:
    return all(type(value) in (int, float) for value in values)


def _models(file: Path) -> dict[str, dict[str, Any]]:
    if not file.exists():
        return {}
    found: Any = read_json(file)
    try:
        parties = cast(dict[str, dict[str, Any]], found["parties"])
        sound = all(isinstance(each["folder"], str) for each in parties.values())
    except (KeyError, TypeError, AttributeError):
        sound, parties = False, {}
    if not sound:
        raise FileDamaged(f"{file} does not hold figures of parties; remove it")
    return parties


def _figure(lines: Sequence[dict[str, Any]], measure: _Measure) -> Figure | None:
    names = sorted({name for line in lines for name in line.get("parties", {})})
    if names and len(names) <= _CURVES:
        series = [
            charts.LineChart(label=name, points=points, tone=tone)
            for tone, name in enumerate(names)
            if (points := _points(lines, lambda line, n=name: _of(line, n, measure.key)))
        ]
    else:
        cases = (("median", 2, 0, False), ("least", 0, 3, True), ("greatest", 4, 1, True))
        series = [
            charts.LineChart(label=f"{said} of a round", points=points, tone=tone, dashed=dashed)
            for said, place, tone, dashed in cases
            if (points := _points(lines, lambda line, p=place: _quantile(line, p, measure.key)))
        ]
    if not series:
        return None
    words = Caption(
        name=f"parties-{measure.key}",
        title=measure.title,
        description=f"{len(series)} curves over {len(lines)} rounds.",
    )
    svg = charts.lines(
        words, series, x=("round", number_text), y=(measure.axis, number_text), floor=0.0
    )
    return Figure(svg, measure.title, measure.caption)


def _points(
    lines: Sequence[dict[str, Any]], value: Callable[[dict[str, Any]], float | None]
) -> list[tuple[float, float]]:
    return [(line["round"], found) for line in lines if (found := value(line)) is not None]


def _of(line: dict[str, Any], name: str, key: str) -> float | None:
    return line["parties"].get(name, {}).get(key)


def _quantile(line: dict[str, Any], place: int, key: str) -> float | None:
    """Least, median or greatest of a cohort: as kept, or of the parties that the line has."""
    if "quantiles" in line:
        kept = line["quantiles"].get(key) or None
        return None if kept is None else kept[place]
    values = sorted(each[key] for each in line["parties"].values() if key in each)
    return values[(len(values) - 1) * place // 4] if values else None


def _rows(lines: Sequence[dict[str, Any]], models: dict[str, dict[str, Any]]) -> list[list[Cell]]:
    names = sorted({name for line in lines for name in line.get("parties", {})} | models.keys())
    return [_row(name, lines, models.get(name, {})) for name in names[:_ROWS]]


_ROWS = 1000  # of the table; the files have the others


def _row(name: str, lines: Sequence[dict[str, Any]], model: dict[str, Any]) -> list[Cell]:
    own = [line["parties"][name] for line in lines if name in line.get("parties", {})]
    losses = [each["loss"] for each in own if "loss" in each]
    good = f"accuracy {model['accuracy']:.1%} of {model['rows']:,}" if "accuracy" in model else "–"
    return [
        Cell(name),
        Cell(f"{len(own):,}", number=True),
        Cell(f"{sum(each['bytes'] for each in own):,}", number=True),
        Cell(number_text(sum(each.get("seconds", 0.0) for each in own)), number=True),
        Cell(number_text(losses[-1]) if losses else "–", number=True),
        Cell(good, f"local/personal/{model['folder']}" if model else ""),
    ]


def party_of(run: Path) -> str | None:
    """The name of the party whose own folder this is; None for any other folder."""
    file = RunFolder(run).facts
    found: Any = json.loads(file.read_text()) if file.exists() else None
    return str(found["party"]) if isinstance(found, dict) and "party" in found else None

"""Tables with small random faults in a cell, the dialect or the header: rows or a sentence.

Each case is drawn from one number, so one that fails can be had again: `case(number)`. A thousand
were looked at once (`NACRE_CASES=1000`); forty are in every run of the tests, a hundred in
`make test ALL=1`.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from nacre.core.errors import NacreError, Refusal
from nacre.planning.plan import plan
from nacre.prediction.columns import read_features
from nacre.prediction.faults import FaultTally
from nacre.prediction.row_files import open_rows
from nacre.prediction.signature import read_signature, signature_of
from nacre.recipe.load import loads
from nacre.recipe.schema import Recipe
from nacre.runs import rows
from nacre.runs.run import train
from tests.conftest import ALL
from tests.stories.mutations import told_badly
from tests.training.tiny import TABLE, changed, text

CASES = int(os.environ.get("NACRE_CASES", "100" if ALL else "40"))
DATA: dict[str, Any] = {
    "kind": "table", "path": "visits.csv", "target": "ill", "classes": ["no", "yes"],
    "unit": "who", "size": 24,
    "dialect": {"separator": ";", "decimal": ",", "thousands": ".", "encoding": "latin-1",
                "missing": ["?", "-9"]},
    "columns": {
        "größe": {"low": 0, "high": 2.5, "missing": {"kind": "fill", "value": 1.7, "flag": True}},
        "lohn": {"low": 0, "high": 90000, "coding": {"kind": "piecewise", "count": 4}},
        "alter": {"low": 0, "high": 120, "coding": {"kind": "bins", "edges": [18, 65]}},
        "ort": {"categories": ["Köln", "Mainz"], "other": True},
        "code": {"hash": 8}, "raucht": {"boolean": {"yes": ["ja"], "no": ["nein"]}},
        "tag": {"date": {"format": "%d.%m.%Y", "origin": "2000-01-01"}, "low": 0, "high": 9999,
                "missing": {"kind": "drop"}},
    },
}  # fmt: skip
CELLS = [
    "", "?", "-9", "NA", "nan", "inf", "-inf", "1e999", "1,5", "1.5", "1.234,5", "1,234.5", "ja",
    "31.02.2020", "2020-01-31", "00.00.0000", "01.01.99999", "Köln", "\u20ac", "0x10", "1_0",
    "-0", "é" * 300, "x y " * 40, "'", '"', '""', ";", "\t", " ", "\\N", "#REF!", "TRUE", "\u0000",
    "9" * 400, "-1", "120,0000001", "=1+1", "\x1b[31m", "５",
]  # fmt: skip
DIALECTS: list[dict[str, Any]] = [
    {}, {"separator": ","}, {"separator": "tab"}, {"decimal": "."}, {"thousands": " "},
    {"encoding": "utf-8"}, {"encoding": "cp1252"}, {"quote": "none"}, {"quote": "'"},
    {"missing": []}, {"missing": ["ja", "1", ""]}, {"decimal": ".", "thousands": ","},
    {"separator": ";;"}, {"encoding": "utf-16"}, {"missing": [1]}, {"kommas": 1},
]  # fmt: skip
Draw = random.Random


def _plain(draw: Draw) -> list[list[str]]:
    lines = [["who", *DATA["columns"], "ill"]]
    for place in range(24):
        lines.append([
            f"p{place}", f"1,{draw.randrange(4, 9)}", f"{draw.randrange(1, 80)}.000,50",
            str(draw.randrange(1, 99)), draw.choice(["Köln", "Mainz", "Bonn"]),
            draw.choice(["E11.9", "I10"]), draw.choice(["ja", "nein"]),
            f"0{draw.randrange(1, 9)}.11.20{draw.randrange(10, 24)}", ("no", "yes")[place % 2],
        ])  # fmt: skip
    return lines


def _cells(draw: Draw, lines: list[list[str]]) -> None:
    for _ in range(draw.choice([1, 1, 2, 5, 40])):
        row = draw.choice(lines[1:])
        if row:
            row[draw.randrange(len(row))] = draw.choice(CELLS)


def _header(draw: Draw, lines: list[list[str]]) -> None:
    place = draw.randrange(len(lines[0]))
    lines[0][place] = draw.choice(["", "who", "Größe", "x" * 300, "größe ", "a;b", "\ufeffwho"])


def _shape(draw: Draw, lines: list[list[str]]) -> None:
    row = draw.choice(lines)
    draw.choice([row.pop, lambda: row.append("1"), lines[1:].clear, row.clear, lines.clear])()


def case(number: int) -> tuple[Recipe | str, bytes]:
    """(a recipe, or why there is none; the table beside it)"""
    draw = random.Random(number)
    lines = _plain(draw)
    for mutate in draw.sample([_cells, _cells, _header, _shape], draw.choice([1, 1, 2])):
        if lines:
            mutate(draw, lines)
    found = "\n".join(";".join(line) for line in lines).encode("latin-1", "replace")
    if draw.random() < 0.2:
        place = draw.randrange(len(found) + 1)
        found = found[:place] + draw.randbytes(draw.choice([0, 1, 3])) + found[place + 1 :]
    data = changed(DATA, {})
    if draw.random() < 0.4:
        data["dialect"] |= draw.choice(DIALECTS)
    if draw.random() < 0.3:
        data |= draw.choice([{"on_missing": "drop"}, {"on_out_of_range": "clamp"},
                             {"on_out_of_range": "drop"}])  # fmt: skip
    try:
        return loads(text(TABLE, data=data, differential_privacy__rows_per_unit=1)), found
    except NacreError as error:
        return str(error), found


def _as_predicted(recipe: Recipe, file: Path) -> None:
    """The same file by the way of predictions."""
    written = json.dumps(signature_of(recipe.data).to_json())
    signature = read_signature(json.loads(written), "model.json")
    opened, tally, count = open_rows(file, signature), FaultTally(str(file)), 0
    for chunk in opened.chunks():
        _, faults = read_features(chunk.columns, signature, chunk.count)
        tally.add(faults, count, chunk.count)
        count += chunk.count
    tally.check()


def _followed(number: int, folder: Path) -> str:
    """How far a case came; whatever else than a sentence of ours is raised is raised."""
    recipe, table = case(number)
    if isinstance(recipe, str):
        assert told_badly(recipe) == []
        return "recipe"
    (folder / "visits.csv").write_bytes(table)
    object.__setattr__(recipe, "folder", folder)
    reached = "read"
    try:
        rows.read(recipe, b"k" * 32)
    except Refusal as refusal:
        assert told_badly(str(refusal)) == [], number
        reached = "refused"
    try:
        _as_predicted(recipe, folder / "visits.csv")
    except Refusal as refusal:
        assert told_badly(str(refusal)) == [], number
    return reached


def test_a_mutated_table_is_rows_or_a_sentence(tmp_path: Path) -> None:
    found = [_followed(number, tmp_path) for number in range(CASES)]
    counts = {reached: found.count(reached) for reached in ("recipe", "read", "refused")}
    assert all(count >= CASES // 25 for count in counts.values()), counts


def test_a_faulty_table_is_charged_nothing(tmp_path: Path) -> None:
    """The ledger does not even exist: rows are checked before anything is reserved."""
    refused = 0
    for number in range(40):
        recipe, table = case(number)
        if isinstance(recipe, str) or refused == 3:
            continue
        object.__setattr__(recipe, "folder", tmp_path)
        (tmp_path / "visits.csv").write_bytes(table)
        try:
            rows.read(recipe, b"k" * 32)
        except Refusal:
            with pytest.raises(Refusal):
                train(plan(recipe), tmp_path / "run")
            refused += 1
            assert [path.name for path in tmp_path.iterdir()] == ["visits.csv"]
    assert refused == 3

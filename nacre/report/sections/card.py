"""What a reader asks of a model first: what its rows are, whose it is, what it is for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from nacre.report.facts import Evidence
from nacre.report.sections.blocks import AnyBlock, Cell, FactList, Fold, Section, TableBlock
from nacre.report.sections.numbers import listed, number_text
from nacre.report.sections.words import (
    NOT_FOR_OTHERS,
    parties_by_unit,
    party_count,
    party_names,
    public_demonstration,
    recipe_section,
    units_declared,
)

_FEW = 6  # columns, or parties, that fit on a line


def status(evidence: Evidence, holder: bool) -> str:
    """What kind of page this is, in a line."""
    if holder:
        return f"For the holder of the rows. Marked figures are {NOT_FOR_OTHERS}."
    if public_demonstration(evidence):
        return "Public demonstration: the owner declares every row public."
    if evidence["comparison"] is not None or evidence["findings"]:
        more = " Others are withheld." if evidence["findings_are_local"] else ""
        return f"Private rows; figures on public rows are shown.{more}"
    if evidence["findings_are_local"]:
        return "Private rows; utility withheld: figures on them are for their holder alone."
    return "Private rows; utility not measured: no audit has run."


def card(evidence: Evidence) -> Section:
    """The model card: facts where the run knows them, blanks where only people do."""
    plan, data = evidence["plan"], recipe_section(evidence, "data")
    words = plan["model"].get("words") or plan["model"].get("kind", "")
    size = plan["model"].get("parameters")
    model = f"{words}, {size:,} parameters" if isinstance(size, int) else str(words)
    facts = [
        ("Owner, contact", ""),
        ("Purpose", ""),
        ("Intended use", ""),
        ("Unsuitable use", ""),
        ("Model", model),
        ("Target", _target(evidence, data)),
        ("Columns", _columns(evidence, data)),
        ("Rows", _rows(evidence, data)),
        ("Parties", _parties(evidence)),
    ]
    blocks: list[AnyBlock] = [
        FactList("", [fact for fact in facts if fact[1] or fact[0] in _ASKED])
    ]
    ranges = _ranges(data)
    if len(ranges) > _FEW:
        rows = [[Cell(name), Cell(said)] for name, said in ranges]
        table = TableBlock("Declared columns", ["column", "values"], rows)
        blocks.append(Fold(f"All {len(ranges)} columns and their declared ranges", [table]))
    return Section("card", "Model card", blocks)


_ASKED = ("Owner, contact", "Purpose", "Intended use", "Unsuitable use")
"""What nobody can read off a run."""


def _target(evidence: Evidence, data: Mapping[str, Any]) -> str:
    """What the model answers."""
    task = evidence["plan"]["task"].replace("_", " ")
    column = data.get("target") or data.get("label")
    classes: Any = data.get("classes")
    outputs = evidence["model"].get("outputs")
    found = f"{column}: {task}" if isinstance(column, str) else task
    if isinstance(classes, list) and classes:
        named = [str(name) for name in cast(list[Any], classes)]
        return f"{found} into {listed(named) if len(named) <= _FEW else f'{len(named)} classes'}"
    if evidence["plan"]["task"] == "classification" and isinstance(outputs, int):
        return f"{found} into {max(outputs, 2)} classes"
    return found


def _columns(evidence: Evidence, data: Mapping[str, Any]) -> str:
    """What goes in."""
    ranges = _ranges(data)
    if ranges and len(ranges) <= _FEW:
        return "; ".join(f"{name} {said}" for name, said in ranges)
    if ranges:
        return f"{len(ranges)} columns, each with its declared range"
    shape: list[Any] = list(evidence["model"].get("shape") or ())
    if data.get("kind") == "text":
        return f"text, {shape[0]} tokens of a row" if shape else "text"
    sizes = " × ".join(str(size) for size in shape)
    scaling: Any = data.get("scaling")
    clamp = cast(Mapping[str, Any], scaling).get("clamp") if isinstance(scaling, dict) else None
    kept = (
        f", each held within {number_text(clamp)} standard deviations of the public rows"
        if isinstance(clamp, int | float)
        else ""
    )
    return f"{sizes} {'numbers' if len(shape) == 1 else 'values'}{kept}" if shape else ""


def _ranges(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The columns that the recipe declares, each with what it may hold."""
    columns: Any = data.get("columns")
    if not isinstance(columns, dict):
        return []
    named = cast(Mapping[str, Any], columns)
    return [(str(name), _range(said)) for name, said in named.items()]


def _range(said: Any) -> str:
    facts = cast(Mapping[str, Any], said) if isinstance(said, dict) else {}
    if isinstance(categories := facts.get("categories"), list):
        return listed([str(name) for name in cast(list[Any], categories)] or ["no value"])
    if "low" in facts and "high" in facts:
        return f"{facts['low']} to {facts['high']}"
    return "as declared"


def _rows(evidence: Evidence, data: Mapping[str, Any]) -> str:
    """How many units were declared, and of which file or set."""
    parties = parties_by_unit(evidence["plan"]["parties"])[-1]
    total = sum(party["size"] * party.get("parties", 1) for party in parties)
    source = data.get("name") or data.get("path")
    origin = f" of {source}" if isinstance(source, str) else ""
    return f"{total:,} {units_declared(evidence, parties[0])} declared{origin}"


def _parties(evidence: Evidence) -> str:
    """Who held the rows."""
    parties = evidence["plan"]["parties"]
    if not evidence["plan"]["techniques"]["federated_learning"]:
        return "one holder of all rows"
    names = party_names(parties)
    return listed(names) if names and len(names) <= _FEW else f"{party_count(parties):,} parties"

"""The figures of a model as a table: for the owner's terminal, with whose rows they are of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nacre.figures.names import KINDS
from nacre.report.sections.words import NOT_FOR_OTHERS

if TYPE_CHECKING:
    from rich.table import Table

    from nacre.audit.comparison import OwnFigures

_WORDS = {str(name): kind.words for name, kind in KINDS.items()}


def figures_table(found: OwnFigures) -> Table:
    """Every figure of the test rows, then those of each declared group, and of each class how much
    of it is found; the rest (bins, confusion, figures by class) is in comparison.json."""
    from rich.table import Table

    where = "on public test rows" if found.public else NOT_FOR_OTHERS
    table = Table("of", "figure", "value", "95% interval", title=f"the model {where}")
    table.title_justify = "left"
    for of, name, figure in _rows(found.facts):
        table.add_row(of, _WORDS.get(name, name), *_cells(figure))
    return table


def _rows(facts: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(rows, figure, its value)."""
    for name in ("accuracy", "loss"):
        if facts[name] is not None:
            yield "all rows", name, facts[name]
    measured = facts.get("figures")
    if measured is None:
        return
    for name, figure in measured["figures"].items():
        if name != "accuracy" or facts["accuracy"] is None:
            yield "all rows", name, figure
    for group in measured["groups"]:
        for name, figure in group["figures"].items():
            yield f"{group['column']}={group['name']}", name, figure
    for each in measured["classes"]:
        yield f"class {each['name']}", "recall", each["figures"]["recall"]


def _cells(figure: dict[str, Any]) -> tuple[str, str]:
    """(value, interval) in words; the reason where there is none."""
    if figure["value"] is None:
        return "undefined", str(figure["why"])
    value = f"{figure['value']:.3f}"
    if figure["low"] is None:
        return value, str(figure["why"])
    return value, f"{figure['low']:.3f} to {figure['high']:.3f}"

"""How the answers of `nacre release` are shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nacre.cli.output import note, show
from nacre.core.errors import one_line

if TYPE_CHECKING:
    from rich.table import Table


def show_answers(document: Mapping[str, Any], output: Path | None, as_json: bool) -> None:
    """Shows the answers, then writes them where a file is named. They are shown first, since they
    are paid for, whatever fails now."""
    if "parties" in document:
        note(_together(document))
    show(document, _table(document), as_json)
    if output is not None:
        from nacre.core.files import write_json

        write_json(output, dict(document))


def _together(document: Mapping[str, Any]) -> str:
    """Who answered, what each of them pays, and whom epsilon holds against."""
    price, missing = document["each_party"], document["missing"]
    absent = f"; {', '.join(missing)} did not" if missing else ""
    return (
        f"{', '.join(document['parties'])} answered{absent}; each pays epsilon "
        f"{price['epsilon']:g} and delta {price['delta']:g} at most for its own rows; "
        f"{document['against']}"
    )


def _table(document: Mapping[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("answer", "value", "95 % interval")
    for answer in document["answers"]:
        if not answer["values"]:  # a choice, or groups of which there is none
            said = one_line(", ".join(answer["labels"])) or "no group"
            table.add_row(Text(answer["name"]), Text(said), "")
            continue
        fields = (answer[key] for key in ("labels", "values", "low", "high"))
        for label, value, low, high in zip(*fields, strict=True):
            name = f"{answer['name']}: {label}" if label else answer["name"]
            # Keys are text from the rows, and control characters would reach a terminal.
            table.add_row(Text(one_line(name)), f"{value:g}", f"{low:g} to {high:g}")
    return table

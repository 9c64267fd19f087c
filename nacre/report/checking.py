"""Sections for the reviewer: where the run comes from, what is not covered, how to check it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from nacre.report.facts import FORMAT, Evidence
from nacre.report.sections.blocks import (
    AnyBlock,
    Cell,
    CodeBlock,
    Fold,
    Listing,
    Section,
    TableBlock,
    TextBlock,
)
from nacre.report.sections.numbers import moment, number_text, short

_HASH = re.compile("[0-9a-f]{32,}")


def provenance_section(evidence: Evidence) -> Section:
    """Versions, seeds, hashes and the recipe itself."""
    plan = evidence["plan"]
    facts: dict[str, Any] = {
        "planned": moment(plan["created"]),
        "planned by": f"nacre {plan['nacre']}",
        **evidence["outcome"]["provenance"],
        "model": plan["model"].get("words") or plan["model"],
        "parameters": plan["model"].get("parameters", "not stated"),
    }
    origin = [[Cell(name.replace("_", " ")), _cell(value)] for name, value in facts.items()]
    files = [
        [Cell(name), Cell(short(digest), title=digest)]
        for name, digest in evidence["files"].items()
    ]
    blocks: list[AnyBlock] = [
        TableBlock("Origin", ["fact", "value"], origin),
        TableBlock("SHA-256 of the run's files", ["file", "begins with"], files),
        TextBlock("The recipe, as it was run:"),
        CodeBlock("recipe", evidence["recipe"].strip("\n")),
    ]
    said = f"Versions, seeds, the hashes of {len(files)} files, and the recipe"
    return Section("provenance", "Provenance", [Fold(said, blocks)])


def _cell(value: Any) -> Cell:
    """A fact in words; a long hash is cut, and whole in its title."""
    text = _plain(value)
    return Cell(short(text), title=text) if _HASH.fullmatch(text) else Cell(text)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        entries = cast(Mapping[str, Any], value)
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in entries.items())
    if isinstance(value, list):
        return ", ".join(_plain(entry) for entry in cast(list[Any], value))
    if isinstance(value, float):
        return number_text(value)
    return "none" if value is None else str(value)


def limits(evidence: Evidence) -> Section:
    """What no figure on the page speaks about."""
    return Section("limits", "What is not covered", [Listing(evidence["plan"]["not_covered"])])


def checks(evidence: Evidence) -> Section:
    """Commands that confirm the page, most telling first."""
    trust = " --trust-code" if evidence["plan"]["model"].get("kind") == "python" else ""
    commands = [
        "# each release is what the plan promises, all that was charged is on record, and epsilon",
        "# is recomputed from the mechanism in plan.json: no row is read, no ledger is asked",
        "nacre report RUN --check",
        "# the files are those that this page was made from",
        f"(cd RUN && sha256sum {' '.join(evidence['files'])})",
        "# the same page, byte for byte",
        "nacre report RUN -o again.html && cmp again.html RUN/report.html",
        "# the attacks once more (needs the rows)",
        f"nacre audit RUN{trust}",
    ]
    if evidence["ledger"] is not None:
        commands += [
            "# the ledger still holds every line that this page was made from",
            f"nacre ledger verify LEDGER --against {evidence['ledger']['head']}",
        ]
    blocks: list[AnyBlock] = [
        TextBlock("RUN is the run folder, LEDGER the file of the ledger."),
        CodeBlock("commands", "\n".join(commands)),
        TextBlock(
            "Whole hashes and every number of this page stand in evidence.json, format "
            f"{FORMAT}, beside it.",
            aside=True,
        ),
    ]
    return Section("checks", "How to check this report", blocks)

"""What the verbs wrote into a run folder, read and checked; a file that is not as they write it is
refused with its name and how it comes back."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any, cast

from nacre.audit.finding import Finding
from nacre.core.errors import FileDamaged, RunError
from nacre.core.files import read_json
from nacre.core.run_folder import RunFolder
from nacre.core.strict import parsed
from nacre.report.conform import conform
from nacre.report.facts import Comparison, FindingFacts
from nacre.report.sections.pictures import pixel_list

TRAINED = (
    "plan.json",
    "recipe.yaml",
    "outcome.json",
    "released.jsonl",
    "model.json",
    "ledger.json",
)
"""What a run writes once: no verb writes it into a folder that exists."""
LOCAL = "local/"
_WRITERS = {
    "findings.json": "`nacre audit {run}`",
    "comparison.json": "`nacre audit {run}`",
    "local/findings.json": "`nacre audit {run}`",
    "local/comparison.json": "`nacre audit {run}`",
    "evidence.json": "`nacre report {run}`",
}
"""File of a run folder -> the verb that writes it again."""


def text_in(run: Path, name: str) -> str:
    """The text of a file that has to be there."""
    path = run / name
    if not path.is_file():
        raise RunError(_missing(run, name))
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unlike_the_verbs(
            run, name, getattr(error, "strerror", None) or "it is not text"
        ) from error


def _missing(run: Path, name: str) -> str:
    """That a file is not there, and what to do."""
    if not any((run / other).is_file() for other in TRAINED):
        return f"{run} holds no {name} and no run: `nacre run RECIPE --into {run}` makes one"
    ended = (run / "outcome.json").is_file()
    if name == "outcome.json" and (run / "plan.json").is_file():
        return f"{run} has no outcome to report: {RunFolder(run).unfinished()}"
    if name == "released.jsonl" and not ended and (run / "recipe.yaml").is_file():
        return f"{run} has released nothing yet: {RunFolder(run).unfinished()}"
    if name == "released.jsonl" and not ended:
        return f"{run} has released nothing yet: its program continues it (`resume=True`)"
    return f"{run} holds no {name}: {_remedy(run, name)}"


def _remedy(run: Path, name: str) -> str:
    """How a file comes back that a run wrote once, or that a verb writes again."""
    if name in _WRITERS:
        return f"{_WRITERS[name].format(run=run)} writes it anew"
    return "restore it from a copy; no `nacre` verb writes it a second time"


def json_in(run: Path, name: str, hint: Any) -> Any:
    """The JSON of a file that has to be there, of the type `hint`."""
    text_in(run, name)
    try:
        value = read_json(run / name)
        json.dumps(value, allow_nan=False)
        conform(value, hint)
    except (FileDamaged, ValueError) as error:
        reason = "it is not JSON" if isinstance(error, FileDamaged) else str(error)
        raise unlike_the_verbs(run, name, reason) from error
    return value


def json_if_there(run: Path, name: str, hint: Any) -> Any:
    """The JSON of a file, as `json_in` reads it; None where there is none."""
    return json_in(run, name, hint) if (run / name).exists() else None


def unlike_the_verbs(run: Path, name: str, reason: str) -> FileDamaged:
    """The error for a file that is not what the verbs write, with what brings it back."""
    return FileDamaged(f"{run / name} is not what nacre writes ({reason}): {_remedy(run, name)}")


def release_lines(run: Path) -> list[dict[str, Any]]:
    """The lines of released.jsonl, each a release."""
    found: list[dict[str, Any]] = []
    for number, line in enumerate(text_in(run, "released.jsonl").splitlines(), start=1):
        try:
            facts = parsed(line)
            if facts["how"] not in ("noised", "inherited", "unprotected"):
                raise ValueError("how")
            float(facts["deviation"] if facts["how"] == "noised" else 0)
        except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
            raise unlike_the_verbs(run, "released.jsonl", f"line {number} is no release") from error
        found.append(facts)
    return found


def findings_in(run: Path, name: str) -> list[FindingFacts]:
    """The findings in a file, each whole; [] where there is none.

    Raises `FileDamaged` for one on private rows in a file outside `local/`.
    """
    found: dict[str, list[dict[str, Any]]] | None = json_if_there(
        run, name, dict[str, list[dict[str, Any]]]
    )
    facts: list[FindingFacts] = []
    for entry in (found or {}).get("findings", []):
        try:
            finding = Finding.from_json(entry)
            conform(finding.to_json(), FindingFacts, finding.audit)
            shown = cast(FindingFacts, finding.to_json())
            _pixels_fit(shown)
        except (TypeError, ValueError) as error:
            raise unlike_the_verbs(run, name, str(error)) from error
        if not finding.public and not name.startswith(LOCAL):
            raise unlike_the_verbs(
                run, name, "it holds a finding on private rows, which belongs in local/"
            )
        facts.append(shown)
    return facts


def comparison_in(run: Path, name: str) -> Comparison | None:
    """The comparison in a file, or None where there is none.

    Raises `FileDamaged` for figures on private rows in a file outside `local/`.
    """
    found: Comparison | None = json_if_there(run, name, Comparison)
    if found is None or name.startswith(LOCAL):
        return found
    if private := found.get("on_private_rows"):
        raise unlike_the_verbs(
            run, name, f"it holds {private[0]} on private rows, which belongs in local/"
        )
    return found


def _pixels_fit(finding: FindingFacts) -> None:
    for picture in finding["details"].get("pictures", []):
        if len(picture["shape"]) not in (2, 3):
            raise ValueError(f"a picture of shape {picture['shape']} cannot be drawn")
        for name in ("clean", "attacked"):
            if len(pixel_list(picture[name])) != prod(picture["shape"]):
                raise ValueError(f"`{name}` of a picture does not fit its shape")

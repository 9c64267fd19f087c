"""A run folder -> evidence.json and report.html. Reads what may be shared, never `local/`."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any, cast

from nacre.audit.finding import Finding
from nacre.core.errors import FileDamaged, NotAsPlanned, RunError
from nacre.core.files import read_json, write_bytes, write_json
from nacre.core.run_folder import RunFolder
from nacre.core.strict import parsed
from nacre.figures.protected import ProtectedFigure
from nacre.recipe.document import without_credentials
from nacre.report.conform import conform
from nacre.report.facts import (
    FORMAT,
    Comparison,
    Evidence,
    FindingFacts,
    LedgerFacts,
    OutcomeFacts,
    PlanFacts,
    Range,
    Released,
)
from nacre.report.ledger_facts import journalled_steps
from nacre.report.page import render
from nacre.report.protected import require_protected
from nacre.report.releases import ranges, require_planned
from nacre.report.sections.pictures import pixel_list
from nacre.runs.released import noised_steps, of_steps
from nacre.training.planned import PlannedLevels

_TRAINED = (
    "plan.json",
    "recipe.yaml",
    "outcome.json",
    "released.jsonl",
    "model.json",
    "ledger.json",
)
"""What a run writes once: no verb writes it into a folder that exists."""
_WRITERS = {
    "findings.json": "`nacre audit {run}`",
    "comparison.json": "`nacre audit {run}`",
    "evidence.json": "`nacre report {run}`",
}
"""File of a run folder -> the verb that writes it again."""

EVALUATION = "evaluation.json"
"""The protected figure, written once by the run whose plan promises it."""

_SOURCES = (*_TRAINED, EVALUATION, "findings.json", "comparison.json", "model.safetensors")


def write_report(run_folder: Path, output: Path | None = None) -> Path:
    """Writes RUN/evidence.json and the page (RUN/report.html, or `output`); gives the page's path.

    The same run folder always gives the same bytes. Raises as `gather` does, `NotAsPlanned` where
    the record of the releases is not what the plan and the ledger say, and `NacreError` where a
    file cannot be written.
    """
    _require_run(run_folder)
    evidence = gather(run_folder)
    require_recorded(run_folder, evidence["plan"], _lines(run_folder))
    page = render(evidence)
    write_json(run_folder / "evidence.json", evidence)
    path = output if output is not None else run_folder / "report.html"
    write_bytes(path, page.encode())
    return path


def _require_run(path: Path) -> None:
    """Raises `RunError` for what is checked and has no page."""
    what = "a file" if path.is_file() else "a loop of your own" if loop_of_ones_own(path) else ""
    if what:
        raise RunError(
            f"{path} is {what}, and pages are written of the runs of recipes: use `nacre report "
            f"{path} --check`, which holds what was released against what was promised"
        )


def gather(run_folder: Path) -> Evidence:
    """Every fact of a finished run that may be shared, in the shape of `facts.Evidence`.

    Raises `RunError` where a file that the verbs write is missing, `FileDamaged` where one does
    not hold what they write. Of `local/` it asks only whether findings, or the key of an open run,
    lie there.
    """
    plan = _plan(run_folder)
    outcome: OutcomeFacts = _read(run_folder, "outcome.json", OutcomeFacts)
    evaluated: ProtectedFigure | None = _optional(run_folder, EVALUATION, ProtectedFigure)
    charged = any(party["account"] is not None for party in plan["parties"])
    findings = _findings(run_folder)
    found: Evidence = {
        "format": FORMAT,
        "plan": plan,
        "outcome": outcome,
        "released": _released(run_folder, plan),
        "findings": findings,
        "findings_are_local": (run_folder / "local" / "findings.json").exists(),
        "comparison": _optional(run_folder, "comparison.json", Comparison),
        "ledger": _read(run_folder, "ledger.json", LedgerFacts) if charged else None,
        "model": _model(run_folder),
        "recipe": without_credentials(_text(run_folder, "recipe.yaml")),
        "files": _digests(run_folder),
    }
    return found if evaluated is None else {**found, "evaluation": evaluated}


def _model(run: Path) -> dict[str, Any]:
    """model.json; of the long texts of a tokenizer only what SHA-256 makes of them."""
    facts: dict[str, Any] = _read(run, "model.json", dict[str, Any])
    option, tokenizer = dict(facts.get("option") or {}), facts.get("tokenizer")
    if files := option.get("files"):
        option["files"] = {name: _fingerprint(text) for name, text in dict(files).items()}
    if tokenizer is not None and tokenizer.get("file"):
        tokenizer = {**tokenizer, "file": _fingerprint(tokenizer["file"])}
    return {**facts, "option": option, "tokenizer": tokenizer}


def _fingerprint(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _text(run: Path, name: str) -> str:
    """The text of a file that has to be there."""
    path = run / name
    if not path.is_file():
        raise RunError(_missing(run, name))
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(run, name, getattr(error, "strerror", None) or "it is not text") from error


def _missing(run: Path, name: str) -> str:
    """That a file is not there, and what to do."""
    if not any((run / other).is_file() for other in _TRAINED):
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


def _read(run: Path, name: str, hint: Any) -> Any:
    """The JSON of a file that has to be there, of the type `hint`."""
    _text(run, name)
    try:
        value = read_json(run / name)
        json.dumps(value, allow_nan=False)
        conform(value, hint)
    except (FileDamaged, ValueError) as error:
        reason = "it is not JSON" if isinstance(error, FileDamaged) else str(error)
        raise _damaged(run, name, reason) from error
    return value


def _optional(run: Path, name: str, hint: Any) -> Any:
    return _read(run, name, hint) if (run / name).exists() else None


def _damaged(run: Path, name: str, reason: str) -> FileDamaged:
    return FileDamaged(f"{run / name} is not what nacre writes ({reason}): {_remedy(run, name)}")


def _plan(run: Path) -> PlanFacts:
    """plan.json; it has a party, and each point of its curves has two numbers."""
    plan: PlanFacts = _read(run, "plan.json", PlanFacts)
    if not plan["parties"]:
        raise _damaged(run, "plan.json", "it has no party")
    if any(len(point) != 2 for party in plan["parties"] for point in party["epsilon_by_step"]):
        raise _damaged(run, "plan.json", "`epsilon_by_step` should hold pairs")
    curves = [party.get("epsilon_by_delta", []) for party in plan["parties"]]
    if any(len(point) != 2 for points in curves for point in points):
        raise _damaged(run, "plan.json", "`epsilon_by_delta` should hold pairs")
    try:
        PlannedLevels.of(plan)
    except FileDamaged as error:
        raise _damaged(run, "plan.json", str(error)) from error
    return plan


def check_releases(run_folder: Path) -> list[Range]:
    """The releases of a run by ranges of steps, recomputed from plan.json and released.jsonl alone.

    `run_folder` may be that of a loop of one's own, or the Trainer's output. Raises `NotAsPlanned`
    for the first release that is not what the plan promises, and for an evidence.json that says
    something else; otherwise as `gather`.
    """
    own = loop_of_ones_own(run_folder)
    if own is not None:
        return _declared(own)
    plan, lines = _plan(run_folder), _lines(run_folder)
    require_recorded(run_folder, plan, lines)
    found = ranges(plan, lines)
    stated: Any = _optional(run_folder, "evidence.json", dict[str, Any])
    if stated is not None and stated.get("released", {}).get("ranges") != found:
        raise NotAsPlanned(
            f"{run_folder / 'evidence.json'} does not state the releases of this run: write it "
            f"again by `nacre report {run_folder}`"
        )
    return found


def require_recorded(run: Path, plan: PlanFacts, lines: list[dict[str, Any]]) -> None:
    """Raises `NotAsPlanned` for the first release that is not what the plan promises, and where the
    record lacks what outcome.json or the ledger's extract says has left."""
    if not (run / "outcome.json").exists():
        require_planned(run, plan, lines, None)
        return
    outcome: OutcomeFacts = _read(run, "outcome.json", OutcomeFacts)
    require_planned(run, plan, lines, outcome.get("released", outcome["done"]))
    figure: ProtectedFigure | None = _optional(run, EVALUATION, ProtectedFigure)
    require_protected(run, plan, outcome, figure, len(lines) - len(of_steps(lines)))
    charged = (run / "ledger.json").exists() and "search" not in plan  # which has two entries
    extract: LedgerFacts | None = _read(run, "ledger.json", LedgerFacts) if charged else None
    journalled = journalled_steps(extract) if extract is not None else None
    recorded = noised_steps(lines) + outcome.get("unrecorded", 0)
    if journalled is not None and journalled != recorded:
        raise NotAsPlanned(
            f"{run}/released.jsonl and outcome.json account for {recorded} noised steps, and "
            f"{journalled} were charged by {run}/ledger.json, so what left is not on record: put "
            "the files back from a copy"
        )


def loop_of_ones_own(run: Path) -> Path | None:
    """The folder in which a loop of one's own keeps what it declared: this one, or `private` in the
    output of the Trainer; None for the folder of a recipe."""
    for place in (run, run / "private"):
        if (place / "plan.json").is_file():
            facts: Any = read_json(place / "plan.json")
            return None if isinstance(facts, dict) and "recipe_digest" in facts else place
    return None


def _declared(run: Path) -> list[Range]:
    """`check`, of what was declared without a recipe."""
    plan: Any = read_json(run / "plan.json")
    PlannedLevels.of(plan)  # raises where it says too little
    lines, done = _lines(run), None
    if (run / "outcome.json").exists():
        outcome: Any = read_json(run / "outcome.json")
        if not isinstance(outcome, dict) or not isinstance(outcome.get("done"), int):  # pyright: ignore[reportUnknownMemberType]
            raise FileDamaged(f"{run / 'outcome.json'} does not say `done`: put it back")
        done = int(outcome.get("released", outcome["done"]))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    require_planned(run, plan, lines, done)
    return ranges(plan, lines)


def _lines(run: Path) -> list[dict[str, Any]]:
    """The lines of released.jsonl, each a release."""
    found: list[dict[str, Any]] = []
    for number, line in enumerate(_text(run, "released.jsonl").splitlines(), start=1):
        try:
            facts = parsed(line)
            if facts["how"] not in ("noised", "inherited", "unprotected"):
                raise ValueError("how")
            float(facts["deviation"] if facts["how"] == "noised" else 0)
        except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
            raise _damaged(run, "released.jsonl", f"line {number} is no release") from error
        found.append(facts)
    return found


def _released(run: Path, plan: PlanFacts) -> Released:
    """released.jsonl, counted."""
    recorded = _lines(run)
    lines = of_steps(recorded)
    counts = Counter(line["how"] for line in lines)
    deviations = {float(line["deviation"]) for line in lines if line["how"] == "noised"}
    found: Released = {
        "count": len(lines),
        "noised": counts["noised"],
        "inherited": counts["inherited"],
        "unprotected": counts["unprotected"],
        "deviations": sorted(deviations),
        "ranges": ranges(plan, recorded),
    }
    drawn = len(recorded) - len(lines)
    return {**found, "evaluation": drawn} if drawn else found


def _findings(run: Path) -> list[FindingFacts]:
    """findings.json, each finding whole and public; [] where there is none."""
    name = "findings.json"
    found: dict[str, list[dict[str, Any]]] | None = _optional(
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
            raise _damaged(run, name, str(error)) from error
        if not finding.public:
            raise _damaged(run, name, "it holds a finding on private rows, which belongs in local/")
        facts.append(shown)
    return facts


def _pixels_fit(finding: FindingFacts) -> None:
    for picture in finding["details"].get("pictures", []):
        if len(picture["shape"]) not in (2, 3):
            raise ValueError(f"a picture of shape {picture['shape']} cannot be drawn")
        for name in ("clean", "attacked"):
            if len(pixel_list(picture[name])) != prod(picture["shape"]):
                raise ValueError(f"`{name}` of a picture does not fit its shape")


def _digests(run: Path) -> dict[str, str]:
    """SHA-256 of each source that is there."""
    present = [run / name for name in _SOURCES if (run / name).is_file()]
    return {path.name: _sha256(path) for path in present}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""A run folder -> evidence.json, report.html, and local/report.html for the holder of the rows.

`gather` reads what may be shared, never `local/`; `with_private_figures` adds what lies there.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from nacre.core.errors import FileDamaged, NotAsPlanned, RunError
from nacre.core.files import read_json, write_bytes, write_json
from nacre.figures.protected import ProtectedFigure
from nacre.recipe.credentials import recipe_without_credentials
from nacre.report.facts import (
    FORMAT,
    Evidence,
    LedgerFacts,
    OutcomeFacts,
    PlanFacts,
    Range,
    Released,
)
from nacre.report.held import HELD, with_private_figures
from nacre.report.ledger_facts import journalled_steps
from nacre.report.page import render, render_party
from nacre.report.parties.rounds import party_of, rounds_section
from nacre.report.protected import require_protected
from nacre.report.reading import (
    TRAINED,
    comparison_in,
    findings_in,
    json_if_there,
    json_in,
    release_lines,
    text_in,
    unlike_the_verbs,
)
from nacre.report.releases import ranges, require_planned
from nacre.report.sections.blocks import Section
from nacre.report.sections.headline import HOLDERS_PAGE
from nacre.runs.released import noised_steps, of_steps
from nacre.training.planned import PlannedLevels

EVALUATION = "evaluation.json"
"""The protected figure, written once by the run whose plan promises it."""

_SOURCES = (*TRAINED, EVALUATION, "findings.json", "comparison.json", "model.safetensors")


def write_report(run_folder: Path, output: Path | None = None) -> Path:
    """Writes RUN/evidence.json and the page to hand on (RUN/report.html, or `output`); gives the
    page's path. Where there are figures on private rows, RUN/local/report.html shows them too; of
    a federation, what each party did in each round. Of a party in its own house it writes that
    page alone, without an evidence.json.

    The same run folder always gives the same bytes. Raises as `gather` and
    `with_private_figures` do, `NotAsPlanned` where the record of the releases is not what the plan
    and the ledger say, and `NacreError` where a file cannot be written.
    """
    _require_run(run_folder)
    rounds, party = rounds_section(run_folder), party_of(run_folder)
    if party is not None:
        return _own_page(run_folder, party, rounds)
    evidence = gather(run_folder)
    require_recorded(run_folder, evidence["plan"], release_lines(run_folder))
    page, private = render(evidence), with_private_figures(run_folder, evidence)
    write_json(run_folder / "evidence.json", evidence)
    path = output if output is not None else run_folder / "report.html"
    write_bytes(path, page.encode())
    if private is not None or rounds is not None:
        own = render(private or evidence, holder=True, more=[rounds] if rounds is not None else [])
        write_bytes(run_folder / HOLDERS_PAGE, own.encode(), mode=0o600)
    else:
        (run_folder / HOLDERS_PAGE).unlink(missing_ok=True)  # of figures that are there no more
    return path


def _own_page(run_folder: Path, party: str, rounds: Section | None) -> Path:
    """The page of a party in its own house."""
    if rounds is None:
        raise RunError(
            f"party {party!r} has answered no round in {run_folder}, so there is nothing to show; "
            "write the page once its run has begun"
        )
    name, path = _plan(run_folder)["name"], run_folder / HOLDERS_PAGE
    write_bytes(path, render_party(name, party, rounds).encode(), mode=0o600)
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
    outcome: OutcomeFacts = json_in(run_folder, "outcome.json", OutcomeFacts)
    evaluated: ProtectedFigure | None = json_if_there(run_folder, EVALUATION, ProtectedFigure)
    charged = any(party["account"] is not None for party in plan["parties"])
    found: Evidence = {
        "format": FORMAT,
        "plan": plan,
        "outcome": outcome,
        "released": _released(run_folder, plan),
        "findings": findings_in(run_folder, "findings.json"),
        "findings_are_local": any((run_folder / name).exists() for name in HELD),
        "comparison": comparison_in(run_folder, "comparison.json"),
        "ledger": json_in(run_folder, "ledger.json", LedgerFacts) if charged else None,
        "model": _model(run_folder),
        "recipe": recipe_without_credentials(text_in(run_folder, "recipe.yaml")),
        "files": _digests(run_folder),
    }
    return found if evaluated is None else {**found, "evaluation": evaluated}


def _model(run: Path) -> dict[str, Any]:
    """model.json; of the long texts of a tokenizer only what SHA-256 makes of them."""
    facts: dict[str, Any] = json_in(run, "model.json", dict[str, Any])
    option, tokenizer = dict(facts.get("option") or {}), facts.get("tokenizer")
    if files := option.get("files"):
        option["files"] = {name: _fingerprint(text) for name, text in dict(files).items()}
    if tokenizer is not None and tokenizer.get("file"):
        tokenizer = {**tokenizer, "file": _fingerprint(tokenizer["file"])}
    return {**facts, "option": option, "tokenizer": tokenizer}


def _fingerprint(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _plan(run: Path) -> PlanFacts:
    """plan.json; it has a party, and each point of its curves has two numbers."""
    plan: PlanFacts = json_in(run, "plan.json", PlanFacts)
    if not plan["parties"]:
        raise unlike_the_verbs(run, "plan.json", "it has no party")
    if any(len(point) != 2 for party in plan["parties"] for point in party["epsilon_by_step"]):
        raise unlike_the_verbs(run, "plan.json", "`epsilon_by_step` should hold pairs")
    curves = [party.get("epsilon_by_delta", []) for party in plan["parties"]]
    if any(len(point) != 2 for points in curves for point in points):
        raise unlike_the_verbs(run, "plan.json", "`epsilon_by_delta` should hold pairs")
    try:
        PlannedLevels.of(plan)
    except FileDamaged as error:
        raise unlike_the_verbs(run, "plan.json", str(error)) from error
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
    plan, lines = _plan(run_folder), release_lines(run_folder)
    require_recorded(run_folder, plan, lines)
    found = ranges(plan, lines)
    stated: Any = json_if_there(run_folder, "evidence.json", dict[str, Any])
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
    outcome: OutcomeFacts = json_in(run, "outcome.json", OutcomeFacts)
    require_planned(run, plan, lines, outcome.get("released", outcome["done"]))
    figure: ProtectedFigure | None = json_if_there(run, EVALUATION, ProtectedFigure)
    require_protected(run, plan, outcome, figure, len(lines) - len(of_steps(lines)))
    charged = (run / "ledger.json").exists() and "search" not in plan  # which has two entries
    extract: LedgerFacts | None = json_in(run, "ledger.json", LedgerFacts) if charged else None
    # Where whole parties are protected the parties' own steps leave in the noised sum alone.
    whole = [str(p["account"]) for p in plan["parties"] if p["unit"] == "client"]
    of = whole or [str(party["account"]) for party in plan["parties"]]
    journalled = journalled_steps(extract, of) if extract is not None else None
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
    lines, done = release_lines(run), None
    if (run / "outcome.json").exists():
        outcome: Any = read_json(run / "outcome.json")
        if not isinstance(outcome, dict) or not isinstance(outcome.get("done"), int):  # pyright: ignore[reportUnknownMemberType]
            raise FileDamaged(f"{run / 'outcome.json'} does not say `done`: put it back")
        done = int(outcome.get("released", outcome["done"]))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    require_planned(run, plan, lines, done)
    return ranges(plan, lines)


def _released(run: Path, plan: PlanFacts) -> Released:
    """released.jsonl, counted."""
    recorded = release_lines(run)
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


def _digests(run: Path) -> dict[str, str]:
    """SHA-256 of each source that is there."""
    present = [run / name for name in _SOURCES if (run / name).is_file()]
    return {path.name: _sha256(path) for path in present}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""The protected figure of a run held against its plan: evaluation.json and plan.json alone."""

from __future__ import annotations

import math
from pathlib import Path

from nacre.core.errors import NotAsPlanned
from nacre.figures.protected import ProtectedFigure, majority_share, protected_accuracy
from nacre.report.facts import OutcomeFacts, PlanFacts
from nacre.training.planned import PlannedLevels

_SAME = 1e-9


def require_protected(
    run: Path,
    plan: PlanFacts,
    outcome: OutcomeFacts,
    found: ProtectedFigure | None,
    recorded: int,  # draws on record
) -> None:
    """Raises `NotAsPlanned` where the figure is not the one that the plan promises: missing, of
    other draws or noise, or with an accuracy that does not follow from its votes."""
    planned = PlannedLevels.of(plan).outer.evaluation
    due = planned is not None and outcome["stopped"] == "completed"
    if planned is None or not due or found is None:
        if due or found is not None or recorded:
            raise _broken(run, "it is missing" if due else "none is due")
        return
    party = plan["parties"][0]
    draws = planned.steps - party["steps"]
    rate, deviation = float(party["sampling"]["rate"]), planned.deviation(1, planned.bound)
    votes = found["votes"]
    square = len(votes) == len(found["classes"]) and all(len(row) == len(votes) for row in votes)
    if recorded != draws:
        raise _broken(run, f"released.jsonl has {recorded} of its {draws} draws")
    known = {"draws": draws, "rate": rate, "deviation": deviation}
    for name, value in known.items():
        if not math.isclose(float(found[name]), value, rel_tol=_SAME):
            raise _broken(run, f"its {name} is {found[name]:.6g} where {value:.6g} is planned")
    if not square:
        raise _broken(run, "its votes are no square of its classes")
    accuracy = protected_accuracy(votes, draws=draws, rate=rate, deviation=deviation)
    if found["accuracy"] != accuracy:
        raise _broken(run, "its accuracy does not follow from its votes")
    if found["majority"] != (None if accuracy["value"] is None else majority_share(votes)):
        raise _broken(run, "its share of the most frequent class does not follow from its votes")


def _broken(run: Path, problem: str) -> NotAsPlanned:
    return NotAsPlanned(
        f"{run / 'evaluation.json'} is not the protected figure that plan.json promises "
        f"({problem}): put the file back from a copy"
    )

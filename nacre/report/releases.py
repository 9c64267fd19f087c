"""The releases of a run held against its plan: released.jsonl and plan.json, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from nacre.core.errors import FileDamaged, NotAsPlanned
from nacre.report.facts import PlanFacts, Range
from nacre.runs.released import ReleaseFacts, of_steps
from nacre.training.planned import Planned, PlannedLevels


def ranges(plan: PlanFacts, lines: Sequence[ReleaseFacts]) -> list[Range]:
    """The lines of released.jsonl in order; neighbours of one kind are taken together."""
    found: list[Range] = []
    for line, fault in zip(lines, _faults(plan, lines), strict=True):
        step, how, fits = int(line.get("step", 0)), str(line["how"]), fault is None
        last = found[-1] if found else None
        drawn = bool(line.get("evaluation", False))
        kind = (how, fits, drawn)
        if last is None or kind != (last["how"], last["as_planned"], last.get("evaluation", False)):
            last = Range(first=step, last=step, how=how, deviation=[], bound=[], as_planned=fits)
            if drawn:
                last["evaluation"] = True
            found.append(last)
        last["last"] = step
        last["deviation"] = _reach([*last["deviation"], *_numbers(line, "deviation")])
        last["bound"] = _reach([*last["bound"], *_numbers(line, "bound")])
    return found


def require_planned(
    run: Path,
    plan: PlanFacts,
    lines: Sequence[ReleaseFacts],
    done: int | None,  # steps that outcome.json says; None for an open run
) -> None:
    """Raises `NotAsPlanned` for the first release that is not what the plan promises, or is
    missing."""
    taken = len(of_steps(lines))
    if done is not None and taken != done:
        raise NotAsPlanned(
            f"{run}/released.jsonl holds {taken} releases and {done} steps were taken, so "
            "what left is not on record: put the file back"
        )
    for place, fault in enumerate(_faults(plan, lines), start=1):
        if fault is not None:
            raise NotAsPlanned(
                f"release {place} of {run} is not what its plan.json promises: {fault}; do not "
                "rely on the epsilon of this run"
            )


def _reach(values: list[float]) -> list[float]:
    return [min(values), max(values)] if values else []


def _numbers(line: ReleaseFacts, key: str) -> list[float]:
    """The line's own number, else those of the parties' steps."""
    if line.get(key) is not None:
        return [float(line[key])]
    heard = line.get("parties", {}).values()
    return [float(s[key]) for steps in heard for s in steps if s.get(key) is not None]


def _faults(plan: PlanFacts, lines: Sequence[ReleaseFacts]) -> Iterator[str | None]:
    """For each line how it differs from the plan, in words; None where it does not."""
    try:
        yield from _each(PlannedLevels.of(plan), plan["rounds"], lines)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise FileDamaged(
            f"plan.json and released.jsonl are not what nacre writes ({error!r}): put them back"
        ) from error


def _each(
    levels: PlannedLevels, rounds: int, lines: Sequence[ReleaseFacts]
) -> Iterator[str | None]:
    noised = levels.outer.how == "noised"
    bound = levels.outer.bound if noised else 0.0
    evaluation = levels.outer.evaluation if noised else None
    for number, line in enumerate(lines, start=1):
        fault: str | None = None
        if line.get("step") != number:
            fault = f"step {number} is missing or out of order"
        elif evaluation is not None and number > levels.outer.steps:
            fault, _ = _noised(evaluation, number, line, evaluation.bound)
            if not line.get("evaluation", False):
                fault = "it is a step where a draw of held-out units is planned"
        elif line.get("evaluation", False):
            fault = "it is a draw of held-out units where a step is planned"
        elif levels.outer.how == "inherited":
            fault = _inherited(levels, rounds, number, line)
        elif levels.outer.how == "noised":
            fault, bound = _noised(levels.outer, number, line, bound)
        yield fault


def _noised(
    planned: Planned, number: int, line: ReleaseFacts, bound: float
) -> tuple[str | None, float]:
    """The fault of a noised release, and the bound of the next one."""
    if line["how"] != "noised":
        return f"it is {line['how']} where noised is planned", bound
    if line.get("bound") is None:
        return "it does not say how far one unit moves its sum", bound
    fault = planned.fault(number, float(line["deviation"]), float(line["bound"]), bound)
    if planned.moves:
        below = line.get("answers", {}).get(":below")
        if below is None:
            return "it lacks the answers that the next norm is made of", bound
        bound = planned.following(bound, float(below))
    return fault, bound


def _inherited(levels: PlannedLevels, rounds: int, number: int, line: ReleaseFacts) -> str | None:
    """The fault of a release that was computed from the parties' noised steps."""
    if line["how"] != "inherited":
        return f"it is {line['how']} where inherited is planned"
    if "parties" not in line:
        return "it does not say which noised steps of the parties it was computed from"
    for name, steps in line["parties"].items():
        planned = levels.rows.get(name)
        if planned is None:
            return f"party {name!r} is not in the plan"
        local = planned.steps // rounds
        if len(steps) != local:
            return f"party {name!r} answered with {len(steps)} noised steps where {local} belong"
        for place, noised in enumerate(steps):
            step = (number - 1) * local + place + 1
            bound = planned.bound
            if planned.moves and place > 0:  # its path is the party's own, and starts each round
                bound = float(noised["bound"])
            fault = planned.fault(step, float(noised["deviation"]), float(noised["bound"]), bound)
            if fault is not None:
                return f"step {place + 1} of party {name!r}: {fault}"
    return None

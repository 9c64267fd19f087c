"""One run, as far as its public files say: what it is, how it stands, what it cost."""

from __future__ import annotations

import contextlib
import math
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

from nacre.core.strict import parsed
from nacre.runs.listing.figures import PublicFigures, public_figures
from nacre.runs.listing.reading import (
    AbsentFile,
    UnfitFile,
    finite_number,
    object_in,
    plain_file,
    whole_number,
)

RunKind = Literal["train", "tune", "own loop", "release"]
RunState = Literal[
    "finished", "open", "abandoned", "open or abandoned", "damaged", "foreign", "closed"
]
"""`foreign`: files of something else. `closed`: a folder that the system will not show.
`open or abandoned`: `local/`, which alone tells the two apart, is not there or not to be seen."""

MARKS = ("plan.json", "released.jsonl", "outcome.json")
"""A folder with one of these holds, or once held, a run."""
_ANSWERS = b'{\n  "run": '  # how a file of answers begins
_TAIL = 1 << 16  # bytes at the end of released.jsonl, of which the last whole line counts


@dataclass(frozen=True, kw_only=True)
class RunEntry:
    """A run folder, or a file of answers."""

    path: Path
    state: RunState
    reason: str = ""
    """Why it is damaged, foreign or closed."""
    kind: RunKind | None = None
    name: str = ""
    """The recipe's name, or the account."""
    created: str = ""
    """ISO 8601, UTC: when it was planned; of a loop of one's own and of answers, when written."""
    done: int | None = None
    """Steps, or rounds of a federation; None where it is not known or may not be told."""
    planned: int | None = None
    counts: Literal["step", "round", "answer"] = "step"
    private: bool = False
    """Whether every release is covered by an epsilon."""
    epsilon: float | None = None
    """Upper bound, of the party that has the largest; None where nothing is bounded."""
    delta: float | None = None
    figures: PublicFigures = field(default_factory=PublicFigures)
    size: int = 0
    """Bytes of its files, without those in `local/`."""
    plan: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)
    """plan.json."""

    @property
    def is_run(self) -> bool:
        """Whether its plan can be read."""
        return self.kind is not None and self.state != "damaged"


def holds_marks(folder: Path) -> bool:
    """Whether a folder looks like that of a run."""
    return any(os.path.lexists(folder / name) for name in MARKS)


def run_entry(path: Path, *, every_figure: bool = True) -> RunEntry:
    """What the run folder says of itself; without `every_figure` the first one is enough. Never
    raises: what cannot be read is the entry's reason."""
    try:
        plan = object_in(path / "plan.json")
    except AbsentFile:
        if (path / "released.jsonl").exists() or (path / "recipe.yaml").exists():
            return RunEntry(path=path, state="damaged", reason="it holds no plan.json")
        return RunEntry(path=path, state="foreign", reason="it holds no plan.json and no run")
    except UnfitFile as error:
        return RunEntry(path=path, state="damaged", reason=f"plan.json {error}")
    if "parties" not in plan or "rounds" not in plan:
        return RunEntry(path=path, state="foreign", reason="its plan.json is none of Nacre's")
    try:
        return _judged(path, plan, every_figure)
    except UnfitFile as error:
        return RunEntry(path=path, state="damaged", reason=str(error))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return RunEntry(path=path, state="damaged", reason="plan.json is not what Nacre writes")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return RunEntry(path=path, state="closed", reason=reason)


def answers_entry(file: Path) -> RunEntry | None:
    """What `nacre release -o` wrote; None for any other file."""
    try:
        if not plain_file(file, first=16).startswith(_ANSWERS):
            return None
        facts = object_in(file)
        answers, account = facts["answers"], facts["account"]
        if not isinstance(answers, list) or not isinstance(account, str) or "run" not in facts:
            return None
        costs = cast(list[dict[str, Any]], answers)
        epsilon = math.fsum(finite_number(answer["epsilon"]) for answer in costs)
        delta = math.fsum(finite_number(answer["delta"]) for answer in costs)
        count, found = len(costs), file.stat()
    except (UnfitFile, OSError, KeyError, TypeError, ValueError):
        return None
    return RunEntry(
        path=file, state="finished", kind="release", name=account, created=_written(file),
        done=count, planned=count, counts="answer", private=count > 0, epsilon=epsilon, delta=delta,
        figures=PublicFigures(missing=""), size=found.st_size,
    )  # fmt: skip


def _judged(path: Path, plan: dict[str, Any], every_figure: bool) -> RunEntry:
    own = "recipe_digest" not in plan
    kind: RunKind = "own loop" if own else "tune" if "search" in plan else "train"
    state, done, planned = _standing(path, plan)
    private, epsilon, delta = _price(plan)
    federated = cast(dict[str, Any], plan["techniques"]).get("federated_learning") is not None
    return RunEntry(
        path=path,
        state=state,
        kind=kind,
        name=str((plan["parties"][0]["account"] or "") if own else plan["name"]),
        created=_written(path / "plan.json") if own else _moment(plan["created"]),
        done=done,
        planned=planned,
        counts="round" if federated else "step",
        private=private,
        epsilon=epsilon,
        delta=delta,
        figures=public_figures(path, plan.get("figure"), every=every_figure),
        size=_size(path),
        plan=plan,
    )


def _standing(path: Path, plan: dict[str, Any]) -> tuple[RunState, int | None, int]:
    """(state, steps done, steps planned)"""
    planned = whole_number(plan["rounds"])
    try:
        outcome = object_in(path / "outcome.json")
    except AbsentFile:
        pass
    except UnfitFile as error:
        raise UnfitFile(f"outcome.json {error}") from error
    else:
        try:
            done, planned = whole_number(outcome["done"]), whole_number(outcome["planned"])
        except (KeyError, ValueError) as error:
            raise UnfitFile("outcome.json is not what Nacre writes") from error
        return "finished", done, planned
    state: RunState = "open or abandoned"
    local = path / "local"
    if os.path.isdir(local) and os.access(local, os.X_OK):
        # Whether the key is there, not what it is.
        state = "open" if os.path.lexists(local / "run.key") else "abandoned"
    # How far a search has come would tell of its trials.
    return state, None if "search" in plan else _last_step(path), planned


def _last_step(path: Path) -> int:
    """The step of the last whole line of released.jsonl."""
    try:
        lines = plain_file(path / "released.jsonl", last=_TAIL).split(b"\n")[:-1]
    except AbsentFile:
        return 0
    except UnfitFile as error:
        raise UnfitFile(f"released.jsonl {error}") from error
    if not lines:
        return 0
    try:
        return whole_number(parsed(lines[-1])["step"], 1)
    except (ValueError, KeyError, TypeError) as error:
        raise UnfitFile("the last line of released.jsonl is no release") from error


def _price(plan: dict[str, Any]) -> tuple[bool, float | None, float | None]:
    """(whether all is covered, the largest epsilon of a party, its delta)"""
    parties = cast(list[dict[str, Any]], plan["parties"])
    if not parties:
        raise ValueError("no party")
    prices = [(party["epsilon"], party["delta"]) for party in parties]
    if plan["private"] is not True or any(None in price for price in prices):
        return False, None, None
    epsilon, delta = max(
        (finite_number(epsilon), finite_number(delta)) for epsilon, delta in prices
    )
    if epsilon < 0 or not 0 <= delta <= 1:
        raise ValueError("no price")
    return True, epsilon, delta


def _moment(stamp: object) -> str:
    return datetime.fromisoformat(str(stamp)).isoformat()


def _written(file: Path) -> str:
    moment = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    return moment.isoformat(timespec="seconds")


def _size(folder: Path, passed_by: str = "local") -> int:
    total = 0
    with contextlib.suppress(OSError), os.scandir(folder) as inside:
        for found in inside:
            if not found.is_dir(follow_symlinks=False):
                total += found.stat(follow_symlinks=False).st_size
            elif found.name != passed_by:
                total += _size(Path(found.path), "")
    return total

"""The epsilon of a run once more, from the mechanisms that its plan.json describes: no ledger is
asked, no recipe is planned and no row is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nacre.core.errors import FileDamaged, NotAsPlanned, UnsupportedEvent
from nacre.core.files import read_json
from nacre.core.parts import Sampling
from nacre.data.sampling import (
    AllUnits,
    BallsInBins,
    CyclicPoisson,
    FixedSize,
    Poisson,
    Shuffled,
)
from nacre.differential_privacy.accounting.price import epsilon
from nacre.differential_privacy.events import event
from nacre.differential_privacy.options import noise_of
from nacre.differential_privacy.upward import rounded_up

_SAME = 1e-3
"""Relative: how far the prices of two versions may lie apart, as their bounds do (`price._GAP`)."""


@dataclass(frozen=True, kw_only=True)
class Repriced:
    """What the mechanism of one party costs."""

    name: str
    epsilon: float
    delta: float
    accountant: str

    def sentence(self) -> str:
        """The epsilon, rounded up, and what it is at."""
        bound = rounded_up(self.epsilon)
        return f"epsilon {bound} at delta {self.delta:g}, by {self.accountant}"

    def to_json(self) -> dict[str, Any]:
        """The same for programs."""
        return asdict(self)


def repriced(run: Path) -> list[Repriced]:
    """What each party's mechanism in RUN/plan.json costs; none where nothing is promised, and for
    the winner of a search, whose price is that of all trials together.

    Raises `NotAsPlanned` where one costs more than plan.json states, `FileDamaged` where
    plan.json says too little.
    """
    try:
        plan: Any = read_json(run / "plan.json")
        if not plan["private"] or "search" in plan:
            return []
        return [_party(run, party) for party in plan["parties"] if "delta" in party]
    except (LookupError, TypeError, ValueError, AttributeError, UnsupportedEvent) as error:
        raise FileDamaged(
            f"{run / 'plan.json'} does not say what the run does ({error}): restore it from a copy"
        ) from error


def _party(run: Path, party: Mapping[str, Any]) -> Repriced:
    steps, by = int(party["steps"]), party["accountant"]
    noise = noise_of(party["noise"], steps)
    done = event(
        _drawn(party["sampling"], int(party["size"])),
        replace(noise, multiplier=float(party["noise"]["multiplier"])),
        steps + int(party.get("evaluation", {}).get("draws", 0)),
        party["adjacency"],
    )
    found = epsilon(
        done, party["delta"], "auto" if by == "closed" else by, adjacency=party["adjacency"]
    )
    if found.epsilon > party["epsilon"] * (1 + _SAME):
        raise NotAsPlanned(
            f"{run / 'plan.json'} states epsilon={party['epsilon']:g} for {party['name']!r}, and "
            f"its mechanism costs {found.epsilon:g}; do not rely on the epsilon of this run"
        )
    return Repriced(
        name=party["name"],
        epsilon=found.epsilon,
        delta=party["delta"],
        accountant=found.accountant,
    )


def _drawn(facts: Mapping[str, Any], size: int) -> Sampling:
    """The draw that plan.json describes. Raises `ValueError` for one that is unknown."""
    kind, expected = facts["kind"], float(facts["expected"])
    match kind:
        case "poisson":
            return Poisson(expected, size)
        case "cyclic_poisson":
            return CyclicPoisson(expected, size, int(facts["cycle"]))
        case "fixed_size":
            return FixedSize(round(expected), size)
        case "shuffled":
            return Shuffled(round(expected), size)
        case "balls_in_bins" if "epoch" in facts:
            return BallsInBins(size, int(facts["epoch"]), anew=True)
        case "balls_in_bins":
            return BallsInBins(size, int(facts["cycle"]))
        case "full":
            return AllUnits(size)
        case _:
            raise ValueError(f"draws of kind {kind!r} are not known")

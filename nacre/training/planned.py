"""What plan.json says of each release, and each release held against it before it leaves.

A `Planned` is made from JSON alone, read back from the run folder where there is one: neither the
noise nor the parts of a step have a share in it. So a line of wiring that hands a step another
adjacency, bound, multiplier or draw than was priced is found at the first release, before anything
is journalled.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from nacre.core.errors import FileDamaged, NotAsPlanned
from nacre.core.parts import Clip, Noise, Sampling
from nacre.core.types import Adjacency, BoundedSum, Inherited, Noised, Release, Tensors
from nacre.differential_privacy.options import noise_of
from nacre.gradient_clipping.adaptive import BELOW
from nacre.gradient_clipping.rules import ROUNDING

JsonFacts = Mapping[str, Any]
"""JSON, as plan.json has it."""

CENTRAL = "all rows"
"""The party of plan.json that stands for a run without a federation, or for one as a whole."""

_SAME = 1e-9
"""Relative; JSON keeps every digit of a number, and a path of norms rounds at each step."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What the plan promises of the releases of one level.

    `how`: `noised` at this level; `inherited`, computed from releases that were noised already; or
    `unprotected`, of which nothing is promised.
    """

    how: Literal["noised", "inherited", "unprotected"]
    party: JsonFacts = field(default_factory=dict[str, Any])
    """The entry of plan.json, where the level is noised."""

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return int(self.party["steps"])

    @property
    def evaluation(self) -> Planned | None:
        """What is promised of the draws of a protected figure, which follow the steps; None where
        there are none."""
        facts = self.party.get("evaluation")
        if facts is None:
            return None
        draws = {"clip": {"norm": facts["bound"]}, "steps": self.steps + int(facts["draws"])}
        return replace(self, party={**self.party, **draws, "evaluation": None})

    @property
    def bound(self) -> float:
        """L2 norm that one unit adds at most to the sum of the first step."""
        return float(self.party["clip"]["norm"])

    @property
    def moves(self) -> bool:
        """Whether the bound follows the releases from step to step."""
        return bool(self.party["clip"].get("moves", False))

    def deviation(self, step: int, bound: float) -> float:
        """Standard deviation of the noise of `step` (from 1) on a sum of this bound: multiplier
        times sensitivity under the planned adjacency, times the spread of noise that remembers."""
        multiplier, adjacency = float(self.party["noise"]["multiplier"]), self.party["adjacency"]
        sensitivity = {"replace_one": 2 * bound, "add_or_remove": bound, "zero_out": bound}
        spread = noise_of(self.party["noise"], self.steps).spread(step - 1)
        return multiplier * sensitivity[adjacency] * spread

    def following(self, bound: float, below: float) -> float:
        """The bound of the next step, from the answers that this one released (`Adaptive`)."""
        clip = self.party["clip"]
        joint = math.hypot(1, clip["share"])
        size = clip["share"] * bound / joint * (1 - ROUNDING)  # of one answer
        seen = (1 + below / (size * self.party["sampling"]["expected"])) / 2
        way = min(max(clip["pace"] * (seen - clip["quantile"]), -1.0), 1.0)
        return min(max(bound / joint * math.exp(-way), 1e-12), 1e12) * joint

    def fault(self, step: int, deviation: float, bound: float, planned: float) -> str | None:
        """How a release differs from the plan, in words; None where it does not.

        `bound` is that of the sum, `planned` the one that it should have had.
        """
        if step > self.steps:
            return f"it is beyond the {self.steps} steps that were planned"
        if not _same(bound, planned):
            return f"one unit moves its sum by up to {bound:.6g} where {planned:.6g} is planned"
        due = self.deviation(step, planned)
        if not _same(deviation, due):
            return f"its noise has deviation {deviation:.6g} where {due:.6g} is planned"
        return None

    def require_units(self, count: int, rows: int, groups: tuple[str, ...] | None) -> None:
        """Raises `NotAsPlanned` unless the units over these rows are those of the plan."""
        unit = self.party.get("unit")
        due = len(set(groups or ())) if unit == "group" else rows
        if self.how == "noised" and count != due:
            raise NotAsPlanned(
                f"the rows are not gathered into the units that plan.json protects (unit {unit}), "
                f"so one unit could enter a sum more than once: nothing was released; {_REMEDY}"
            )


NOTHING = Planned(how="unprotected")
"""Nothing is promised of these releases: public rows, or a run without differential privacy."""


@dataclass(frozen=True)
class PlannedLevels:
    """What a plan promises of each level of a run."""

    outer: Planned  # of the outermost loop: over rows, or over parties
    rows: Mapping[str, Planned]  # holder of rows -> of its steps; "" for all rows

    @classmethod
    def of(cls, facts: JsonFacts) -> PlannedLevels:
        """From the JSON of plan.json. Raises `FileDamaged` where it says too little."""
        try:
            return cls._of(facts)
        except (KeyError, TypeError, ValueError) as error:
            raise FileDamaged(
                f"plan.json does not say what each release has to be ({error}): put it back, or "
                "plan the run anew"
            ) from error

    @classmethod
    def _of(cls, facts: JsonFacts) -> PlannedLevels:
        if not facts["private"]:
            return cls(NOTHING, {})
        levels = [Planned(how="noised", party=party) for party in facts["parties"]]
        for planned in levels:
            for part in (planned, planned.evaluation):
                if part is not None:
                    part.deviation(1, part.bound)  # raises where a number is missing
        # A party may be called as the whole is: the unit tells them apart.
        whole = [level for level in levels if level.party["unit"] == "client"]
        noised = {str(each.party["name"]): each for each in levels if each not in whole}
        if facts["techniques"]["federated_learning"] is None:
            return cls(noised[CENTRAL], {"": noised[CENTRAL]})
        return cls(whole[0] if whole else Planned(how="inherited"), noised)

    def over(self, holder: str) -> Planned:
        """Of the steps over the rows of this holder."""
        return self.rows.get(holder, NOTHING)


class HeldToPlan:
    """Holds the releases of one level against the plan, step by step.

    Of an adaptive rule the bound is followed from release to release, by what was released alone.
    """

    def __init__(self, planned: Planned, sampling: Sampling, clip: Clip, done: int) -> None:
        """`clip` is the rule of the next step: where it moves and the run is resumed, its bound
        is taken from the checkpoint. Raises `NotAsPlanned` for another draw than the plan's."""
        self._planned = planned
        self._bound, self._sampled = 0.0, _Sampled([], np.zeros(0), [], 0.0)
        if planned.how == "noised":
            resumed = planned.moves and done > 0
            self._bound = clip.bound(1) if resumed else planned.bound
            _require_draw(planned.party["sampling"], sampling)

    def before(self, step: int, total: BoundedSum, noise: Noise, adjacency: Adjacency) -> None:
        """Raises `NotAsPlanned` where the noise that is about to be added to this sum is not the
        planned one. Nothing has been journalled by then."""
        if self._planned.how != "noised":
            return
        party = self._planned.party
        given = {"adjacency": adjacency, "noise multiplier": noise.multiplier}
        due = {"adjacency": party["adjacency"], "noise multiplier": party["noise"]["multiplier"]}
        for name, value in due.items():
            if given[name] != value:
                raise _broken(step, f"its {name} is {given[name]} where {value} is planned")
        deviation = self._planned.deviation(min(step, self._planned.steps), self._bound)
        fault = self._planned.fault(step, deviation, total.bound, self._bound)
        if fault is not None:
            raise _broken(step, fault)
        self._sampled = _Sampled.of({} if total.noised else total.total, deviation)

    def after(self, step: int, release: Release) -> None:
        """Raises `NotAsPlanned` where the release is not what the plan says; it has not left."""
        planned, how = self._planned, release.how
        if planned.how == "unprotected":
            return
        if type(how) is not {"noised": Noised, "inherited": Inherited}[planned.how]:
            found = type(how).__name__.lower()
            raise _broken(step, f"it is {found} where {planned.how} is planned")
        if not isinstance(how, Noised):
            return
        bound = self._bound if how.bound is None else how.bound
        fault = planned.fault(step, how.deviation, bound, self._bound)
        if fault is None and self._sampled.implausible(release.total):
            fault = (
                "the noise that was added, measured on some of its entries, has not the deviation "
                f"{how.deviation:.6g} that it is said to have"
            )
        if fault is not None:
            raise _broken(step, fault)
        if planned.moves:
            self._bound = planned.following(self._bound, float(release.total[BELOW]))


_REMEDY = (
    "a part of your own or of nacre does not do what was priced: end the run (`nacre abandon RUN`) "
    "and mend the part, or report it"
)


def _broken(step: int, fault: str) -> NotAsPlanned:
    return NotAsPlanned(
        f"release {step} is not what plan.json promises ({fault}), so it was held back; {_REMEDY}"
    )


def _require_draw(planned: JsonFacts, sampling: Sampling) -> None:
    kind, rate = sampling.kind, float(sampling.facts()["rate"])
    same = _same(sampling.expected, planned["expected"]) and _same(rate, planned["rate"])
    if kind != planned["kind"] or not same:
        raise NotAsPlanned(
            f"units would be drawn by {kind} sampling at rate {rate:.6g}, "
            f"{sampling.expected:.6g} a step, where plan.json says {planned['kind']} at "
            f"{planned['rate']:.6g}, {planned['expected']:.6g} a step: nothing was released; "
            f"{_REMEDY}"
        )


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_SAME)


_TENSORS, _ENTRIES = 32, 1024  # that noise is measured on, at most
_FEWEST = 16
_ODDS = 40.0  # nats: honest noise is refused once in e**40 releases


@dataclass(frozen=True)
class _Sampled:
    """Some entries of a sum before it is noised, and the deviation that is due."""

    names: list[str]
    before: NDArray[np.float64]  # one after another
    starts: list[int]  # of each tensor's entries
    deviation: float

    @classmethod
    def of(cls, total: Tensors, deviation: float) -> _Sampled:
        """Entries of a few tensors, spread evenly over their names."""
        whole = (name for name, value in total.items() if value.is_contiguous() and value.numel())
        names = sorted(whole)
        picked = names[:: max(1, -(-len(names) // _TENSORS))]
        before, starts = _entries(total, picked)
        return cls(picked, before, starts, deviation)

    def implausible(self, released: Tensors) -> bool:
        """Whether noise of this deviation would almost never look so: by Chernoff's bound on both
        tails of a chi-square."""
        if not self.names:
            return False
        after, _ = _entries(released, self.names)
        with np.errstate(all="ignore"):  # a sum that is not finite is implausible by its number
            drawn = np.square((after - self.before) / self.deviation)
        sizes = np.diff([*self.starts, len(after)]).tolist()
        found = np.add.reduceat(drawn, self.starts).tolist()
        largest = np.maximum.reduceat(np.abs(self.before), self.starts).tolist()
        count, squares = 0, 0.0
        for size, square, most in zip(sizes, found, largest, strict=True):
            if most * 2.0**-23 > self.deviation / 100:
                continue  # rounding to float32 is no longer small beside the noise
            if _odd(size, square):
                return True
            count, squares = count + size, squares + square
        return _odd(count, squares)


def _entries(values: Tensors, names: list[str]) -> tuple[NDArray[np.float64], list[int]]:
    """The first entries of these tensors, one after another, and where each one's start."""
    parts = [values[name].detach().reshape(-1)[:_ENTRIES].cpu() for name in names]
    starts = [0, *itertools.accumulate(map(len, parts))][:-1]
    return torch.cat([*parts, torch.zeros(0)]).double().numpy(), starts


def _odd(count: int, squares: float) -> bool:
    if count < _FEWEST:
        return False
    ratio = squares / count
    return not (ratio > 0 and count / 2 * (1 - ratio + math.log(ratio)) >= -_ODDS)

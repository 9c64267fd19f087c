"""Answers held against what was asked and paid for, before they leave and when they are read again.

The scale that is due is computed from the query by itself: from its budget, the rows of a person
that count, and the range of a row. Neither OpenDP nor the code that answers has a share in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nacre.core.errors import NotAsPlanned
from nacre.differential_privacy.queries import Choice, Keys, Mean, QueryOption, Sum, Variance
from nacre.statistics.noisy_numbers import rho

if TYPE_CHECKING:
    from dp_accounting import DpEvent

_SAME = 1e-3
"""Relative: numbers are rounded to a grid, whose sensitivity is a whole number of cells."""


@dataclass(frozen=True)
class NoiseCount:
    """How often the noise of an answer was added: once, or by each of several parties."""

    added: int
    """Shares that are in each number."""
    counted: int
    """Shares that epsilon rests on: as many have the whole noise that is due."""

    @property
    def surplus(self) -> float:
        """By how much the deviation is larger than what is due; at least 1."""
        return math.sqrt(self.added / self.counted)


@dataclass(frozen=True, kw_only=True)
class DueNoise:
    """What an answer says of its own noise."""

    name: str
    scale: float
    values: int  # numbers that were released
    epsilon: float
    delta: float
    noise: NoiseCount = NoiseCount(1, 1)


def scale_due(query: QueryOption) -> float:
    """The scale that the noise of each sum or count of this query has to have: Laplace scale, or
    standard deviation. Of a choice 0, since it adds none to what it shows."""
    if isinstance(query, Choice):
        return 0.0
    if isinstance(query, Keys):
        return query.rows_per_unit / query.epsilon
    parts, reach = 1, 1.0
    match query:
        case Sum():
            reach = max(abs(query.low), abs(query.high))
        case Mean():
            reach, parts = (query.high - query.low) / 2, 1 + (query.size is None)
        case Variance():  # the answer states the noise of its sum of squares
            reach, parts = ((query.high - query.low) / 2) ** 2, 2 + (query.size is None)
        case _:
            pass
    moved = query.rows_per_unit * reach
    if query.delta == 0:
        return moved * parts / query.epsilon
    return moved * math.sqrt(parts / (2 * rho(query.epsilon, query.delta)))


def require_due(query: QueryOption, noise: DueNoise) -> None:
    """Raises `NotAsPlanned` for an answer whose noise is not what the query pays for."""
    fault = None
    if (noise.name, noise.epsilon, noise.delta) != (query.name, query.epsilon, query.delta):
        fault = f"it is that of {noise.name!r} at epsilon {noise.epsilon:g}"
    elif not 1 <= noise.noise.counted <= noise.noise.added:
        fault = f"it rests on {noise.noise.counted} of {noise.noise.added} shares of noise"
    elif noise.values:
        due = scale_due(query) * noise.noise.surplus
        if not math.isclose(noise.scale, due, rel_tol=_SAME):
            fault = f"its noise has scale {noise.scale:.6g} where {due:.6g} is paid for"
    if fault is not None:
        raise NotAsPlanned(
            f"the answer to query {query.name!r} is not what was paid for ({fault}), so it is not "
            "given: do not rely on its epsilon, and report it"
        )


def require_charged(charged: DpEvent, events: Sequence[DpEvent], unit: str) -> None:
    """Raises `NotAsPlanned` unless the ledger's entry, as it is read from there, is for these
    answers together. `unit` names them in the message."""
    import dp_accounting

    together = events[0] if len(events) == 1 else dp_accounting.ComposedDpEvent(list(events))
    if charged != together:
        raise NotAsPlanned(
            f"the ledger was charged for other answers about {unit} than were computed, so none is "
            "given: report it"
        )


def recorded(answer: Any) -> DueNoise:
    """The noise of an answer in a file that `nacre release -o` wrote. Raises as JSON of another
    form does: `KeyError`, `TypeError`, `ValueError`."""
    name, values = answer["name"], answer["values"]
    if not isinstance(name, str) or not isinstance(values, list):
        raise TypeError(json.dumps([name, values])[:80])
    shares = answer.get("shares", {"added": 1, "counted": 1})
    return DueNoise(
        noise=NoiseCount(int(shares["added"]), int(shares["counted"])),
        name=name,
        scale=float(answer["scale"]),
        values=len(values),  # pyright: ignore[reportUnknownArgumentType]
        epsilon=float(answer["epsilon"]),
        delta=float(answer["delta"]),
    )

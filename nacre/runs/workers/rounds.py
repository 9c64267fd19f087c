"""What each party did in each round, for the owner of its rows: local/rounds.jsonl.

How long a party computed, how far its weights moved and what its loss was are figures on its rows,
which no noise has reached: they lie in `local/` and go into no message and no public page. Of many
parties the quantiles of a round's cohort are kept, so that a line does not grow with it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nacre.core.tensors import norm
from nacre.core.types import Release, Tensors

FILE = "rounds.jsonl"
SINGLE = 32
"""Parties of which each has figures of its own; of more, quantiles are kept."""
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of a round's cohort: least, quartiles, greatest."""


@dataclass(frozen=True)
class Took:
    """What a party's local steps of one round were like."""

    seconds: float
    norm: float | None  # L2, of the change that it sends; None where it is not finite
    loss: float | None  # mean over its steps; None where none was computed apart from its gradients

    @classmethod
    def of(cls, release: Release, begun: float, loss: float | None) -> Took:
        """Of steps that began at `begun` of `time.perf_counter()` and gave `release`."""
        seconds, length = time.perf_counter() - begun, norm(release.total)
        known = loss if loss is not None and math.isfinite(loss) else None
        return cls(seconds, length if math.isfinite(length) else None, known)

    @classmethod
    def of_stack(cls, releases: Sequence[Release], begun: float, loss: float | None) -> list[Took]:
        """Of parties that began at `begun` together: each with an equal part of the time."""
        seconds = (time.perf_counter() - begun) / len(releases)
        return [replace(cls.of(each, begun, loss), seconds=seconds) for each in releases]


class RoundLog:
    """Appends a line a round. A round that is taken again after a crash has a second line, and the
    first one counts, since replies that were stored take no time."""

    def __init__(
        self,
        file: Path | None,  # None keeps nothing
        parties: int,  # of the run
    ) -> None:
        self._file, self._single = file, parties <= SINGLE
        self._took: dict[str, Took] = {}

    def took(self, name: str, took: Took) -> None:
        """Notes a party of the round that goes on."""
        if self._file is not None:
            self._took[name] = took

    def end(
        self,
        number: int,  # of the round, from 1
        asked: int,  # parties
        sizes: Mapping[str, int],  # party -> bytes of its reply, of those that answered
    ) -> None:
        """Writes the line of a round."""
        took, self._took = self._took, {}
        if self._file is None:
            return
        parties = {name: _facts(took.get(name), size) for name, size in sorted(sizes.items())}
        facts: dict[str, Any] = {"round": number, "asked": asked, "answered": len(parties)}
        if self._single:
            facts["parties"] = parties
        else:
            facts["quantiles"] = {
                key: _quantiles([each[key] for each in parties.values() if key in each])
                for key in ("bytes", "seconds", "norm", "loss")
            }
        with self._file.open("ab") as file:
            # A line that a crash cut short stays apart from this one.
            file.write(b"\n" + json.dumps(facts).encode() + b"\n")


def noted(
    train: Callable[[Tensors, int], Release],
    name: str,
    log: RoundLog,
    loss: Callable[[], float | None],  # of the last steps
) -> Callable[[Tensors, int], Release]:
    """`train`, of which each round is noted."""

    def timed(weights: Tensors, number: int) -> Release:
        begun = time.perf_counter()
        release = train(weights, number)
        log.took(name, Took.of(release, begun, loss()))
        return release

    return timed


def _facts(took: Took | None, size: int) -> dict[str, float]:
    found: dict[str, float] = {"bytes": size}
    if took is not None:
        known = {"seconds": took.seconds, "norm": took.norm, "loss": took.loss}
        found |= {key: value for key, value in known.items() if value is not None}
    return found


def _quantiles(values: list[float]) -> list[float]:
    found: list[float] = np.quantile(values, QUANTILES).tolist() if values else []
    return found

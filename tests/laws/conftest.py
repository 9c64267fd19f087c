"""Runs that are cut at the release: what one unit moves in them, and that it moves nothing else."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nacre.core.parts import NoiseState
from nacre.core.random import Source
from nacre.core.types import Adjacency, BoundedSum, Release
from nacre.runs import rows
from nacre.training.fit import Journalled

KEY = bytes(range(32))

Sums = list[BoundedSum]


@pytest.fixture
def known_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key, name and number that comes from the operating system is the same in all runs."""
    monkeypatch.setattr(os, "urandom", lambda count: (KEY * count)[:count])  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    monkeypatch.setattr(secrets, "token_hex", lambda count=8: "0" * (2 * count))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    monkeypatch.setattr(rows, "_hmac", lambda *_: "0" * 64)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]


@pytest.fixture
def cut(known_keys: None, monkeypatch: pytest.MonkeyPatch) -> Sums:
    """The noiseless sums, in order. Each is zeroed as it enters the noise, whose key is that of its
    step: so whatever else differs between runs on neighbouring data went around the release."""
    found: Sums = []
    real = Journalled.add

    def add(
        self: Journalled, total: BoundedSum, state: NoiseState, source: Source,
        adjacency: Adjacency, *, consume: bool = False,
    ) -> tuple[Release, NoiseState]:  # fmt: skip
        if self.multiplier is not None:  # without noise the sum was made of releases, or is no end
            found.append(total)
            zero = BoundedSum.zero(total.total, total.bound)
            total = replace(zero, noised=total.noised)
            source = Source(KEY).child("cut", self.step)
        return real(self, total, state, source, adjacency, consume=consume)

    monkeypatch.setattr(Journalled, "add", add)
    return found


def moved(sums: Sums) -> list[float]:
    """How far the sums of two runs lie apart, step by step, in units of the bound."""
    half = len(sums) // 2
    assert len(sums) == 2 * half and half
    return [_distance(one, other) for one, other in zip(sums[:half], sums[half:], strict=True)]


def _distance(one: BoundedSum, other: BoundedSum) -> float:
    assert one.bound == other.bound
    squares = (float((one.total[n] - other.total[n]).double().square().sum()) for n in one.total)
    return sum(squares) ** 0.5 / one.bound


_OWN = ("created", "estimates", "hash", "head", "time")
"""What is of its own in each run: moments, chains of hashes, how long a trial of the model took."""


def written(run: Path) -> dict[str, Any]:
    """Everything that a run wrote outside `local/`, by its place."""
    paths = (path for path in sorted(run.rglob("*")) if path.is_file())
    places = {path: path.relative_to(run).parts for path in paths}
    return {
        "/".join(names): _content(path) for path, names in places.items() if "local" not in names
    }


def _content(path: Path) -> Any:
    data = path.read_bytes()
    if path.suffix == ".json":
        return _masked(json.loads(data))
    if path.suffix == ".safetensors":  # whose header stands in no order
        size = 8 + int.from_bytes(data[:8], "little")
        return json.loads(data[8:size]), data[size:]
    return data


def _masked(facts: Any) -> Any:
    if isinstance(facts, dict):
        return {key: _masked(value) for key, value in facts.items() if key not in _OWN}  # pyright: ignore[reportUnknownVariableType]
    return [_masked(one) for one in facts] if isinstance(facts, list) else facts  # pyright: ignore[reportUnknownVariableType]

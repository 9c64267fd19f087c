"""Tiny recipes that train in a second; every test of a whole run starts from one of them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nacre.recipe.load import loads
from nacre.recipe.schema import Recipe
from nacre.runs.progress import Silent

CENTRAL: dict[str, Any] = {
    "nacre": 1,
    "name": "tiny",
    "data": {
        "kind": "builtin",
        "name": "iris",
        "size": 120,
        "public_demonstration": True,
        "test": {"share": 0.2},
    },
    "model": {"kind": "mlp", "hidden": [4]},
    "gradient_clipping": {"kind": "flat", "norm": 1.0},
    "differential_privacy": {"epsilon": 8, "delta": 1.0e-4},
    "training": {"steps": 6, "batch": 60, "checkpoint": 2, "optimizer": {"kind": "adam"}},
    "ledger": {
        "path": "privacy.db",
        "dataset": "iris",
        "grant": {"epsilon": 8, "delta": 1.0e-4, "rule": "pld"},
    },
}

FEDERATED: dict[str, Any] = CENTRAL | {
    "federated_learning": {
        "parties": {"kind": "uniform", "names": ["a", "b"]},
        "rounds": 4,
        "local": {"steps": 2},
    },
    "training": {"batch": 40, "checkpoint": 2, "optimizer": {"kind": "sgd", "lr": 0.2}},
}


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with dotted keys set, or removed where the value is None."""
    copy = _sorted(base)
    for key, value in changes.items():
        *path, last = key.split(".")
        place = copy
        for step in path:
            place = place.setdefault(step, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return copy


def _sorted(value: Any) -> Any:
    """A copy, its keys in order."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list | tuple) else value


def text(base: dict[str, Any], **changes: Any) -> str:
    """The YAML of a changed recipe; `__` in a keyword stands for a dot."""
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return yaml.dump(changed(base, dotted), Dumper=_DUMPER, sort_keys=False)


_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # five times as fast


def recipe(folder: Path, base: dict[str, Any], **changes: Any) -> Recipe:
    """A changed recipe whose paths are relative to `folder`."""
    return loads(text(base, **changes), "tiny.yaml", folder=folder)


def patients(file: Path, people: int = 60, rows: int = 3, seed: int = 0) -> Path:
    """A table of made-up patients with several visits each, in two hospitals."""
    generator = np.random.default_rng(seed)
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["patient", "hospital", "age", "sex", "dose", "ill"])
        for person in range(people):
            age = generator.uniform(20, 90)
            for _ in range(generator.integers(1, rows + 1)):
                dose = generator.uniform(0, 10)
                ill = "yes" if age / 90 + dose / 10 + generator.normal(0, 0.2) > 1.1 else "no"
                hospital = "north" if person % 2 else "south"
                sex = "f" if person % 3 else "m"
                writer.writerow([f"p{person}", hospital, f"{age:.1f}", sex, f"{dose:.2f}", ill])
    return file


TABLE: dict[str, Any] = CENTRAL | {
    "data": {
        "kind": "table",
        "path": "patients.csv",
        "target": "ill",
        "classes": ["no", "yes"],
        "drop": ["hospital"],
        "unit": "patient",
        "size": 48,
        "columns": {
            "age": {"low": 0, "high": 120},
            "sex": {"categories": ["f", "m"]},
            "dose": {"low": 0, "high": 10},
        },
        "holdout": {"share": 0.2},
    },
    "differential_privacy": {
        "unit": "group", "rows_per_unit": 2, "epsilon": 8, "delta": 1.0e-3,
    },
    "training": {"steps": 6, "batch": 24, "checkpoint": 2},
    "ledger": {
        "path": "privacy.db",
        "dataset": "patients",
        "grant": {"epsilon": 8, "delta": 1.0e-3, "rule": "pld"},
    },
}  # fmt: skip


class Stopped(Exception):
    """Stands for whatever ends a process at this place."""


class StopAfter(Silent):
    """Stops a run when its training stage has advanced so often."""

    def __init__(self, steps):
        self.left = steps

    def stage(self, name, total):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

    def __call__(self, count=1, note="", total=None):
        if count:
            self.left -= 1
        if self.left == 0:
            raise Stopped

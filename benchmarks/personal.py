"""Layers that stay with the parties against a common model, at each party.

    python benchmarks/personal.py [SEEDS]

Digits, 10 simulated parties with classes of their own (Dirichlet), 40 rounds of 5 local steps. Each
party's model answers for test rows that the same rule and seed deals to it, so for its own mixture
of classes; the common model of FedAvg answers for the same rows.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from nacre.core.files import read_json
from nacre.models import load
from nacre.planning.plan import plan
from nacre.recipe.load import loads
from nacre.runs.begin import trained_on
from nacre.runs.evaluation.personal import FIGURES, rows_outside
from nacre.runs.run import Run, train
from nacre.training import pieces
from nacre.training.curve import figures

VARIANTS: dict[str, list[str]] = {
    "FedAvg": [],
    "head at home (FedPer)": ["head"],
    "norms at home (as FedBN)": ["norms"],
    "both at home": ["head", "norms"],
}
ALPHAS = (0.1, 0.5)
PRIVACY: dict[str, Any] = {
    "gradient_clipping": {"kind": "flat", "norm": 1.0},
    "differential_privacy": {"unit": "example", "epsilon": 8, "delta": 1e-4},
    "ledger": {
        "path": "{run}/privacy.db", "dataset": "digits",
        "grant": {"epsilon": 8, "delta": 1e-4},
    },
}  # fmt: skip


def recipe(personal: list[str], alpha: float, seed: int, private: bool) -> dict[str, Any]:
    return {
        "nacre": 1,
        "name": "personal layers",
        "seed": seed,
        "data": {
            "kind": "builtin", "name": "digits", "size": 1258, "public_demonstration": True,
            "test": {"share": 0.3},
        },
        "model": {"kind": "cnn", "channels": [8, 16], "hidden": 32},
        "federated_learning": {
            "parties": {"kind": "dirichlet", "names": {"count": 10}, "alpha": alpha}
            if not private
            else {"kind": "dirichlet", "names": [f"p{i}" for i in range(10)], "alpha": alpha},
            "rounds": 40,
            "local": {"steps": 5, "personal": personal},
        },
        "training": {"batch": 20, "optimizer": {"kind": "sgd", "lr": 0.2}},
        "execution": {"workers": 1},
    } | (PRIVACY if private else {})  # fmt: skip


def at_each_party(run: Run) -> list[float]:
    """Accuracy at the parties that have test rows."""
    path = run.folder.personal / FIGURES
    if path.exists():
        found = read_json(path)["parties"].values()
        return [each["accuracy"] for each in found if "accuracy" in each]
    held = trained_on(run.recipe, run.folder, lambda *_: None)
    model, task = load(run.path), pieces.task_of(held.schema)
    parts = rows_outside(run.recipe, held).values()
    return [figures(model, task, rows)["accuracy"] for rows in parts if len(rows)]


def main(seeds: int) -> None:
    cases = [(alpha, False) for alpha in ALPHAS] + [(0.5, True)]
    for alpha, private in cases:
        print(f"alpha {alpha:g}{', epsilon 8 of a row' if private else ''}")
        for name, personal in VARIANTS.items():
            means, worst, begun = [], [], time.process_time()
            for seed in range(seeds):
                with tempfile.TemporaryDirectory() as folder:
                    text = yaml.safe_dump(recipe(personal, alpha, seed, private))
                    made = loads(text, folder=Path(folder))
                    found = at_each_party(train(plan(made), Path(folder) / "run"))
                means.append(statistics.mean(found))
                worst.append(min(found))
            spent = (time.process_time() - begun) / seeds
            print(
                f"  {name:26} mean {statistics.mean(means):.3f} "
                f"({min(means):.3f} to {max(means):.3f}), worst party "
                f"{statistics.mean(worst):.3f}, {spent:.1f} CPU s a run",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)

"""A realistic run folder: three hospitals at epsilon 4, compared, attacked, charged."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

HEAD = hashlib.sha256(b"head").hexdigest()
RECIPE = """# Three hospitals improve a public model together.
nacre: 1
name: clinic
seed: 0
data:
  kind: builtin
  name: breast_cancer
  size: 313
  public_demonstration: true
model: {kind: mlp, hidden: [16], activation: relu}
gradient_clipping: {kind: flat, norm: 0.5}
federated_learning:
  parties: {kind: uniform, names: [east, north, south]}
  rounds: 20
differential_privacy: {unit: example, epsilon: 4, delta: 1.0e-4}
adversarial_training:
  kind: trades
  beta: 4
  attack: {kind: pgd, steps: 7, ball: {kind: linf, radius: 0.3}}
ledger: {path: "{run}/privacy.db", dataset: clinic}
audit: [membership, evasion]
compare: [unprotected, public_base]
"""


def party(name: str, size: int, epsilon: float) -> dict[str, Any]:
    steps = [1, 2, 5, 10, 15, 20]
    return {
        "name": name,
        "account": f"clinic/{name}",
        "size": size,
        "unit": "example",
        "adjacency": "add_or_remove",
        "sampling": {"kind": "poisson", "expected": 80, "rate": 80 / size},
        "clip": {"kind": "flat", "norm": 0.5},
        "noise": {"kind": "gaussian", "multiplier": 4.4192},
        "steps": 20,
        "epsilon": epsilon,
        "delta": 1e-4,
        "accountant": "pld",
        "epsilon_by_step": [[step, epsilon * math.sqrt(step / 20)] for step in steps],
        "takes": {"rule": "pld", "share": epsilon / 4},
    }


def plan() -> dict[str, Any]:
    return {
        "nacre": "0.1.0",
        "name": "clinic",
        "recipe_digest": hashlib.sha256(RECIPE.encode()).hexdigest(),
        "created": "2026-03-02T09:14:00+00:00",
        "seed": 0,
        "task": "classification",
        "private": True,
        "rounds": 20,
        "parties": [
            party("east", 105, 3.971),
            party("north", 104, 3.998),
            party("south", 104, 3.998),
        ],
        "techniques": {
            "gradient_clipping": "Each unit's gradient is scaled down to at most 0.5.",
            "fine_tuning": "All weights are trained on the private rows, from a base trained for "
            "200 steps on public rows.",
            "federated_learning": "3 parties keep their rows and send changes of the weights, up "
            "to 20 rounds of 1 local steps; the server takes the mean of the changes.",
            "differential_privacy": "Gaussian noise hides one row: epsilon at most 4 at delta "
            "0.0001, neighbours by add-or-remove.",
            "adversarial_training": "TRADES trains on inputs moved by PGD inside an linf ball of "
            "radius 0.3.",
        },
        "assumptions": [
            "The run key in `local/` stays secret while the run is open.",
            "The declared sizes, ranges and classes are public knowledge, not read off the rows.",
            "Real numbers are approximated by 32-bit floating point; attacks on that approximation "
            "(Mironov 2012) are not excluded.",
            "Each party trusts itself only: what it sends is noised for its own rows already.",
        ],
        "not_covered": [
            "Settings (noise, steps, learning rate, radius) chosen by looking at the same rows.",
            "What the model lets one infer about people who are not in the data.",
            "Attacks stronger than those listed; an attack that fails proves nothing.",
        ],
        "model": {"kind": "mlp", "parameters": 530, "words": "mlp 16"},
        "estimates": {"seconds": 12.0, "memory_bytes": 52428800},
    }


def outcome() -> dict[str, Any]:
    curve = [0.887, 0.908, 0.915, 0.93, 0.923, 0.937, 0.944, 0.937, 0.951, 0.944]
    return {
        "done": 20,
        "planned": 20,
        "stopped": "completed",
        "seconds": {"base": 0.412, "training": 5.82, "unprotected twin": 1.204},
        "provenance": {
            "python": "3.11.2",
            "platform": "Linux-6.1-x86_64",
            "packages": {"nacre": "0.1.0", "torch": "2.13.0", "numpy": "2.3.1"},
            "recipe_digest": hashlib.sha256(RECIPE.encode()).hexdigest(),
            "data_hmac": hashlib.sha256(b"data").hexdigest(),
            "seed": 0,
            "noise_key": "drawn from the operating system, destroyed at the end of the run",
        },
        "curve": [
            {"round": 2 * place, "accuracy": value, "loss": 0.3}
            for place, value in enumerate(curve, 1)
        ],
    }


def interval(value: float, reach: float) -> dict[str, float]:
    return {"value": value, "low": value - reach, "high": value + reach}


def picture(shape: list[int] | None = None) -> dict[str, Any]:
    clean = [
        [
            1.0 if 2 <= x <= 5 and (y in (1, 6) or x in (2, 5)) and 1 <= y <= 6 else 0.0
            for x in range(8)
        ]
        for y in range(8)
    ]
    attacked = [
        [abs(value - (0.2 if (x * y) % 3 else 0.05)) for x, value in enumerate(row)]
        for y, row in enumerate(clean)
    ]
    return {
        "shape": shape or [1, 8, 8],
        "clean": clean,
        "attacked": attacked,
        "label": "0",
        "before": "0",
        "after": "8",
        "share": 0.75,
    }


def row() -> dict[str, Any]:
    changes = [
        ("mean radius", 14.22, 15.28, [0.58, 0.98]),
        ("worst texture", 27.6, 25.8, [0.26, -0.01]),
        ("area error", 23.1, 36.7, [-0.3, 0.1]),
    ]
    return {
        "label": "benign",
        "before": "benign",
        "after": "malignant",
        "share": 0.5,
        "changes": [{"feature": n, "before": b, "after": a, "scaled": s} for n, b, a, s in changes],
    }


def stage(name: str, tried: int, broke: int, steps: float | None) -> dict[str, Any]:
    passes = {"forwards": 51 * tried, "backwards": 50 * tried}
    return {"name": name, "tried": tried, "broke": broke, **passes, "median_steps": steps}


def evasion(**details: Any) -> dict[str, Any]:
    curve = [(0.0, 0.947), (0.25, 0.93), (0.5, 0.904), (0.75, 0.868), (1.0, 0.833)]
    return {
        "audit": "evasion",
        "headline": "Accuracy under attack",
        "unit": "share",
        "claim": "none: no radius is certified; moves of at most 0.3 (linf) were tried",
        "measure": "attacked accuracy: share of test rows whose right answer no attack changed",
        "value": 0.833,
        "low": 0.752,
        "high": 0.897,
        "confidence": 0.95,
        "verdict": "measured",
        "public": True,
        "details": {
            "rows_tested": 114,
            "clean": interval(0.947, 0.04),
            "curve": [
                {
                    "share": s,
                    "radius": 0.3 * s,
                    "value": v,
                    "low": v - 0.06,
                    "high": min(1, v + 0.05),
                }
                for s, v in curve
            ],
            "stages": [
                stage("APGD-PMA", 108, 12, 3.0),
                stage("APGD-CE", 96, 1, 31.0),
                stage("Square-500", 95, 0, None),
            ],
            "warnings": [],
            "notes": [],
            "pictures": [picture(), picture([8, 8])],
            "rows": [row()],
        }
        | details,
    }


BALL = {"kind": "linf", "radius": 0.3, "unit": "scaled"}


def certificate(**details: Any) -> dict[str, Any]:
    curve = [(0.0, 0.947), (0.25, 0.9), (0.5, 0.6), (0.75, 0.4), (1.0, 0.3)]
    return {
        "audit": "certificate",
        "headline": "Certified accuracy",
        "unit": "share",
        "claim": "no input inside an linf ball of radius 0.3 in scaled units changes the answer",
        "measure": "certified accuracy: share of test rows proved by linear bounds",
        "value": 0.3,
        "low": 0.22,
        "high": 0.39,
        "confidence": 0.95,
        "verdict": "measured",
        "public": True,
        "details": {
            "rows_tested": 114,
            "curve": [
                {"share": s, "radius": 0.3 * s, "value": v, "low": v - 0.06, "high": v + 0.05}
                for s, v in curve
            ],
            "ball": BALL,
            "method": "crown",
            "smoothed": False,
            "failure": 0.0,
            "notes": [],
        }
        | details,
    }


def membership(verdict: str = "not distinguishable from none") -> dict[str, Any]:
    return {
        "audit": "membership",
        "headline": "Membership advantage",
        "unit": "signed",
        "claim": "one row moves no probability by more than epsilon=4 at delta=0.0001",
        "measure": "membership advantage: true minus false positive rate of the better attack",
        "value": 0.021,
        "low": -0.094,
        "high": 0.136,
        "confidence": 0.95,
        "verdict": verdict,
        "public": True,
        "details": {
            "roc": [{"fpr": f, "tpr": t} for f, t in [(0.01, 0.02), (0.1, 0.12), (0.5, 0.54)]],
            "notes": ["no reference model: only the loss threshold was tried"],
            "epsilon": {"claimed": 4.0, "delta": 1e-4, "one_run": 0.0, "independent_rows": 0.12},
        },
    }


def comparison() -> dict[str, Any]:
    def variant(
        name: str, clean: float, attacked: float, member: float, note: str
    ) -> dict[str, Any]:
        return {
            "name": name,
            "accuracy": interval(clean, 0.025),
            "attacked_accuracy": interval(attacked, 0.07),
            "membership_advantage": interval(member, 0.11),
            "note": note,
        }

    return {
        "variants": [
            variant("protected", 0.947, 0.833, 0.021, "the model of this run"),
            variant(
                "unprotected", 0.974, 0.412, 0.138, "the same recipe without noise, per-unit "
                "clipping and adversarial training; trained on rows declared public, so it charges "
                "nothing",
            ),
            variant("public base", 0.886, 0.544, -0.012, "the model before any private row"),
        ],
        "rows": 114,
        "confidence": 0.95,
    }  # fmt: skip


def ledger() -> dict[str, Any]:
    def account(name: str, spent: float) -> dict[str, Any]:
        kinds = [
            ("grant", "epsilon 4 at delta 0.0001 by pld"),
            ("reserve", f"{spent:.4f} for 20 steps"),
            ("settle", "20 of 20 steps released"),
        ]
        return {
            "account": f"clinic/{name}",
            "unit": "example",
            "rule": "pld",
            "granted": {"epsilon": 4.0, "delta": 1e-4},
            "spent": {"epsilon": spent},
            "left": {"epsilon": 0.0, "share": 0.0},
            "entries": [
                {
                    "index": place,
                    "time": f"2026-03-02T09:14:0{place}+00:00",
                    "kind": kind,
                    "run": None if kind == "grant" else "8f31c0",
                    "summary": said,
                    "hash": hashlib.sha256(f"{name}{kind}".encode()).hexdigest(),
                }
                for place, (kind, said) in enumerate(kinds, 1)
            ],
        }

    accounts = [account("east", 3.971), account("north", 3.998), account("south", 3.998)]
    return {"accounts": accounts, "head": HEAD, "verified": True}


def released() -> list[dict[str, Any]]:
    sources = [f"the noised steps of {name}" for name in ("east", "north", "south")]
    noised = {"deviation": 4.4192 * 0.5, "bound": 0.5}
    parties = {name: [noised] for name in ("east", "north", "south")}
    how = {"how": "inherited", "sources": sources, "parties": parties}
    return [{"step": step, **how} for step in range(1, 21)]


MODEL = {
    "format": 1,
    "option": {"kind": "mlp", "hidden": [16]},
    "shape": [30],
    "outputs": 2,
    "task": "classification",
    "scaler": None,
}


def write(folder: Path, **other: Any) -> Path:
    """A run folder of the sample; `other` replaces a file's value, None leaves it out.

    Names are the files' own without their ending: plan, outcome, released, findings, …
    """
    files: dict[str, Any] = {
        "plan": plan(),
        "outcome": outcome(),
        "released": released(),
        "findings": {"findings": [membership(), evasion()]},
        "comparison": comparison(),
        "ledger": ledger(),
        "model": MODEL,
        "recipe": RECIPE,
    } | other
    (folder / "local").mkdir(parents=True)
    for name, value in files.items():
        if name == "recipe" and value is not None:
            (folder / "recipe.yaml").write_text(value)
        elif name == "released" and value is not None:
            lines = "".join(json.dumps(line) + "\n" for line in value)
            (folder / "released.jsonl").write_text(lines)
        elif value is not None:
            (folder / f"{name}.json").write_text(json.dumps(value))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def unprotected_plan() -> dict[str, Any]:
    """A plan without differential privacy: one holder, no price."""
    found = plan()
    silent = {"epsilon": None, "delta": None, "accountant": None, "account": None, "takes": None}
    only: dict[str, Any] = party("all rows", 313, 1.0) | silent | {"epsilon_by_step": []}
    only |= {
        "clip": {"kind": "unclipped", "norm": None},
        "noise": {"kind": "nonoise", "multiplier": None},
    }
    return found | {
        "private": False,
        "parties": [only],
        "techniques": dict.fromkeys(found["techniques"]),
    }

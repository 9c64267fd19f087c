"""Private tables beside what people use: AUROC of Nacre, of DP-EBM and of diffprivlib on the same
splits.

    python benchmarks/tables.py [--json] [--quick] [--keep FILE] [--only PART …] [--seeds N]

Adult, credit default, heart disease of four hospitals, German credit and Pima diabetes from
../shared/data, at epsilon 1 and 3, delta 1e-5 (1e-4 below 5,000 rows), each seed with a split of
its own. Nacre trains a small network (tasks.py), once on plain numbers and once on numbers in 16
declared bins. DP-EBM is `interpret-core` (Nori et al. 2021) with its own defaults, given the very
rows that the run trained on and the ranges that are declared: `pip install --no-deps
interpret-core`. The logistic regression of diffprivlib (Chaudhuri, Monteleoni and Sarwate 2011,
delta 0) is given the inputs that the network sees and the largest norm that their ranges allow; it
needs an older scikit-learn: `pip install --no-deps diffprivlib scikit-learn==1.5.2`, in a folder of
their own. Every row has its seeds' mean and deviation.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rows import Row, show
from sklearn.metrics import roc_auc_score

import nacre as n
from nacre.data import Bins, ColumnSpec, Holdout, Rows, Schema
from nacre.models import load
from nacre.runs.rows import read

from tasks import DATA, TASKS, Task  # isort: skip
from utility import recipe  # isort: skip

EPSILONS = (1.0, 3.0)


def _german(folder: Path) -> n.Table:
    """Every column as its documentation lists it; the amount on a log scale."""
    rows = pd.read_csv(DATA / "finance" / "german_credit" / "german_credit.csv.gz")
    rows["amount"] = np.log10(rows["amount"])
    rows.to_csv(folder / "german.csv", index=False)
    ranges = {"duration_months": (0, 72), "amount": (2, 4.5), "age": (18, 80),
              "installment_rate": (1, 4), "residence_since": (1, 4), "existing_credits": (1, 4),
              "dependents": (1, 2)}  # fmt: skip
    columns = {
        name: ColumnSpec(low=ranges[name][0], high=ranges[name][1])
        if name in ranges
        else ColumnSpec(categories=tuple(sorted(set(rows[name]))))
        for name in rows
        if name != "risk"
    }
    return _table("german.csv", "risk", columns, 800)


def _pima(folder: Path) -> n.Table:
    """Eight measurements in ranges that hold what they can be."""
    rows = pd.read_csv(DATA / "medicine" / "pima_diabetes" / "pima_diabetes.csv.gz")
    rows.to_csv(folder / "pima.csv", index=False)
    ranges = {"Pregnancies": (0, 17), "Glucose": (0, 200), "BloodPressure": (0, 130),
              "SkinThickness": (0, 100), "Insulin": (0, 850), "BMI": (0, 70),
              "DiabetesPedigreeFunction": (0, 2.5), "Age": (18, 90)}  # fmt: skip
    columns = {name: ColumnSpec(low=low, high=high) for name, (low, high) in ranges.items()}
    return _table("pima.csv", "Outcome", columns, 614)


def _table(path: str, target: str, columns: dict[str, ColumnSpec], size: int) -> n.Table:
    return n.Table(
        path=path, target=target, classes=("0", "1"), columns=columns, size=size,
        public_demonstration=True, holdout=Holdout(share=0.2),
    )  # fmt: skip


_SMALL = {"model": n.MLP(hidden=()), "delta": 1e-4, "steps": 60, "lr": 1.0, "norm": 1.0}
OF_TABLES: dict[str, Task] = {
    "adult": TASKS["adult"],
    "credit": TASKS["credit"],
    "heart": replace(TASKS["heart"], delta=1e-4),
    "german": Task(data=_german, batch=400, **_SMALL),
    "pima": Task(data=_pima, batch=307, **_SMALL),
}


def main() -> None:
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--quick", action="store_true", help="heart disease at epsilon 3, one seed")
    parser.add_argument("--keep", type=Path, help="a file of finished runs")
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of names")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    if not DATA.exists():
        sys.exit(f"{DATA} is absent: this benchmark needs the shared data")
    torch.set_num_threads(1)
    done: dict[str, dict[str, Any]] = {}
    if asked.keep and asked.keep.exists():
        for line in asked.keep.read_text().splitlines():
            done |= {json.loads(line)["name"]: json.loads(line)}
    wanted = [("heart", 3.0)] if asked.quick else [(t, e) for t in OF_TABLES for e in EPSILONS]
    for task, epsilon in wanted:
        label = f"{task} eps {epsilon:g}"
        if not label.startswith(tuple(asked.only)):
            continue
        for seed in range(1 if asked.quick else asked.seeds):
            name = f"{label} seed {seed}"
            if name not in done:
                done[name] = one(OF_TABLES[task], epsilon, seed) | {"name": name, "label": label}
                if asked.keep:
                    with asked.keep.open("a") as file:
                        file.write(json.dumps(done[name]) + "\n")
    show(figures(list(done.values())), asked.json)


def one(task: Task, epsilon: float, seed: int) -> dict[str, float]:
    """AUROC in points of each way, on the same split."""
    found: dict[str, float] = {}
    for way, chosen in (("plain", task), ("bins", _coded(task))):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            run = n.train(n.plan(recipe(chosen, epsilon, seed, place)), place / "run")
            held = read(run.recipe, run.folder.key(run.folder.holder_key))
            assert held.test is not None
            model = load(run.path)
            with torch.no_grad():
                scores = model(held.test.features).softmax(1)[:, 1].numpy()
            found[way] = _auroc(held.test, scores)
            if way == "plain" and importlib.util.find_spec("interpret") is not None:
                own, schema = held.private[""], held.schema
                found["ebm"] = _ebm(own, held.test, schema, epsilon, task.delta, seed)
            if way == "plain" and importlib.util.find_spec("diffprivlib") is not None:
                found["dpl"] = _diffprivlib(held.private[""], held.test, held.schema, epsilon, seed)
    return found


def _auroc(test: Rows, scores: np.ndarray) -> float:
    return 100 * float(roc_auc_score(test.label.numpy(), scores))


def _coded(task: Task) -> Task:
    """The task with each number in 16 bins of its declared range."""

    def made(folder: Path) -> n.Table:
        table = task.data(folder)
        columns = {
            name: replace(spec, coding=Bins(count=16)) if spec.low is not None else spec
            for name, spec in table.columns.items()
        }
        return replace(table, columns=columns)

    return replace(task, data=made)


def _ebm(own: Rows, test: Rows, schema: Schema, epsilon: float, delta: float, seed: int) -> float:
    """DP-EBM on the same rows: numbers as they were scaled, categories as nominal values."""
    from interpret.privacy import DPExplainableBoostingClassifier

    kinds = ["continuous" if column.numeric() else "nominal" for column in schema.columns]
    train, held = (_frame(rows, schema) for rows in (own, test))
    # Scaling took each declared range to [-1, 1].
    reach = {i: (-1.0, 1.0) for i, kind in enumerate(kinds) if kind == "continuous"}
    model = DPExplainableBoostingClassifier(
        feature_types=kinds, epsilon=epsilon, delta=delta, random_state=seed, n_jobs=1,
        privacy_bounds=reach,
    )  # fmt: skip
    model.fit(train, own.label.numpy())
    return _auroc(test, model.predict_proba(held)[:, 1])


def _diffprivlib(own: Rows, test: Rows, schema: Schema, epsilon: float, seed: int) -> float:
    """Its logistic regression on the same inputs, brought into [0, 1] by their declared ranges."""
    from diffprivlib.models import LogisticRegression

    train, held = (_unit_range(rows, schema) for rows in (own, test))
    # A number is at most 1, and of a category one input is 1: so many columns, so large a norm.
    model = LogisticRegression(
        epsilon=epsilon, data_norm=len(schema.columns) ** 0.5, random_state=seed, max_iter=1000
    )
    model.fit(train, own.label.numpy())
    return _auroc(test, model.predict_proba(held)[:, 1])


def _unit_range(rows: Rows, schema: Schema) -> np.ndarray:
    """(N, F): the inputs of the network, where scaling took numbers from -1 to 1, from 0 to 1."""
    features = rows.features.numpy().astype(np.float64)
    numeric = np.concatenate(
        [np.full(len(column.entries()), column.numeric()) for column in schema.columns]
    )
    return np.clip(np.where(numeric, (features + 1) / 2, features), 0, 1)


def _frame(rows: Rows, schema: Schema) -> np.ndarray:
    """(N, columns): a number, or the place of the category."""
    features, start, found = rows.features.numpy(), 0, []
    for column in schema.columns:
        width = len(column.entries())
        block = features[:, start : start + width]
        found.append(block[:, 0] if column.numeric() else block.argmax(1))
        start += width
    return np.stack(found, axis=1)


def figures(found: list[dict[str, Any]]) -> list[Row]:
    """Each way over its seeds, and how far Nacre's better form lies ahead."""
    rows: list[Row] = []
    words = {"plain": "Nacre, plain numbers", "bins": "Nacre, 16 declared bins", "ebm": "DP-EBM",
             "dpl": "diffprivlib, logistic regression"}  # fmt: skip
    for label in dict.fromkeys(run["label"] for run in found):
        runs = [run for run in found if run["label"] == label]
        for way, said in words.items():
            if all(way in run for run in runs):
                rows.append(Row.over(f"{label}: {said}, AUROC", [run[way] for run in runs]))
        if all("ebm" in run for run in runs):
            best = max(("plain", "bins"), key=lambda way: sum(run[way] for run in runs))
            ahead = [run[best] - run["ebm"] for run in runs]
            what = f"{label}: Nacre's better form ahead of DP-EBM, points"
            rows.append(Row.over(what, ahead, "> 0", lambda points: points > 0))
    return rows


if __name__ == "__main__":
    main()

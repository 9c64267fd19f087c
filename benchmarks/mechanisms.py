"""What correlated noise leaves in the weights, and what that is worth.

    python benchmarks/mechanisms.py [--quick] [--json]

1. The deviation of the noise in the weights (root mean square over the steps of plain gradient
   descent) at equal epsilon, as a share of that of independent noise on Poisson draws; by formula.
2. The same for two noises by simulation, over their formulas.
3. The deviation left by noise of a few buffers (BLT) over that of the best banded noise whose price
   rests on no coin either, for one turn of a unit and for more.
4. Test accuracy on the digits at equal epsilon, over runs with keys of their own.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rows import Row, show

from nacre.core.random import Source
from nacre.core.types import BoundedSum
from nacre.data.sampling import BallsInBins, CyclicPoisson, Poisson
from nacre.differential_privacy.accounting.price import calibrate
from nacre.differential_privacy.events import event
from nacre.differential_privacy.noise.blt import Buffered
from nacre.differential_privacy.noise.correlated import Banded, Tree
from nacre.differential_privacy.noise.factorization import (
    banded,
    buffered,
    mean_squared_error,
    series,
    workload,
)
from nacre.differential_privacy.noise.independent import Gaussian
from nacre.models import load
from nacre.planning.plan import plan
from nacre.recipe.load import loads
from nacre.runs.rows import read
from nacre.runs.run import Run, train
from nacre.training import pieces
from nacre.training.curve import figures

SIZE, BATCH, STEPS, DELTA = 1438, 128, 96, 1e-4
CYCLE = SIZE // BATCH  # the longest one: every unit whose turn it is enters, nearly
BANDS = (2, 4, 8, 11)


def multiplier(sampling: Any, noise_of: Any, epsilon: float) -> float:
    """The least noise that keeps the run within epsilon."""
    return calibrate(
        lambda z: event(sampling, noise_of(z), STEPS, "add_or_remove"), epsilon, DELTA, "pld"
    )[0]


def simulated(noise: Any, width: int) -> float:
    """Root mean square of the noise in the prefix sums."""
    state, prefix, total = noise.init({}), torch.zeros(width), 0.0
    for step in range(STEPS):
        zero = BoundedSum({"w": torch.zeros(width)}, 1.0)
        source = Source.fresh().child(step)
        release, state = noise.add(zero, state, source, "add_or_remove")
        prefix += release.total["w"]
        total += float(prefix.double().square().mean())
    return math.sqrt(total / STEPS)


def errors(epsilons: tuple[float, ...], width: int) -> list[Row]:
    """Parts 1 and 2; the tree by simulation alone."""
    rows: list[Row] = []
    work = workload(STEPS)
    for epsilon in epsilons:
        alone = multiplier(Poisson(BATCH, SIZE), lambda z: Gaussian(multiplier=z), epsilon)
        plain = alone * math.sqrt(mean_squared_error(np.ones(1), work))
        for bands in BANDS:
            c = banded(bands, STEPS)
            z = multiplier(
                CyclicPoisson(BATCH, SIZE, bands),
                lambda z, c=c: Banded(coefficients=c, multiplier=z),
                epsilon,
            )
            left = z * math.sqrt(mean_squared_error(np.array(c), work))
            rows.append(Row(f"epsilon {epsilon:g}: {bands} bands over independent", left / plain))
        z = multiplier(
            CyclicPoisson(BATCH, SIZE, CYCLE),
            lambda z: Tree(steps=STEPS, separation=CYCLE, multiplier=z),
            epsilon,
        )
        tree = simulated(Tree(steps=STEPS, separation=CYCLE, multiplier=z), width)
        rows.append(Row(f"epsilon {epsilon:g}: tree over independent (simulated)", tree / plain))
        for buffers in (1, 2, 4):
            weights, decays = buffered(buffers, STEPS, CYCLE)
            made = Buffered(weights=weights, decays=decays, steps=STEPS, separation=CYCLE)
            z = multiplier(
                BallsInBins(SIZE, CYCLE), lambda z, made=made: replace(made, multiplier=z), epsilon
            )
            left = z * math.sqrt(buffered_error(buffers, STEPS, CYCLE))
            rows.append(
                Row(f"epsilon {epsilon:g}: {buffers} buffers over independent", left / plain)
            )
    c = banded(8, STEPS)
    formula = math.sqrt(mean_squared_error(np.array(c), work))
    ratio = simulated(Banded(coefficients=c, multiplier=1.0), width) / formula
    rows.append(
        Row(
            "8 bands: simulated over formula", ratio, target="1 ± 0.02", holds=abs(ratio - 1) < 0.02
        )
    )
    weights, decays = buffered(3, STEPS, CYCLE)
    made = Buffered(weights=weights, decays=decays, steps=STEPS, separation=CYCLE, multiplier=1.0)
    ratio = simulated(made, width) / math.sqrt(buffered_error(3, STEPS, CYCLE))
    holds = abs(ratio - 1) < 0.02
    rows.append(Row("3 buffers: simulated over formula", ratio, target="1 ± 0.02", holds=holds))
    return rows


def buffered_error(buffers: int, steps: int, separation: int) -> float:
    """The mean squared error of the prefix sums, for z of deviation 1 times the sensitivity."""
    weights, decays = buffered(buffers, steps, separation)
    c = series(np.array(weights), np.array(decays), steps)
    return mean_squared_error(c, workload(steps), separation)


def against_bands(settings: tuple[tuple[int, int], ...]) -> list[Row]:
    """Part 3: `separation` bands of disjoint turns, unamplified as the buffers are."""
    rows: list[Row] = []
    for steps, separation in settings:
        turns = -(-steps // separation)
        bands = turns * mean_squared_error(np.array(banded(separation, steps)), workload(steps))
        for buffers in (1, 2, 4):
            ratio = math.sqrt(buffered_error(buffers, steps, separation) / bands)
            what = f"{steps} steps, turns {separation} apart: {buffers} buffers over all bands"
            good = turns == 1 and buffers == 4
            rows.append(
                Row(what, ratio, target="<= 1.01" if good else None,
                    holds=ratio <= 1.01 if good else None)
            )  # fmt: skip
    return rows


def accuracy(epsilon: float, noise: dict[str, Any], sampling: dict[str, Any]) -> float:
    """Test accuracy of one private run on the digits, in percent."""
    recipe = {
        "nacre": 1,
        "name": "mechanisms",
        "data": {
            "kind": "builtin", "name": "digits", "size": SIZE, "public_demonstration": True,
            "test": {"share": 0.2, "stratified": True}, "scaling": {"kind": "declared"},
        },
        "model": {"kind": "mlp", "hidden": [64]},
        "gradient_clipping": {"kind": "flat", "norm": 1.0},
        "differential_privacy": {"epsilon": epsilon, "delta": DELTA, "noise": noise},
        "training": {
            "steps": STEPS, "batch": BATCH, "sampling": sampling, "checkpoint": STEPS,
            "optimizer": {"kind": "sgd", "lr": 1.0},
        },
        "ledger": {
            "path": "{run}/privacy.db", "dataset": "digits",
            "grant": {"epsilon": epsilon, "delta": DELTA, "rule": "pld"},
        },
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        asked = loads(yaml.safe_dump(recipe), "mechanisms.yaml", folder=Path(folder))
        run = train(plan(asked), Path(folder) / "run")
        return 100 * tested(run)


def tested(run: Run) -> float:
    """The share of test digits that the run's model answers rightly."""
    held = read(run.recipe, run.folder.key(run.folder.holder_key))
    assert held.test is not None
    return figures(load(run.path), pieces.task_of(held.schema), held.test)["accuracy"]


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    rows = errors((8.0,) if asked.quick else (2.0, 4.0, 8.0, 16.0), 20_000)
    cyclic = {"kind": "cyclic_poisson"}
    few, many = ((96, 96), (96, 11)), ((1000, 1000), (1000, 100), (1000, 50))
    rows += against_bands(few if asked.quick else (*few, *many))
    for epsilon in (8.0,) if asked.quick else (2.0, 8.0):
        for name, noise, sampling in (
            ("independent", {"kind": "gaussian"}, {"kind": "poisson"}),
            ("8 bands", {"kind": "banded", "bands": 8}, cyclic),
            ("tree", {"kind": "tree"}, cyclic | {"cycle": CYCLE}),
            ("3 buffers", {"kind": "blt", "buffers": 3}, {"kind": "balls_in_bins"}),
        ):
            found = [accuracy(epsilon, noise, sampling) for _ in range(2 if asked.quick else 10)]
            rows.append(Row.over(f"digits, epsilon {epsilon:g}, {name}: accuracy in %", found))
    show(rows, asked.json)


if __name__ == "__main__":
    main()

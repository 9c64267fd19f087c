"""What noise in training buys a private model: `python benchmarks/certified.py [--quick] [--json]`.

MNIST. Four ways to train one network: as it is, on noisy copies, with privacy, with both (at
epsilon 3 and 8; the copies of a unit are clipped together). Of each: clean accuracy; under PGD and
Auto-PGD in the L2 ball; and the accuracy that randomized smoothing certifies at three L2 radii
(Cohen et al. 2019), with intervals. `--quick` takes a small MLP, fewer steps and fewer votes.

The attack moves the inputs of the model itself; the certificate speaks of the votes under noise.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rows import Row, show
from tasks import DATA
from torch import nn

import nacre as n
from nacre.adversarial_training import Ball
from nacre.adversarial_training.certificates import Smoothing
from nacre.adversarial_training.evaluation.access import Scorer
from nacre.adversarial_training.evaluation.cascade import Cascade
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.evaluation.stages.auto_pgd import AutoPGD
from nacre.adversarial_training.evaluation.stages.climb import Climb
from nacre.adversarial_training.evaluation.untouched import untouched
from nacre.audit.bounds import clopper_pearson
from nacre.core.random import Source
from nacre.core.types import FeatureSpace
from nacre.data import Images
from nacre.models import load
from nacre.models.images import CNN
from nacre.models.tabular import MLP
from nacre.runs.rows import read

DELTA = 1e-5
RADII = (0.25, 0.5, 1.0)
ATTACKED = 0.5  # L2 radius of the attack
NAMES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


@dataclass(frozen=True)
class Size:
    """How much is done."""

    model: CNN | MLP
    steps: int
    batch: int
    lr: float
    copies: int
    rows: int  # of the test set
    votes: int


FULL = Size(CNN(channels=(8, 16), hidden=32), 1200, 1024, 0.5, 2, 1000, 10_000)
QUICK = Size(MLP(hidden=(64,)), 300, 512, 0.5, 1, 200, 1000)


def main() -> None:
    """Trains, attacks and certifies each model, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--quick", action="store_true", help="a small MLP")
    parser.add_argument("--deviation", type=float, default=0.5, help="of the noise")
    parser.add_argument("--epsilon", type=float, nargs="*", default=[3.0, 8.0])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if not DATA.exists():
        sys.exit(f"{DATA} is absent: this benchmark needs the shared data")
    torch.set_num_threads(1)
    size, table = QUICK if asked.quick else FULL, list[Row]()
    kinds: list[tuple[float | None, float]] = [(None, 0.0), (None, asked.deviation)]
    for epsilon in asked.epsilon:
        kinds += [(epsilon, 0.0), (epsilon, asked.deviation)]
    certified: dict[tuple[float | None, float], float] = {}
    for epsilon, noise in kinds:
        name = "no privacy" if epsilon is None else f"epsilon {epsilon:g}"
        name += f", noise {noise:g}" if noise else ", clean"
        start = time.process_time()
        model, rows, space = trained(size, epsilon, noise, asked.seed)
        found = figures(model, rows, space, size, asked.deviation)
        certified[epsilon, noise] = found[-1].value
        table += [Row(f"{name}: {row.what}", row.value, row.low, row.high) for row in found]
        seconds = time.process_time() - start
        said = ", ".join(f"{row.what} {row.value:.1f}" for row in found)
        print(f"{name}: {said}; {seconds:.0f} CPU s", file=sys.stderr, flush=True)
    for epsilon in asked.epsilon:
        alone = certified[epsilon, 0.0]
        if alone:
            ratio = certified[epsilon, asked.deviation] / alone
            what = f"epsilon {epsilon:g}: certified at {RADII[-1]:g}, noise over clean"
            table.append(Row(what, ratio, None, None, ">= 12", ratio >= 12))
    show(table, asked.json)


def trained(
    size: Size, epsilon: float | None, noise: float, seed: int
) -> tuple[nn.Module, Inputs, FeatureSpace]:
    """The model with the first rows of the test set."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name in NAMES:
            shutil.copy(DATA / "images" / "mnist" / f"{name}-ubyte.gz", folder)
        files = [f"{name}-ubyte.gz" for name in NAMES]
        private = epsilon is not None
        recipe = n.Recipe(
            name="certified",
            seed=seed,
            folder=folder,
            data=Images(
                images=files[0], labels=files[1], test_images=files[2], test_labels=files[3],
                size=60_000, public_demonstration=True,
            ),
            model=size.model,
            gradient_clipping=n.Flat(norm=1.0) if private else None,
            differential_privacy=(
                n.Privacy(epsilon=epsilon, delta=DELTA, accountant="pld") if private else None
            ),
            training=n.Training(
                steps=size.steps, batch=size.batch, checkpoint=10**6,
                optimizer=n.SGD(lr=size.lr if private else 0.1, momentum=0.9),
                augment=n.Copies(count=size.copies, noise=noise) if noise else None,
            ),
            execution=n.Execution(threads=1),
            ledger=(
                n.LedgerChoice(
                    path="privacy.db", dataset="certified",
                    grant=n.Grant(epsilon=1.01 * epsilon, delta=DELTA, rule="pld"),
                )
                if private
                else None
            ),
        )  # fmt: skip
        run = n.train(n.plan(recipe), folder / "run")
        held = read(run.recipe, run.folder.key(run.folder.holder_key))
        model = load(run.path).eval()
    assert held.test is not None
    features, label = held.test.features[: size.rows], held.test.label[: size.rows]
    places = torch.arange(size.rows)
    return model, Inputs(places, places, features, label), held.space


def figures(
    model: nn.Module, rows: Inputs, space: FeatureSpace, size: Size, deviation: float
) -> list[Row]:
    """Clean, attacked and certified accuracy in per cent, with intervals of 95 %."""
    source = Source(bytes(32))
    with torch.no_grad():
        clean = model(rows.clean).argmax(1) == rows.label
    ball = Ball(kind="l2", radius=ATTACKED)
    with untouched(model):
        stages = (Climb(), AutoPGD())
        found = Cascade(stages)(Scorer(model), ball.region(space), rows, source)
    method = Smoothing(deviation=deviation, samples=size.votes)
    regions = [Ball(kind="l2", radius=radius).region(space) for radius in RADII]
    certified = method.certify(model, regions, rows, source)
    table = [_row("clean", int(clean.sum()), len(rows))]
    table.append(_row(f"attacked, L2 {ATTACKED:g}", len(found.standing), len(rows)))
    for radius, ones in zip(RADII, certified, strict=True):
        table.append(_row(f"certified, L2 {radius:g}", int(ones.sum()), len(rows)))
    return table


def _row(what: str, right: int, total: int) -> Row:
    low, high = clopper_pearson(right, total, 0.95)
    return Row(what, 100 * right / total, 100 * low, 100 * high)


if __name__ == "__main__":
    main()

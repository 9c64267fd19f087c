"""Attacks on published nets: `python benchmarks/attacks.py [--quick] [--json] [--rivals PYTHON]`.

`full` with and without its rules, beside AutoAttack as torchattacks has it, the targeted APGD of
adversarial-library and ART's AutoAttack, on the same points; PGD with 40 steps over a loop of pure
gradient evaluations; what is saved by ending rows that go round. CPU seconds at one thread.

The others run in PYTHON, one that has them beside torch and can import nacre; without it their rows
are left out, and the reason is printed.
"""

# Parts of torch are untyped, and the others wholly.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch
from rows import Row, show
from safetensors.torch import load_file
from torch import Tensor, nn

from nacre.adversarial_training import Ball
from nacre.adversarial_training.evaluation.access import Scorer
from nacre.adversarial_training.evaluation.cascade import AttackOutcome, Cascade
from nacre.adversarial_training.evaluation.efforts import cascade
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.evaluation.stages.climb import Climb
from nacre.adversarial_training.evaluation.untouched import untouched
from nacre.core.random import Source
from nacre.core.types import FeatureSpace

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NETS = {"mnist_cnn_a_adv": 0.3, "mnist_conv_small_nat": 0.1, "cifar10_cnn_a_adv": 2 / 255}
"""Radii in linf; at 0.3 nothing of the net without adversarial training is left to compare."""
CLIMBED = NETS | {"mnist_conv_small_nat": 0.3}
"""Those of PGD alone, which is timed on a net that stands and on one whose rows all fall."""
RIVALS = ("torchattacks AutoAttack", "adv-lib APGD-T", "ART AutoAttack")
REFERENCE = RIVALS[0]
WITHIN, COST, STEPS = 0.001, 0.20, 40


class Centred(nn.Module):
    """The normalisation that cifar10_cnn_a_adv was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        return (x - mean) / 0.225


def net(name: str) -> nn.Module:
    """Two convolutions and two linear layers, as the README of the weights has them."""
    channels, side = (3, 32) if name.startswith("cifar10") else (1, 28)
    padding = 0 if name.endswith("nat") else 1
    left = side
    for _ in range(2):
        left = (left + 2 * padding - 4) // 2 + 1
    layers = nn.Sequential(
        nn.Conv2d(channels, 16, 4, 2, padding), nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2, padding), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * left * left, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip
    layers.load_state_dict(load_file(DATA / "weights" / f"{name}.safetensors"))
    whole = nn.Sequential(Centred(), layers) if channels == 3 else layers
    return whole.eval().requires_grad_(False)


def _bytes(name: str, header: int) -> np.ndarray:
    with gzip.open(DATA / "images" / "mnist" / f"{name}.gz") as file:
        return np.frombuffer(file.read(), np.uint8)[header:]


def points(name: str, count: int) -> tuple[Tensor, Tensor]:
    """The first test images, in [0, 1], and their classes."""
    if name.startswith("cifar10"):
        held = np.load(DATA / "images" / "cifar10_subset" / "cifar10_subset.npz")
        x, y = held["x_test"][:count], held["y_test"][:count]
    else:
        x = _bytes("t10k-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28)[:count]
        y = _bytes("t10k-labels-idx1-ubyte", 8)[:count]
    return torch.tensor(x.copy()).float() / 255, torch.tensor(y.copy()).long()


def run(model: nn.Module, attack: Cascade, x: Tensor, y: Tensor, radius: float) -> AttackOutcome:
    """What the cascade finds."""
    low, high = torch.zeros(x.shape[1:]), torch.ones(x.shape[1:])
    space = FeatureSpace(tuple(x.shape[1:]), low=low, high=high)
    rows = Inputs(torch.arange(len(x)), torch.arange(len(x)), x, y)
    region = Ball(radius=radius).region(space)
    with untouched(model):
        return attack(Scorer(model), region, rows, Source(bytes(32)))


def spent(call: Callable[[], object]) -> float:
    """CPU seconds."""
    began = time.process_time()
    call()
    return time.process_time() - began


def rival(which: str, name: str, count: int) -> dict[str, float]:
    """Accuracy under another library's attack, as we score it, and its CPU seconds."""
    model, radius = net(name), NETS[name]
    x, y = points(name, count)

    def attacked() -> Tensor:
        if which == "torchattacks AutoAttack":
            import torchattacks  # pyright: ignore[reportMissingImports]

            return torchattacks.AutoAttack(model, norm="Linf", eps=radius, seed=0)(x, y)
        if which == "adv-lib APGD-T":
            # Its perceptual distances and its plots import these; nothing here asks for them.
            for absent in ("torchvision", "visdom"):
                sys.modules.setdefault(absent, MagicMock())
            from adv_lib.attacks import apgd, apgd_targeted  # pyright: ignore[reportMissingImports]

            first = apgd(model, x, y, radius, float("inf"), loss_function="ce")
            stands = model(first).argmax(1) == y
            first[stands] = apgd_targeted(model, x[stands], y[stands], radius, float("inf"))
            return first
        from art.attacks.evasion import AutoAttack  # pyright: ignore[reportMissingImports]
        from art.estimators.classification import (  # pyright: ignore[reportMissingImports]
            PyTorchClassifier,
        )

        shown = PyTorchClassifier(
            model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0.0, 1.0)
        )
        art = AutoAttack(shown, eps=radius, eps_step=radius / 4, batch_size=256)
        return torch.tensor(art.generate(x.numpy(), y.numpy()))

    began = time.process_time()
    found = attacked()
    seconds = time.process_time() - began
    # An answer outside the ball or the range counts for nothing.
    inside = ((found - x).abs().flatten(1).amax(1) <= radius + 1e-5) & (found >= 0).flatten(1).all(
        1
    )
    inside &= (found <= 1).flatten(1).all(1)
    right = (model(x).argmax(1) == y) & ((model(found).argmax(1) == y) | ~inside)
    return {"accuracy": float(right.float().mean()), "seconds": seconds}


def asked_of(python: str, which: str, name: str, count: int) -> dict[str, float] | None:
    """The same in the interpreter that has the others; None where it fails, with the reason."""
    command = [python, __file__, "--rival", which, "--nets", name, "--points", str(count)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:]
        print(f"{name}, {which}: left out, {' '.join(reason)}", file=sys.stderr, flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def full(name: str, count: int, python: str | None, unruled: bool, others: list[str]) -> list[Row]:
    """`full` beside the others."""
    model, radius = net(name), NETS[name]
    x, y = points(name, count)
    outcomes: list[AttackOutcome] = []
    ours = spent(lambda: outcomes.append(run(model, cascade("full"), x, y, radius)))
    found = {which: asked_of(python, which, name, count) for which in others} if python else {}
    ours = min(ours, spent(lambda: run(model, cascade("full"), x, y, radius)))
    accuracy = outcomes[0].accuracy
    forwards = sum(stage.forwards for stage in outcomes[0].stages)
    backwards = sum(stage.backwards for stage in outcomes[0].stages)
    strongest = min((r["accuracy"] for r in found.values() if r), default=None)
    bound = None if strongest is None else strongest + WITHIN + 1e-9
    rows = [
        Row(f"{name}, full: accuracy", accuracy, None, None,
            None if bound is None else f"<= {bound:.3f}",
            None if bound is None else accuracy <= bound),
        Row(f"{name}, full: CPU seconds", ours),
        Row(f"{name}, full: forwards a row", forwards / count),
        Row(f"{name}, full: backwards a row", backwards / count),
    ]  # fmt: skip
    for which, theirs in found.items():
        if theirs is None:
            continue
        rows.append(Row(f"{name}, {which}: accuracy", theirs["accuracy"]))
        share = ours / theirs["seconds"]
        target = (f"<= {COST}", share <= COST) if which == REFERENCE else (None, None)
        rows.append(Row(f"{name}, full over {which}: CPU", share, None, None, *target))
    if unruled:
        whole = run(model, cascade("full", ruled=False), x, y, radius).accuracy
        rows.append(Row(f"{name}, lost by the rules", accuracy - whole, None, None,
                        f"<= {WITHIN}", accuracy - whole <= WITHIN + 1e-9))  # fmt: skip
    for stage in outcomes[0].stages:
        print(f"  {name}: {stage.name}: {stage.tried} tried, {stage.broke} broken", file=sys.stderr)
    return rows


def climbs(name: str, count: int, rounds: int) -> list[Row]:
    """PGD over a loop of pure gradient evaluations, interleaved; and the gradients that rows which
    go round save."""
    model, radius = net(name), CLIMBED[name]
    x, y = points(name, count)

    def pure() -> None:
        for _ in range(STEPS):
            leaf = x.detach().requires_grad_()
            loss = nn.functional.cross_entropy(model(leaf), y, reduction="sum")
            torch.autograd.grad(loss, leaf)

    ratios: list[float] = []
    for _ in range(rounds):
        floor = spent(pure)
        ratios.append(
            spent(lambda: run(model, Cascade((Climb(steps=STEPS),)), x, y, radius)) / floor
        )
    target = 1.02 if name.endswith("adv") else 0.22
    rows = [Row.over(f"{name}, PGD-{STEPS} over pure gradients", ratios, f"<= {target}",
                     lambda mean: mean <= target)]  # fmt: skip
    for steps in (STEPS, 5 * STEPS):
        counts: list[int] = []
        verdicts: list[Tensor] = []
        for cycles in (True, False):
            found = run(model, Cascade((Climb(steps=steps, cycles=cycles),)), x, y, radius)
            counts.append(found.stages[0].backwards)
            verdicts.append(found.by)
        same = float(torch.equal(*verdicts))
        saved = 1 - counts[0] / max(1, counts[1])
        rows.append(Row(f"{name}, PGD-{steps}, saved by rows that go round", saved))
        rows.append(
            Row(
                f"{name}, PGD-{steps}, the same rows are broken", same, None, None, "= 1", same == 1
            )
        )
    return rows


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="200 points, PGD alone")
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--nets", default=",".join(NETS), help="separated by commas")
    parser.add_argument("--rivals", metavar="PYTHON", help="an interpreter that has the others")
    parser.add_argument("--others", default=",".join(RIVALS), help="separated by commas")
    parser.add_argument("--unruled", action="store_true", help="`full` without its rules as well")
    parser.add_argument("--rival", choices=RIVALS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    names = asked.nets.split(",")
    if asked.rival:
        print(json.dumps(rival(asked.rival, names[0], asked.points)))
        return
    count = min(200, asked.points) if asked.quick else asked.points
    if not asked.rivals:
        print("no --rivals PYTHON: the rows of other libraries are left out", file=sys.stderr)
    rows: list[Row] = []
    for name in names:
        rows += climbs(name, count, 3)
        if not asked.quick:
            rows += full(name, count, asked.rivals, asked.unruled, asked.others.split(","))
    show(rows, asked.json)


if __name__ == "__main__":
    main()

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


def points(name: str, count: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Test images from number `first` on, in [0, 1], and their classes."""
    taken = slice(first, first + count)
    if name.startswith("cifar10"):
        held = np.load(DATA / "images" / "cifar10_subset" / "cifar10_subset.npz")
        x, y = held["x_test"][taken], held["y_test"][taken]
    else:
        x = _bytes("t10k-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28)[taken]
        y = _bytes("t10k-labels-idx1-ubyte", 8)[taken]
    return torch.tensor(x.copy()).float() / 255, torch.tensor(y.copy()).long()


def run(
    model: nn.Module, attack: Cascade, x: Tensor, y: Tensor, radius: float, first: int = 0
) -> AttackOutcome:
    """What the cascade finds; random numbers belong to the number of the image."""
    low, high = torch.zeros(x.shape[1:]), torch.ones(x.shape[1:])
    space = FeatureSpace(tuple(x.shape[1:]), low=low, high=high)
    rows = Inputs(torch.arange(len(x)), first + torch.arange(len(x)), x, y)
    region = Ball(radius=radius).region(space)
    with untouched(model):
        return attack(Scorer(model), region, rows, Source(bytes(32)))


def spent(call: Callable[[], object]) -> float:
    """CPU seconds."""
    began = time.process_time()
    call()
    return time.process_time() - began


def rival(which: str, name: str, count: int, start: int) -> dict[str, float]:
    """Accuracy under another library's attack, as we score it, and its CPU seconds."""
    model, radius = net(name), NETS[name]
    x, y = points(name, count, start)

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


def asked_of(python: str, which: str, name: str, count: int, start: int) -> dict[str, float] | None:
    """The same in the interpreter that has the others; None where it fails, with the reason."""
    command = [python, __file__, "--rival", which, "--nets", name, "--points", str(count)]
    command += ["--from", str(start)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:]
        print(f"{name}, {which}: left out, {' '.join(reason)}", file=sys.stderr, flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def full(
    name: str, count: int, start: int, python: str | None, unruled: bool, others: list[str]
) -> list[Row]:
    """`full` beside the others."""
    model, radius = net(name), NETS[name]
    x, y = points(name, count, start)
    outcomes: list[AttackOutcome] = []

    def ruled() -> None:
        outcomes.append(run(model, cascade("full"), x, y, radius, start))

    ours, found = spent(ruled), dict[str, dict[str, float] | None]()
    if python:
        found = {which: asked_of(python, which, name, count, start) for which in others}
        ours = min(ours, spent(ruled))
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
    told("with rules", name, outcomes[0])
    if unruled:
        whole = run(model, cascade("full", ruled=False), x, y, radius, start)
        told("without rules", name, whole)
        lost = accuracy - whole.accuracy
        rows.append(Row(f"{name}, lost by the rules", lost, None, None,
                        f"<= {WITHIN}", lost <= WITHIN + 1e-9))  # fmt: skip
        for place in outcomes[0].standing.tolist():
            if int(whole.by[place]) >= 0:
                by = whole.stages[int(whole.by[place])].name
                print(f"  {name}: image {start + place} is broken by {by} alone", file=sys.stderr)
    return rows


def told(how: str, name: str, outcome: AttackOutcome) -> None:
    """The stage table, on the side."""
    for stage in outcome.stages:
        print(f"  {name} {how}: {stage.name}: {stage.tried} tried, {stage.broke} broken, "
              f"{stage.forwards} forwards, {stage.backwards} backwards, {stage.seconds:.1f} s",
              file=sys.stderr, flush=True)  # fmt: skip


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
    parser.add_argument("--from", dest="start", type=int, default=0, metavar="ROW",
                        help="first test image; the rules are of those before 1,000")  # fmt: skip
    parser.add_argument("--nets", default=",".join(NETS), help="separated by commas")
    parser.add_argument("--part", choices=("climbs", "full"), help="one part alone")
    parser.add_argument("--rivals", metavar="PYTHON", help="an interpreter that has the others")
    parser.add_argument("--others", default=",".join(RIVALS), help="separated by commas")
    parser.add_argument("--unruled", action="store_true", help="`full` without its rules as well")
    parser.add_argument("--rival", choices=RIVALS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    names = asked.nets.split(",")
    if asked.rival:
        print(json.dumps(rival(asked.rival, names[0], asked.points, asked.start)))
        return
    count = min(200, asked.points) if asked.quick else asked.points
    if not asked.rivals:
        print("no --rivals PYTHON: the rows of other libraries are left out", file=sys.stderr)
    rows: list[Row] = []
    others = asked.others.split(",")
    for name in names:
        if asked.part != "full":
            rows += climbs(name, count, 3)
        if asked.part != "climbs" and not asked.quick:
            rows += full(name, count, asked.start, asked.rivals, asked.unruled, others)
    show(rows, asked.json)


if __name__ == "__main__":
    main()

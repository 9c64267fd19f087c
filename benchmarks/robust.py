"""Rules against parties at fault on MNIST: `python benchmarks/robust.py [--quick] [--json]`.

25 parties of 600 images, 5 of them at fault, an MLP of one hidden layer on images of half the side,
40 rounds of 5 local steps; rows dealt evenly, and by Dirichlet mixtures with alpha 0.3. Every rule
meets every attack: accuracy on 10,000 test images over seeds, and how many stamped images a
backdoor gets its way with.

The rules, the attackers and the partitions are those of nacre. The parties' own steps are taken for
all of them at once, as products of stacked matrices: what comes out is what each would send.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import argparse
import gzip
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rows import Row, show
from tasks import DATA
from torch import Tensor
from torch.nn import functional as F

from nacre.core.random import Source
from nacre.core.tensors import scale
from nacre.core.types import Tensors
from nacre.data.dataset import Rows
from nacre.data.partition import Dirichlet, Uniform
from nacre.federated_learning import (
    AggregateOption,
    Bucketing,
    CentredClipping,
    FLTrust,
    GeometricMedian,
    Krum,
    LastDirection,
    MeanAggregate,
    Median,
    MultiKrum,
    NearestNeighbourMixing,
    NormBound,
    RoundFacts,
    TrimmedMean,
)
from nacre.federated_learning.attackers import (
    ALittleIsEnough,
    AttackerOption,
    GaussianLie,
    InnerProduct,
    LabelFlip,
    MinMax,
    ModelReplacement,
    PixelBackdoor,
    Seen,
    infiltrated_rows,
)

PARTIES, BAD, ROUNDS, STEPS, BATCH, LR, HIDDEN = 25, 5, 40, 5, 32, 0.5, 32
EACH, PUBLIC, SIDE = 600, 100, 14  # images of a party, and of the server; pixels in a row
NAMES = tuple(f"party-{place:02}" for place in range(PARTIES))
AT_FAULT = NAMES[:BAD]
RADIUS = 0.5
"""Of centred clipping and of the norm bound: about the length of an honest change."""
SQUARE = PixelBackdoor(target=0, size=2, value=1.0, share=0.5)

RULES: dict[str, AggregateOption] = {
    "mean": MeanAggregate(),
    "norm bound": NormBound(norm=RADIUS, bad=BAD),
    "median": Median(bad=BAD),
    "trimmed mean": TrimmedMean(bad=BAD),
    "geometric median": GeometricMedian(bad=BAD),
    "Krum": Krum(bad=BAD),
    "multi-Krum": MultiKrum(bad=BAD),
    "centred clipping": CentredClipping(radius=RADIUS, bad=BAD),
    "FLTrust": FLTrust(bad=BAD),
    "buckets of 2, geometric median": Bucketing(before=GeometricMedian(bad=BAD)),
    "buckets of 2, centred clipping": Bucketing(before=CentredClipping(radius=RADIUS, bad=BAD)),
    "mixing, geometric median": NearestNeighbourMixing(before=GeometricMedian(bad=BAD)),
    "mixing, trimmed mean": NearestNeighbourMixing(before=TrimmedMean(bad=BAD)),
}
RECOMMENDED = "mixing, trimmed mean"
ATTACKS: dict[str, AttackerOption | None] = {
    "none": None,
    "label flip": LabelFlip(classes=10),
    "noise 0.1": GaussianLie(deviation=0.1),
    "ALIE z = 1.5": ALittleIsEnough(z=1.5),
    "inner product 0.5": InnerProduct(factor=0.5),
    "inner product 4": InnerProduct(factor=4.0),
    "min-max": MinMax(),
    "replacement": ModelReplacement(backdoor=SQUARE),
}
SPLITS = {"iid": None, "Dirichlet 0.3": 0.3}
WITHIN = 0.02  # of the mean without an attack


@dataclass(frozen=True)
class Task:
    """One seed's images, dealt."""

    parties: Mapping[str, Rows]
    public: Rows
    test: Rows


def _images(name: str, header: int) -> Tensor:
    folder = DATA / "images" / "mnist"
    with gzip.open(folder / f"{name}.gz") as file:
        return torch.tensor(np.frombuffer(file.read(), np.uint8)[header:].copy())


def _rows(prefix: str) -> Rows:
    features = _images(f"{prefix}-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28).float() / 255
    return Rows(F.avg_pool2d(features, 2), _images(f"{prefix}-labels-idx1-ubyte", 8).long())


def dealt(train: Rows, test: Rows, alpha: float | None, seed: int) -> Task:
    """The images of this seed, dealt to the parties."""
    order = torch.tensor(np.random.default_rng(seed).permutation(len(train)))
    rows = train.take(order[: PARTIES * EACH])
    option = Uniform(names=NAMES) if alpha is None else Dirichlet(names=NAMES, alpha=alpha)
    public = train.take(order[PARTIES * EACH :][:PUBLIC])
    return Task(option.split(rows, "example", seed), public, test)


def begun(seed: int) -> Tensors:
    """First weights."""
    stream = torch.Generator().manual_seed(seed)
    sizes = [(SIDE * SIDE, HIDDEN), (HIDDEN, 10)]
    found: Tensors = {}
    for place, (inputs, outputs) in enumerate(sizes):
        span = inputs**-0.5
        found[f"{place}.weight"] = (torch.rand(inputs, outputs, generator=stream) * 2 - 1) * span
        found[f"{place}.bias"] = torch.zeros(outputs)
    return found


def _gradients(weights: Tensors, x: Tensor, y: Tensor) -> Tensors:
    """Stacked weights, (P, B, D), (P, B) -> of each party's mean cross-entropy, by hand: autograd
    takes twice as long for so small a model."""
    before = torch.baddbmm(weights["0.bias"][:, None], x, weights["0.weight"])
    hidden = before.relu()
    outputs = torch.baddbmm(weights["1.bias"][:, None], hidden, weights["1.weight"])
    off = outputs.softmax(2)
    off.scatter_add_(2, y[..., None], torch.full((*y.shape, 1), -1.0))
    off /= y.shape[1]
    inner = (off @ weights["1.weight"].mT) * (before > 0)
    return {
        "0.weight": x.mT @ inner, "0.bias": inner.sum(1),
        "1.weight": hidden.mT @ off, "1.bias": off.sum(1),
    }  # fmt: skip


class Stacked:
    """Local training of several holders at once."""

    def __init__(self, held: Sequence[Rows], seed: int) -> None:
        self._x = torch.stack([rows.features.flatten(1) for rows in held])
        self._y = torch.stack([rows.label for rows in held])
        self._stream = torch.Generator().manual_seed(seed)

    def changes(self, weights: Tensors) -> list[Tensors]:
        """What each holder's steps change."""
        count, size = self._y.shape
        own = {n: v.expand(count, *v.shape).clone() for n, v in weights.items()}
        each = torch.arange(count)[:, None]
        for _ in range(STEPS):
            places = torch.randint(0, size, (count, BATCH), generator=self._stream)
            gradients = _gradients(own, self._x[each, places], self._y[each, places])
            for name, value in own.items():
                value.sub_(gradients[name], alpha=LR)
        moved = {name: value - weights[name] for name, value in own.items()}
        return [{n: v[place] for n, v in moved.items()} for place in range(count)]


def _answers(weights: Tensors, features: Tensor) -> Tensor:
    hidden = torch.relu(features.flatten(1) @ weights["0.weight"] + weights["0.bias"])
    return (hidden @ weights["1.weight"] + weights["1.bias"]).argmax(1)


def trained(
    task: Task, rule: AggregateOption, attacker: AttackerOption | None, rounds: int, seed: int
) -> tuple[float, float]:
    """Accuracy at the end, and the share of stamped images that are answered as the backdoor
    wants."""
    source, weights, held = Source(bytes([seed]) * 32), begun(seed), dict(task.parties)
    if attacker is not None:
        held = infiltrated_rows(held, AT_FAULT, attacker, source)
    parties = Stacked([held[name] for name in NAMES], seed)
    server = Stacked([task.public], seed + 1000) if rule.rooted else None
    direction = LastDirection() if rule.centred else None
    for number in range(rounds):
        changes = parties.changes(weights)
        if attacker is not None:
            seen = Seen(
                own=changes[:BAD],
                honest=changes[BAD:] if attacker.omniscient else [],
                others=PARTIES - BAD,
                source=source.child("round", number),
            )
            changes[:BAD] = attacker.changes(seen)
        root = None if server is None else scale(server.changes(weights)[0], -1.0)
        last = direction.last if direction is not None else None
        if last is not None:
            changes = [{n: v + last[n] for n, v in each.items()} for each in changes]
        contributions = [scale(change, -1.0) for change in changes]
        total = rule.total(contributions, float(PARTIES), RoundFacts(number, root, last))
        mean = scale(total, 1 / PARTIES)
        followed = mean if direction is None else direction.shape(mean)
        weights = {name: value - followed[name] for name, value in weights.items()}
    right = (_answers(weights, task.test.features) == task.test.label).float().mean()
    others = task.test.features[task.test.label != SQUARE.target]
    fooled = (_answers(weights, SQUARE.stamped(others)) == SQUARE.target).float().mean()
    return float(right), float(fooled)


def measured(
    rules: Sequence[str], attacks: Sequence[str], splits: Sequence[str], seeds: int, rounds: int
) -> list[Row]:
    """A row for each rule, attack and split; a line each on stderr."""
    train, test = _rows("train"), _rows("t10k")
    rows: list[Row] = []
    for split in splits:
        tasks = [dealt(train, test, SPLITS[split], seed) for seed in range(seeds)]
        plain = 0.0
        for name in rules:
            for attack in attacks:
                began = time.process_time()
                found = [
                    trained(task, RULES[name], ATTACKS[attack], rounds, seed)
                    for seed, task in enumerate(tasks)
                ]
                accuracies = [accuracy for accuracy, _ in found]
                if (name, attack) == ("mean", "none"):
                    plain = statistics.mean(accuracies)
                what, judged = f"{split}, {name}, {attack}", split == "iid" and name == RECOMMENDED
                least = plain - WITHIN
                rows.append(
                    Row.over(f"{what}: accuracy", accuracies, f">= {least:.3f}",
                             lambda mean, least=least: mean >= least)
                    if judged else Row.over(f"{what}: accuracy", accuracies)
                )  # fmt: skip
                if attack == "replacement":
                    rows.append(Row.over(f"{what}: backdoor", [fooled for _, fooled in found]))
                spent = time.process_time() - began
                mean, took = statistics.mean(accuracies), f"({spent:.1f} s)"
                print(f"{what}: {mean:.3f} {took}", file=sys.stderr, flush=True)
    return rows


def table(rows: Sequence[Row], rules: Sequence[str], attacks: Sequence[str], split: str) -> str:
    """Percent, rules by attacks, as a table of Markdown."""
    found = {row.what: row.value for row in rows}
    heads = [*attacks, *(["backdoor"] if "replacement" in attacks else [])]
    lines = [f"| {split} | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for name in rules:
        keys = [f"{split}, {name}, {attack}: accuracy" for attack in attacks]
        keys += [f"{split}, {name}, replacement: backdoor"] if len(heads) > len(attacks) else []
        lines.append(f"| {name} | " + " | ".join(f"{100 * found[key]:.1f}" for key in keys) + " |")
    return "\n".join(lines)


def main() -> None:
    """Prints the tables, or the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="4 rules, 4 attacks, iid, 15 rounds")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--splits", default=",".join(SPLITS), help="separated by commas")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rules, attacks, splits = list(RULES), list(ATTACKS), asked.splits.split(",")
    if asked.quick:
        rules = ["mean", "geometric median", "centred clipping", RECOMMENDED]
        attacks, splits = ["none", "label flip", "inner product 4", "min-max"], ["iid"]
    rounds, seeds = (15, 1) if asked.quick else (ROUNDS, asked.seeds)
    rows = measured(rules, attacks, splits, seeds, rounds)
    if asked.json:
        show(rows, as_json=True)
        return
    for split in splits:
        print(table(rows, rules, attacks, split), end="\n\n")
    show([row for row in rows if row.target], as_json=False)


if __name__ == "__main__":
    main()

"""Training against attacks: `python benchmarks/robustness.py [--quick] [--json] [--minutes M]`.

1. An epoch of Fast, PGD-7 and TRADES-7 over a standard one, through the steps that a run takes
   (draw, sum, update), in CPU seconds at one thread, interleaved.
2. MNIST within Linf 0.3 and Fashion-MNIST within Linf 0.1: a small network, trained for a given CPU
   time by the recipe below, under the cascade `full`; with the accuracy over the time of training.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from tasks import DATA
from torch import Tensor, nn

from nacre.adversarial_training import PGD, AdversarialTraining, Ball, Fast, Madry, Ramp
from nacre.adversarial_training.objectives import at
from nacre.core.optimizers import Adam, Average
from nacre.core.parts import Objective
from nacre.core.random import Source
from nacre.core.tensors import trainable
from nacre.core.types import FeatureSpace
from nacre.data.dataset import Rows
from nacre.data.sampling import ShuffledSampling
from nacre.data.units import Units
from nacre.differential_privacy.noise.independent import NoNoise
from nacre.gradient_clipping import Unclipped, Whole
from nacre.models.tasks import Classification
from nacre.training.averaged_weights import Averaged
from nacre.training.fit import NoJournal, fit
from nacre.training.planned import NOTHING
from nacre.training.step import Parts, State

TASK = Classification(10)
SPACE = FeatureSpace((1, 28, 28), low=torch.zeros(()), high=torch.ones(()))
EPOCH_BATCH = 128


def images(name: str, split: str) -> Rows:
    """The images of a folder under `images/`, from 0 to 1."""
    folder = DATA / "images" / name

    def read(path: str, offset: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        with gzip.open(folder / path) as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    pixels = read(f"{split}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    label = read(f"{split}-labels-idx1-ubyte.gz", 8)
    return Rows(torch.tensor(pixels).float() / 255, torch.tensor(label).long())


class Threshold(nn.Module):
    """Pixels below `low` as 0, above `high` as 1, and in a straight line between them."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.low) / (self.high - self.low)).clamp(0, 1)


def network(seed: int, first: nn.Module | None = None) -> nn.Module:
    """Two convolutions that halve, and one hidden layer: 166,406 weights."""
    torch.manual_seed(seed)
    layers = [
        nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 100), nn.ReLU(), nn.Linear(100, 10),
    ]  # fmt: skip
    return nn.Sequential(*([] if first is None else [first]), *layers)


@dataclass(frozen=True)
class Lesson:
    """How a network is trained."""

    option: AdversarialTraining
    steps: int
    batch: int = EPOCH_BATCH
    lr: float = 2e-3
    decay: float = 0.998


def learn(
    model: nn.Module, rows: Rows, lesson: Lesson, seen: Callable[[nn.Module, int, float], None],
    every: int, seed: int = 0,
) -> nn.Module:  # fmt: skip
    """Trains in place by the steps of `fit`; the average of the weights is handed over.

    `seen` gets the average, the step and the CPU seconds of training so far, every `every` steps.
    """
    objective = lesson.option.build(TASK, SPACE)
    units = Units(rows, "example", None, Source(bytes(32)), numbered_by="place")
    optimizer = Adam(lr=lesson.lr).build(trainable(model).values())
    average = Averaged(Average(decay=lesson.decay), model)
    spent, begun = 0.0, time.process_time()

    def observe(state: State, release: object) -> bool:
        nonlocal spent, begun
        average.follow(state.model, state.done)
        if state.done % every == 0 or state.done == lesson.steps:
            spent += time.process_time() - begun
            with average.shown(model):
                model.eval()
                seen(model, state.done, spent)
                model.train()
            begun = time.process_time()
        return False

    fit(
        State(model.train(), optimizer, Unclipped()),
        units,
        parts(objective, lesson, len(rows)),
        until=lesson.steps,
        source=Source(seed.to_bytes(32, "big")),
        charge=NoJournal(),
        planned=NOTHING,
        observe=observe,
    )
    average.hand_over(model)
    return model.eval()


def parts(objective: Objective, lesson: Lesson, size: int) -> Parts:
    """The parts of a step without noise; the step size falls in a straight line."""
    return Parts(
        sampling=ShuffledSampling().build(lesson.batch, size),
        sums=lambda step: Whole(at(objective, step / lesson.steps)),
        noise=NoNoise(because="the rows are public"),
        adjacency="add_or_remove",
        pace=lambda step: min(1.0, 1.2 * (1 - step / lesson.steps) + 0.02),
    )

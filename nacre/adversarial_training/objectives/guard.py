"""A watch over training for the day when it withstands its own attack and no other."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nacre.adversarial_training.attacks.ascent import Ascent
from nacre.adversarial_training.attacks.evaluate import attacked
from nacre.adversarial_training.objectives.ramp import Ramp
from nacre.adversarial_training.threats.region import Region
from nacre.core import require
from nacre.core.parts import Attack, Task
from nacre.core.random import Source
from nacre.core.tensors import assign, detached, trainable
from nacre.core.types import Batch, Tensors

OVERFITTED = "catastrophic overfitting"
"""What an outcome says of a run that a guard ended."""


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Ends training at catastrophic overfitting, with the weights from before it.

    At each checkpoint the model meets FGSM and PGD inside the recipe's ball, on rows that are
    public. *Rule:* training has collapsed where its accuracy under PGD is below `floor` times the
    best so far, while that under FGSM is not below `floor` times its own best. The model is then
    that of the checkpoint with the best accuracy under PGD (the first of several); no other run is
    changed. What it looks at is released or public, so it costs no epsilon.

    *Source:* Wong et al. 2020, https://arxiv.org/abs/2001.03994, section 5.1, who stop likewise.
    """

    rows: int = 256
    """Public rows that are attacked, the first of their file."""
    steps: int = 10
    """Steps of the PGD that is compared with FGSM."""
    floor: float = 0.5
    """Share of its best accuracy below which an attack counts as having broken through."""

    def __post_init__(self) -> None:
        require.at_least(1, rows=self.rows)
        require.at_least(2, ": FGSM has one", steps=self.steps)
        require.between(0, 1, floor=self.floor)

    def sentence(self) -> str:
        """What ends the training, and where."""
        return (
            f"A guard ends the training where the accuracy under PGD of {self.steps} steps on "
            f"{self.rows} public rows falls below {self.floor:.0%} of its best and that under FGSM "
            "does not."
        )

    def collapsed(
        self,
        curve: Sequence[Mapping[str, float]],  # points with `fgsm` and `pgd`, from 0 to 1
    ) -> bool:
        """Whether the last point of a curve is one of collapse.

        >>> before, after = {"fgsm": 0.6, "pgd": 0.5}, {"fgsm": 0.9, "pgd": 0.1}
        >>> Guard().collapsed([before]), Guard().collapsed([before, after])
        (False, True)
        """
        points = [point for point in curve if "pgd" in point]
        if not points:
            return False
        pgd, fgsm = points[-1]["pgd"], points[-1]["fgsm"]
        best_pgd = max(point["pgd"] for point in points)
        best_fgsm = max(point["fgsm"] for point in points)
        return pgd < self.floor * best_pgd and fgsm >= self.floor * best_fgsm


def said(words: str, ramp: Ramp | None, guard: Guard | None) -> str:
    """The sentence of an objective, and those of what it has besides."""
    return " ".join([words, *(each.sentence() for each in (ramp, guard) if each is not None)])


@dataclass(eq=False)
class Guarded:
    """A guard at work: what it measures, and the weights that it would go back to."""

    option: Guard
    task: Task
    region: Region
    batch: Batch  # public, scaled
    best: Tensors = field(default_factory=dict[str, Tensor])

    def __post_init__(self) -> None:
        count = min(self.option.rows, len(self.batch["label"]))
        self.batch = {
            "features": self.batch["features"][:count],
            "label": self.batch["label"][:count],
            "unit": torch.arange(count),
            "present": torch.ones(count, dtype=torch.bool),
        }

    def measured(self, model: nn.Module) -> dict[str, float]:
        """`fgsm` and `pgd`: accuracy under each, 0 to 1. The model is left as it was."""
        single = Ascent(self.region, steps=1, step=1.0)
        many = Ascent(self.region, self.option.steps, 2.5 / self.option.steps, random_start=True)
        return {"fgsm": self._accuracy(model, single), "pgd": self._accuracy(model, many)}

    def _accuracy(self, model: nn.Module, attack: Attack) -> float:
        mode = model.training
        source = Source(bytes(32)).child("guard")  # the rows are public, and so are the starts
        moved = attacked(model, self.batch, self.task.losses, attack, self.region, source)
        model.eval()
        with torch.no_grad():
            right = self.task.correct(
                self.task.predict(model, moved["features"]), self.batch["label"]
            )
        model.train(mode)
        return float(right.double().mean())

    def follow(self, model: nn.Module, curve: Sequence[Mapping[str, float]]) -> None:
        """Keeps the weights where the last point of the curve is the best so far."""
        if best_point(curve) == len(curve) - 1:
            self.best = {name: w.clone() for name, w in detached(trainable(model)).items()}

    def step(self, curve: Sequence[Mapping[str, float]]) -> int:
        """The step whose weights are kept: that of the best point of the curve."""
        return int(curve[best_point(curve)]["round"])

    def hand_over(self, model: nn.Module) -> None:
        """The best weights become the model's."""
        assign(model, self.best)


def best_point(curve: Sequence[Mapping[str, float]]) -> int:
    """The place of the first point with the best accuracy under PGD.

    >>> best_point([{"pgd": 0.1}, {"pgd": 0.5}, {"pgd": 0.5}])
    1
    """
    return max(range(len(curve)), key=lambda place: (curve[place].get("pgd", -1.0), -place))

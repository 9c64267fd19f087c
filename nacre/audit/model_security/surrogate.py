"""A small model that answers as another does: what an attacker trains who sees answers alone."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nacre.adversarial_training.evaluation.access import ScoreOnly
from nacre.adversarial_training.threats.region import Region
from nacre.core.random import Source, seed_torch

_WIDTH = 128
_ROWS = 128  # a step
_STEPS = 200
_RATE = 3e-3


def surrogate(target: ScoreOnly, region: Region, clean: Tensor, source: Source) -> nn.Module:
    """A network with one hidden layer, trained to give the target's probabilities at `clean`
    inputs (R, *shape), each moved to a random point of its region: smooth where the target may not
    be. The same `source` gives the same network; PyTorch's generators stay as they were.

    *Source:* Papernot et al. 2017, "Practical black-box attacks against machine learning",
    https://arxiv.org/abs/1602.02697, section 4; their growing of the inputs is left out.
    """
    numbers = source.stream()
    with torch.random.fork_rng(), torch.enable_grad():
        seed_torch(numbers.seed())
        classes = target.scores(clean[:1]).shape[1]
        student = nn.Sequential(
            nn.Flatten(),
            nn.Linear(clean[0].numel(), _WIDTH),
            nn.ReLU(),
            nn.Linear(_WIDTH, classes),
        )
        weights = list(student.parameters())
        means, squares = ([torch.zeros_like(w) for w in weights] for _ in range(2))
        for step in range(_STEPS):
            chosen = clean[(numbers.uniform(_ROWS) * len(clean)).long()]
            moves = source.child("move", step).stream().rows(torch.arange(_ROWS), region.draws)
            x = region.start(chosen, moves)
            wanted = target.scores(x).softmax(1)
            loss = nn.functional.cross_entropy(student(x), wanted)
            _adam(step, weights, torch.autograd.grad(loss, weights), means, squares)
    return student.requires_grad_(False).eval()


@torch.no_grad()
def _adam(
    step: int,
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
) -> None:
    """One step of Adam (Kingma & Ba 2015, algorithm 1). PyTorch's own reads its compiler before the
    first step, which takes longer than all of this."""
    for weight, gradient, mean, square in zip(weights, gradients, means, squares, strict=True):
        mean.lerp_(gradient, 0.1)
        square.lerp_(gradient.square(), 0.001)
        root = (square / (1 - 0.999 ** (step + 1))).sqrt_().add_(1e-8)
        weight.addcdiv_(mean, root, value=-_RATE / (1 - 0.9 ** (step + 1)))

"""A small zoo of models and batches: the laws hold on each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nacre.core.parts import Task
from nacre.core.random import seed_torch
from nacre.core.types import Batch, Tensors
from nacre.models.tasks import Classification, Regression
from tests.laws.networks import Computed, Objective


@dataclass(frozen=True)
class Animal:
    """A model, what its outputs mean, and batches that fit it."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]  # of one row
    task: Task
    width: int | None = None  # rows a unit at most; None where a unit is a row

    def model(self) -> nn.Module:
        """The model, the same weights each time."""
        with torch.random.fork_rng(devices=[]):
            seed_torch(5)
            return self.build()

    def batch(self, units: int, seed: int = 0) -> Batch:
        """`units` units of random rows, numbered from 10 * seed."""
        generator = torch.Generator().manual_seed(seed)
        lead = (units,) if self.width is None else (units, self.width)
        label = torch.randint(0, self.task.outputs, lead, generator=generator)
        batch = {
            "features": torch.randn(*lead, *self.shape, generator=generator),
            "label": label if self.task.kind == "classification" else label.float() - 0.3,
            "present": torch.ones(units, dtype=torch.bool),
            "unit": torch.arange(units) + 10 * seed,
        }
        if self.width is not None:
            held = torch.arange(units)[:, None] % (self.width + 1)  # from 0 rows to all of them
            batch["rows"] = torch.arange(self.width)[None] < held
        return batch


class Attention(nn.Module):
    """One head over five positions, normalised by LayerNorm, as in a small transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.mix = nn.Linear(4, 12)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:  # (B, 5, 4) -> (B, 3)
        query, key, value = self.mix(self.norm(x)).chunk(3, dim=-1)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.out((x + mixed).mean(1))


class Distances(nn.Module):
    """Attention whose scores get a bias by how far positions lie apart, and one by a slope."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 12)
        self.apart = nn.Embedding(3, 2)
        self.slopes = nn.Parameter(torch.tensor([0.5, 0.1]))
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:  # (B, 5, 4) -> (B, 3)
        query, key, value = self.mix(x).unflatten(2, (2, 6)).transpose(1, 2).chunk(3, dim=-1)
        line = torch.arange(5, device=x.device)
        away = (line[:, None] - line[None]).abs()
        bias = self.apart(away.clamp(max=2)).permute(2, 0, 1)[None]
        mixed = (query @ key.mT + bias.contiguous()).softmax(-1) @ value
        scores = mixed @ mixed.mT - self.slopes.square()[:, None, None] * away
        mixed = torch.where(away > 3, bias, scores).softmax(-1) @ mixed
        return self.out((x + mixed.transpose(1, 2).flatten(2)).mean(1))


class Tied(nn.Module):
    """One matrix on the way in and, transposed, on the way out; its bias stands alone."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 3, bias=False)
        self.leave = nn.Linear(3, 6)
        self.again = nn.Linear(6, 3, bias=False)
        self.again.weight = self.enter.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.leave(torch.tanh(self.enter(x))))


class Twice(nn.Module):
    """The same layer used twice, as TRADES uses the whole model."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inner(torch.tanh(self.inner(x)))))


class Scaled(nn.Module):
    """Bare parameters, one of them unused and one frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))
        self.unused = nn.Parameter(torch.ones(2))
        self.fixed = nn.Parameter(torch.full((6,), 0.5), requires_grad=False)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(x * self.scale + self.fixed))


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.GroupNorm(2, 4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def _value() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1))


_three = Classification(3)

ZOO = (
    Animal("mlp", _mlp, (6,), _three),
    Animal("cnn", _cnn, (1, 4, 4), _three),
    Animal("attention", Attention, (5, 4), _three),
    Animal("tied", Tied, (6,), _three),
    Animal("twice", Twice, (6,), _three),
    Animal("scaled", Scaled, (6,), _three),
    Animal("regression", _value, (6,), Regression()),
    Animal("groups", _mlp, (6,), _three, width=3),
    Animal("groups of images", _cnn, (1, 4, 4), _three, width=2),
    Animal("distances", Distances, (5, 4), _three),
    Animal("groups of distances", Distances, (5, 4), _three, width=2),
)

MLP = ZOO[0]
GROUPS = ZOO[7]


def joined(*batches: Batch) -> Batch:
    """The units of all of them, one batch after the other."""
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def distance(a: Tensors, b: Tensors) -> float:
    """The joint L2 norm of a - b, in float64."""
    assert a.keys() == b.keys()
    return sum(float((a[n].double() - b[n].double()).square().sum()) for n in a) ** 0.5


def snapshot(model: nn.Module) -> list[tuple[object, ...]]:
    """Everything of a model that a part must leave alone, in a form that compares."""
    modes: list[tuple[object, ...]] = [(n, m.training) for n, m in model.named_modules()]
    parameters: list[tuple[object, ...]] = [
        (n, p.requires_grad, p.grad is None, p.detach().clone().numpy().tobytes())
        for n, p in model.named_parameters()
    ]
    buffers: list[tuple[object, ...]] = [
        (n, b.clone().numpy().tobytes()) for n, b in model.named_buffers()
    ]
    return modes + parameters + buffers


def computing(function, **parts):
    """A network of these parts and a function of them, four units, and the squares of what comes
    out as an objective."""
    model = Computed(function, **parts).train()
    batch = {"x": torch.randn(4, 6, generator=torch.Generator().manual_seed(0))}
    batch |= {"present": torch.ones(4, dtype=torch.bool), "unit": torch.arange(4)}
    return model, batch, Objective(lambda model, batch: model(batch["x"]).square().sum(1))

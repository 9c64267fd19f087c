"""What a run will cost, from the model's size and a few steps on made-up rows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from torch import nn

from nacre.core.random import Source
from nacre.core.tensors import trainable
from nacre.core.types import FeatureSpace
from nacre.data.dataset import Schema
from nacre.gradient_clipping import Vmapped
from nacre.recipe.schema import Recipe
from nacre.training import pieces

_PROBE = 256  # units a timed step has at most; larger batches are scaled up from there


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes, to about a factor of two; numbers of parameters."""

    seconds: float
    memory_bytes: int
    parameters: int
    trained: int
    gradients: str
    why: str

    def to_json(self) -> dict[str, Any]:
        """As plan.json has it."""
        return dict(vars(self))


def estimate(
    recipe: Recipe,
    model: nn.Module,
    schema: Schema,
    space: FeatureSpace,
    steps: int,  # over rows, of all holders together
) -> Estimate:
    """Times two steps (the first warms up) and scales the second to the whole run."""
    sums, why = pieces.sums(recipe, model, schema, space)
    count = min(_PROBE, recipe.training.batch)
    batch = pieces.random_batch(recipe, schema, count)
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        sums(model, batch, pieces.clip(recipe), Source(bytes(32)))
        seconds = time.perf_counter() - start
    at_once = min(recipe.execution.microbatch or recipe.training.batch, recipe.training.batch)
    trained = sum(p.numel() for p in trainable(model).values())
    everything = sum(p.numel() for p in model.parameters())
    gradients = 4 * trained * (at_once if isinstance(sums, Vmapped) else 1)
    return Estimate(
        seconds=seconds * steps * max(1.0, recipe.training.batch / count),
        memory_bytes=gradients + 4 * (everything + 4 * trained),
        parameters=everything,
        trained=trained,
        gradients=type(sums).__name__.lower(),
        why=why,
    )

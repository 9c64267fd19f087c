"""What a run will cost, from the model's size and a few steps on made-up rows."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from nacre.core.random import Source
from nacre.core.tensors import trainable
from nacre.core.types import FeatureSpace
from nacre.data.dataset import Schema
from nacre.recipe.schema import Recipe
from nacre.training import pieces
from nacre.training.compiled import is_compiled

_PROBE = 256  # units a timed step has at most; larger batches are scaled up from there
_FIRST, _GROWTH = 4, 4  # units of the first timed step, and how many times as many the next has
_ENOUGH = 0.2  # seconds of a step that tell what a larger one takes
_LONG = 0.5  # seconds of the first step of all, beside which what only a first one takes is small
_HELD = 1 << 28  # bytes that their gradients, or their rows, may take
_CLIMB = 5  # steps of an attack that are timed; longer ones are scaled up as well


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes, to about a factor of two; numbers of parameters.

    Of the steps over private rows alone: reading, training on public rows, the twin and the audits
    come on top.
    """

    seconds: float
    memory_bytes: int
    parameters: int
    trained: int
    gradients: str
    why: str
    compiled: bool = False

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
    """Times steps of more and more units, until one takes long enough to go by, and scales that
    one to the whole run."""
    short, longer = _shortened(recipe)
    sums, why = pieces.sums(short, model, schema, space)
    trained = sum(p.numel() for p in trainable(model).values())
    most = min(_probed(recipe, schema, trained), recipe.training.batch)
    count, seconds, warm = min(_FIRST, most), 0.0, False
    while True:
        batch = pieces.random_batch(recipe, schema, count)
        start = time.perf_counter()
        sums(model, batch, pieces.clip(recipe), Source(bytes(32)))
        seconds = time.perf_counter() - start
        if seconds >= _LONG or (warm and (seconds >= _ENOUGH or count == most)):
            break
        count, warm = min(_GROWTH * count, most) if warm else count, True
    at_once = min(recipe.execution.microbatch or recipe.training.batch, recipe.training.batch)
    everything = sum(p.numel() for p in model.parameters())
    privacy = recipe.differential_privacy
    remembered = 0 if privacy is None else privacy.noise.remembered(recipe.training.steps)
    gradients = 4 * trained * (at_once if sums.holds_gradients else 1)
    return Estimate(
        seconds=seconds * longer * steps * max(1.0, recipe.training.batch / count),
        memory_bytes=gradients + 4 * (everything + (4 + remembered) * trained),
        parameters=everything,
        trained=trained,
        gradients=sums.kind,
        why=why,
        compiled=is_compiled(sums),
    )


def _shortened(recipe: Recipe) -> tuple[Recipe, float]:
    """The recipe with a short attack and no armed checks, of which a run has a few, and how many
    times as long a step of the whole one takes."""
    option = recipe.adversarial_training
    plain = replace(recipe, execution=replace(recipe.execution, verify="never"))
    if option is None:
        return plain, 1.0
    short, longer = option.shortened(_CLIMB)
    return replace(plain, adversarial_training=short), longer


def _probed(recipe: Recipe, schema: Schema, trained: int) -> int:
    """Units of a timed step: as many as fit, and at least one."""
    rows = recipe.rows_per_unit or 1
    unit = 4 * max(trained, rows * math.prod(schema.shape))
    return max(1, min(_PROBE, _HELD // unit))

"""The parts of a step over rows, built from the recipe's options."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from nacre.adversarial_training import Standard
from nacre.adversarial_training.objectives import at, without_stopped_rows
from nacre.core.parts import Objective, Sampling, Task
from nacre.core.swapped import unmoved
from nacre.core.types import Batch, FeatureSpace
from nacre.data.dataset import Schema
from nacre.gradient_clipping import ByNorm, ByValue, RowSum, Unclipped, UnitClip, Whole, choose_sum
from nacre.models import AnyTask, Classification, random_inputs, task_for
from nacre.recipe.schema import Recipe
from nacre.recipe.sections import Training
from nacre.training import compiled
from nacre.training.augmented import Augmented

_TRIED = 2
"""Rows of a unit on trial: that a unit owns several shows with two of them as with twenty."""


def task_of(schema: Schema) -> AnyTask:
    """What the model's outputs mean."""
    return task_for(schema.task, schema.outputs())


def learnt_task(recipe: Recipe, schema: Schema) -> AnyTask:
    """What is learnt: the task with the declared weights of its classes. A weight is a factor of
    one unit's loss and comes before its gradient is clipped, so no bound depends on it."""
    task, weights = task_of(schema), recipe.training.loss_weights(schema.classes)
    return replace(task, weights=weights) if isinstance(task, Classification) else task


def objective(recipe: Recipe, task: Task, space: FeatureSpace) -> Objective:
    """The recipe's adversarial objective, or the plain loss."""
    option = recipe.adversarial_training
    if option is None:
        return Standard(task)
    built = option.build(task, space)
    return without_stopped_rows(built) if isinstance(clip(recipe), Unclipped) else built


def losses(recipe: Recipe, schema: Schema, space: FeatureSpace) -> Objective:
    """What a step over rows minimises: the recipe's objective, on copies where it asks for them."""
    found, copies = objective(recipe, learnt_task(recipe, schema), space), recipe.training.augment
    return found if copies is None else Augmented(found, copies)


def protects(recipe: Recipe) -> str | None:
    """The unit that is protected, or None."""
    return recipe.differential_privacy.unit if recipe.differential_privacy is not None else None


def unit_clip(recipe: Recipe) -> UnitClip | None:
    """The rule that bounds the share of each unit of `differential_privacy`; None where nothing
    does."""
    option = recipe.gradient_clipping
    return option if isinstance(option, UnitClip) else None


def clip(recipe: Recipe) -> UnitClip | Unclipped:
    """The rule over rows; none where whole parties' changes alone are bounded."""
    option = recipe.clipping_of_rows
    return option if isinstance(option, UnitClip) else Unclipped()


def shape(recipe: Recipe) -> ByValue | ByNorm | None:
    """What is done to the released mean gradient."""
    option = recipe.gradient_clipping
    return option if isinstance(option, ByValue | ByNorm) else None


def sums(
    recipe: Recipe,
    model: nn.Module,
    schema: Schema,
    space: FeatureSpace,
    memory: int | None = None,  # bytes to choose by; None for those of this machine
    decided: bool | None = None,  # what the run was started with; None tries it out
) -> tuple[RowSum, str]:
    """The gradient sum over rows, and why this one; tried on random rows."""
    units = min(recipe.execution.microbatch or recipe.training.batch, recipe.training.batch)
    width = recipe.rows_per_unit
    narrow = None if width is None else min(width, _TRIED)
    with unmoved(model):
        chosen, why = choose_sum(
            recipe.execution.gradients,
            model=model,
            objective=losses(recipe, schema, space),
            clip=clip(recipe),
            sample=random_batch(recipe, schema, 3, narrow),
            verify=recipe.execution.verify,
            precision=recipe.execution.precision,
            units=units,
            wider=1.0 if width is None or narrow is None else width / narrow,
            memory=memory or physical_memory(),
        )
    if not recipe.execution.compile or decided is False:
        return chosen, why
    return _compiled(recipe, chosen, why, model, random_batch(recipe, schema, units), decided)


def grows(recipe: Recipe) -> bool:
    """Whether the threat grows over the first steps of the run."""
    return recipe.adversarial_training is not None and recipe.adversarial_training.ramp is not None


def scheduled(recipe: Recipe, sums: RowSum) -> Callable[[int], RowSum]:
    """The sum of each step, counted from the start of the run, and in a federation over the local
    steps of all rounds: the same one, but for a threat that grows over the first of them."""
    if not grows(recipe):
        return lambda step: sums
    return lambda step: sums.minimising(at(sums.objective, step / recipe.row_steps))


def _compiled(
    recipe: Recipe, chosen: RowSum, why: str, model: nn.Module, sample: Batch,
    decided: bool | None,
) -> tuple[RowSum, str]:  # fmt: skip
    """The sum through the compiled model where that was decided, or pays."""
    reason = compiled.unfit(recipe, chosen)
    if reason is not None or not isinstance(chosen, Whole):
        return chosen, f"{why}; not compiled: {reason}"
    if decided is None:
        verdict = compiled.tried(chosen, model, sample, clip(recipe), recipe.training.steps)
        if not verdict.taken:
            return chosen, f"{why}; {verdict.why}"
        why = f"{why}; {verdict.why}"
    return compiled.compiled(chosen, model, sample, clip(recipe)), why


def physical_memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def random_batch(
    recipe: Recipe,
    schema: Schema,
    count: int,
    width: int | None = None,  # rows of a unit that holds several; None for all that it may hold
) -> Batch:
    """Made-up units of the declared shape, (count, …): what is tried out may see no real row."""
    generator = torch.Generator().manual_seed(0)
    width = width or recipe.rows_per_unit
    outer = (count,) if width is None else (count, width)
    features = random_inputs((*outer[1:], *schema.shape), schema.tokens, count)
    if schema.task == "causal_lm":
        label = features.masked_fill(features < 0, -100)
    elif schema.task == "regression":
        label = torch.zeros(outer)
    else:
        places = features.shape if schema.task == "token_classification" else outer
        label = torch.randint(schema.outputs(), places, generator=generator)
    batch = {
        "features": features,
        "label": label,
        "present": torch.ones(count, dtype=torch.bool),
        "unit": torch.arange(count),
    }
    if width is not None:
        batch["rows"] = torch.ones(outer, dtype=torch.bool)
    return batch


def pace(training: Training) -> Callable[[int], float] | None:
    """The step size of each step, as a multiple of the optimizer's; None leaves it alone."""
    schedule = training.schedule
    return None if schedule is None else lambda step: schedule.factor(step, training.steps)


def sampling(
    recipe: Recipe,
    size: int,  # declared units
) -> Sampling:
    """How a step over rows draws. Raises `DataError` where the data hold fewer than a batch, but
    for parties that may be smaller."""
    option = recipe.training.sampling
    privacy = recipe.privacy_of_rows or recipe.differential_privacy
    bands = privacy.noise.bands if privacy is not None else 1
    batch = recipe.training.batch
    return option.build(min(batch, size) if small_parties_take_all(recipe) else batch, size, bands)


def small_parties_take_all(recipe: Recipe) -> bool:
    """Whether a party with fewer units than a batch takes all of them: where its steps over rows
    are not noised, no rate is promised to anybody."""
    return recipe.federated_learning is not None and recipe.privacy_of_rows is None

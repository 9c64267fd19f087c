"""Whether the parties of a recipe may be trained together: tried on made-up rows."""

from __future__ import annotations

import copy

import torch
from torch import nn

from nacre.core.errors import CallFailed, UnsupportedLayer
from nacre.core.random import Source
from nacre.core.swapped import unmoved
from nacre.core.tensors import assign, detached, norm, subtract, trainable
from nacre.core.types import FeatureSpace, Tensors
from nacre.data.dataset import Rows, Schema
from nacre.data.sampling import AllUnits
from nacre.data.units import Units
from nacre.gradient_clipping.clipped_sum import UnitLosses
from nacre.models import spectral
from nacre.recipe.places import refuse
from nacre.recipe.schema import Recipe
from nacre.training import pieces
from nacre.training.local.minibatches import LocalSteps, Minibatches
from nacre.training.local.stacked import Stacked
from nacre.training.unmoved import Attributes

_STEPS = 2
_NEAR = 1e-3  # of the length of a change, by which rounding may move it


def why_apart(recipe: Recipe, schema: Schema, space: FeatureSpace, model: nn.Module) -> str | None:
    """Why the parties of this recipe cannot be trained together; None where they can. The model is
    afterwards as it was.

    A trial on made-up rows has to give the numbers of training alone, for parties of unequal size.
    Where whole parties are protected it also has to give each party the same bits in stacks of
    every size and at another place beside others: else taking one party away would move what the
    others contribute.
    """
    if pieces.shape(recipe) is not None:
        return "clipping of the mean gradient is done of each party's by itself"
    if recipe.adversarial_training is not None:
        return "the search for adversarial inputs takes gradients of each party's model by itself"
    if schema.tokens:
        return "texts are taken in widths of their own"
    if spectral.vectors(model):
        return "a spectral norm keeps vectors of one weight"
    with unmoved(model):
        own = copy.deepcopy(model)
        own.train()
        return _tried(recipe, schema, UnitLosses(own, pieces.losses(recipe, schema, space)))


def require_fit(recipe: Recipe, schema: Schema, space: FeatureSpace, model: nn.Module) -> None:
    """Raises `Incompatible`, with the remedy, where the parties cannot be trained together."""
    refuse_because(recipe, why_apart(recipe, schema, space, model))


def refuse_because(recipe: Recipe, reason: str | None) -> None:
    """Raises `Incompatible` for a reason, with the remedy."""
    if reason is not None:
        remedy = "leave it out, and parties are trained one after another"
        refuse(recipe, "execution.stacked", f"{reason}; {remedy}")


def _tried(recipe: Recipe, schema: Schema, losses: UnitLosses) -> str | None:
    own, stacked, most = losses.model, Stacked.of(recipe, losses), recipe.execution.stacked or 2
    attributes, begun = Attributes.of(own), detached(trainable(own))
    parties = _parties(recipe, schema, stacked.width, most if stacked.alike else min(most, 3))

    def together(some: list[LocalSteps]) -> list[Tensors]:
        return stacked.take(recipe.training.optimizer.build, some, begun, [None] * len(some))

    try:
        found = together(parties)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, UnsupportedLayer) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        if "randomness" in said[0]:
            return (
                "the model draws random numbers in training (as dropout does), each party its own"
            )
        return f"the model cannot run for several parties at once ({said[0][:200]})"
    if not attributes.stand(own):
        return "a forward pass sets attributes of the model, which are each party's own"
    minibatches = Minibatches(losses, clips=False, microbatch=None)
    for one, after in zip(parties, found, strict=True):
        assign(own, begun)
        try:
            minibatches.take(lambda: recipe.training.optimizer.build(trainable(own).values()), one)
        except CallFailed:
            return None  # it fails by itself too, which is told elsewhere
        alone = detached(trainable(own))
        apart = norm(subtract(alone, after))
        if not apart <= _NEAR * norm(subtract(alone, begun)) + 1e-6:
            return f"made-up parties got other numbers than alone, {apart:.2g} apart"
    if stacked.alike and not all(
        _same(found[: len(some)], together(some[::-1])[::-1])
        for some in (parties[:size] for size in range(2, most + 1))
    ):
        return (
            "here the operations of the model round one party's numbers by those beside it, so "
            "taking a protected party away would move the others"
        )
    return None


def _parties(recipe: Recipe, schema: Schema, width: int, count: int) -> list[LocalSteps]:
    """Made-up ones; every second one fills a pass not quite."""
    batch = pieces.random_batch(recipe, schema, count * width)
    found: list[LocalSteps] = []
    for number in range(count):
        size = width - number % 2 if width > 1 else width
        mine = slice(number * width, number * width + size)
        rows = Rows(batch["features"][mine], batch["label"][mine])
        source = Source(bytes([number] * 32))
        units = Units(rows, "example", None, source, numbered_by="place")
        found.append(LocalSteps(units, AllUnits(size), 0, _STEPS, source, b""))
    return found


def _same(one: list[Tensors], other: list[Tensors]) -> bool:
    return all(torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a)

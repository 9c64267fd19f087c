"""Is the answer to a row its own? The points that an attack found, asked in other ways.

A model that answers a row by what stands beside it, or otherwise while gradients are computed, has
no accuracy under attack: what an attacker finds in one batch is another point in the next.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.text.words import Substitutions
from nacre.adversarial_training.threats.region import Region
from nacre.core.random import Source
from nacre.core.theirs import theirs

ROUNDING = 1e-3
"""Of an output, or of a row's best two: what rounding in another order may move an answer by, where
outputs have 24 digits. Half types have 8 or 11, and for them it is `ROUNDING_OF_HALVES`."""

ROUNDING_OF_HALVES = 0.1

_Predict = Callable[[Tensor], Tensor]


def asked_otherwise(
    predict: _Predict,  # (R, …) -> (R, …)
    points: Tensor,  # (R, *shape)
) -> dict[str, Any]:
    """How many of these points the model answers otherwise `alone`, in another `order` and
    `with_gradients` than all together without, by more than rounding; `rows` of them in any way.

    The three differ in one thing each. A model that answers the same batch in two ways is random,
    which is another fault: of it nothing is counted. `asked` is how many rows went through it.
    """
    counts = {"alone": 0, "order": 0, "with_gradients": 0}
    if not len(points):
        return {"rows": 0, **counts, "tried": 0, "asked": 0}
    with theirs("the model", "it was attacked", surely=False):
        with torch.no_grad():
            together, again = predict(points), predict(points)
            alone = torch.cat([predict(one) for one in points.split(1)])
            turned = predict(points.flip(0)).flip(0)
        with torch.enable_grad():
            leaf = points.detach().clone().requires_grad_(points.is_floating_point())
            sloped = predict(leaf).detach()
    if bool(_apart(together, again).any()):
        return {"rows": 0, **counts, "tried": 0, "asked": 2 * len(points)}
    found = [_apart(together, other) for other in (alone, turned, sloped)]
    counts = {name: int(each.sum()) for name, each in zip(counts, found, strict=True)}
    rows = int(torch.stack(found).any(0).sum())
    return {"rows": rows, **counts, "tried": len(points), "asked": 5 * len(points)}


def afresh(model: nn.Module) -> nn.Module | None:
    """A copy that shares the model's weights and buffers, and of all else has what it holds now:
    what the model notes from here on, the copy does not know. None where it cannot be copied."""
    held = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    try:
        return copy.deepcopy(model, held)
    except Exception:  # locks, open files, tensors with a graph: whatever their objects hold
        return None


def points_within(region: Region | Substitutions, rows: Inputs, source: Source) -> Tensor:
    """(R, *shape) random points of the region; of texts those with each word's nearest."""
    if isinstance(region, Substitutions):
        near = region.choices(rows.clean)[:, :, 0]
        return torch.where(near >= 0, near, rows.clean)
    return region.start(rows.clean, source.stream().rows(rows.unit, region.draws))


def answers_from_memory(
    predict: _Predict,
    fresh: _Predict,  # the same of a copy that was asked nothing
    points: Tensor,  # (R, *shape)
) -> int:
    """How many of these points the model answers otherwise than its fresh copy; 0 of a random one,
    which is another fault."""
    with theirs("the model", "it was attacked", surely=False), torch.no_grad():
        first, again, other = predict(points), predict(points), fresh(points)
    return 0 if bool(_apart(first, again).any()) else int(_apart(first, other).sum())


def otherwise(found: dict[str, Any]) -> str | None:
    """The sentence against a figure; None where every answer was that of its row."""
    if not found["rows"]:
        return None
    ways = {"alone": "alone", "order": "in another order", "with_gradients": "with gradients on"}
    named = ", ".join(f"{found[key]} {words}" for key, words in ways.items() if found[key])
    return (
        f"{found['rows']} of {found['tried']} points are answered otherwise when they are asked in "
        f"another way ({named}): the answer to a row has to depend on that row alone"
    )


def _apart(one: Tensor, other: Tensor) -> Tensor:
    """(R,) bool: rows whose outputs differ by more than rounding."""
    if one.shape != other.shape:
        return torch.ones(len(one), dtype=torch.bool)
    halves = one.dtype in (torch.float16, torch.bfloat16)
    one = one.double().reshape(len(one), -1)  # a single score a row may stand alone: (R,)
    other = other.double().reshape(len(other), -1)
    finite = one.isfinite() & other.isfinite()
    # Of the two best scores: a class that is never answered may have one of -1e9.
    best = torch.where(finite, one, -torch.inf).topk(min(2, one.shape[1]), 1).values
    size = torch.where(best.isfinite(), best.abs(), 0.0).amax(1)
    # Near a boundary a single score is about 0, and is rounded like those of other rows.
    size = torch.maximum(size.clamp(min=float(size.median()))[:, None], one.abs())
    allowed = (ROUNDING_OF_HALVES if halves else ROUNDING) * size
    differ = (torch.where(finite, (one - other).abs(), 0.0) > allowed).any(1)
    same = (one == other) | (one.isnan() & other.isnan())  # infinities of one sign are the same
    return (differ | ~(finite | same).all(1)).cpu()

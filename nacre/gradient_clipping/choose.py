"""Which gradient sum to use, and why."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from nacre.core.errors import Incompatible, UnsupportedLayer
from nacre.core.parts import Clip, GradientSum, Objective
from nacre.core.random import Source
from nacre.core.tensors import trainable
from nacre.core.types import Batch
from nacre.gradient_clipping.bookkeeping import BookKeeping
from nacre.gradient_clipping.ghost import Ghost
from nacre.gradient_clipping.grouped import Grouped
from nacre.gradient_clipping.looped import Looped
from nacre.gradient_clipping.taped import Taped
from nacre.gradient_clipping.vmapped import Vmapped
from nacre.gradient_clipping.whole import Whole

GRADIENT_SUMS = (Looped, Vmapped, BookKeeping, Ghost, Grouped, Whole)
"""Every gradient sum over rows; the laws run over them."""

Name = Literal["auto", "bookkeeping", "grouped", "ghost", "vmapped", "looped", "whole"]

_TAPED = {"bookkeeping": BookKeeping, "ghost": Ghost, "grouped": Grouped}
_AGREES = 1e-3  # relative: norms of the tape and of single units, tried on made-up rows


def choose(
    name: Name,
    *,
    model: nn.Module,
    objective: Objective,
    clip: Clip,
    sample: Batch,  # a few made-up or public units, never private ones: the model is tried on them
    verify: Literal["first", "always", "never"] = "first",
    precision: Literal["float32", "bfloat16"] = "float32",
    units: int = 1,  # at a time
    memory: int | None = None,  # bytes that the step may take; None for no limit
) -> tuple[GradientSum, str]:
    """The gradient sum of that name, and the reason in a few words.

    `auto` takes `whole` where nothing is clipped, else book-keeping, or grouped or ghost where its
    tape would not fit into memory, else the loop where the tape cannot follow the model; each has
    been tried on the sample against single units. Raises `Incompatible` for a sum that cannot
    carry the rule, `UnsupportedLayer` for one that cannot follow the model.
    """
    groups = len(clip.groups(list(trainable(model))))
    bounded = math.isfinite(clip.bound(groups))
    if name == "whole" and bounded:
        raise Incompatible(
            "`gradients: whole` gives no single unit's gradient, so nothing can be clipped by "
            "unit: use `gradients: auto`"
        )
    if name == "whole" or (name == "auto" and not bounded):
        why = "asked for" if name == "whole" else "no unit is clipped, so one backward is enough"
        return Whole(objective), why
    if name in ("ghost", "grouped") and groups > 1:
        raise Incompatible(
            f"`gradients: {name}` scales each unit's loss by one factor, and this clip rule has "
            "one a layer; use `gradients: bookkeeping`"
        )
    with torch.random.fork_rng():
        if name == "looped":
            looped = Looped(objective)
            looped.learn(model, sample, Source(bytes(32)))
            return looped, "asked for"
        if name == "vmapped":
            vmapped = Vmapped(objective)
            vmapped(model, sample, clip, Source(bytes(32)))
            return vmapped, "asked for"
        if name != "auto":
            return _tried(_TAPED[name], model, objective, sample, clip, verify, precision), (
                "asked for"
            )
        return _automatic(model, objective, clip, sample, verify, precision, units, memory)


def _automatic(
    model: nn.Module,
    objective: Objective,
    clip: Clip,
    sample: Batch,
    verify: Literal["first", "always", "never"],
    precision: Literal["float32", "bfloat16"],
    units: int,
    memory: int | None,
) -> tuple[GradientSum, str]:
    try:
        best = _tried(BookKeeping, model, objective, sample, clip, verify, precision)
    except UnsupportedLayer as refusal:
        looped = Looped(objective)
        looped.learn(model, sample, Source(bytes(32)))
        return looped, f"one unit at a time, since {refusal}"
    one_group = len(clip.groups(list(trainable(model)))) == 1
    if memory is not None and one_group:
        kept = units * best.kept(model, sample, Source(bytes(32)))
        size = f"the tape of {units} units takes {kept / 2**30:.3g} GiB"
        if kept > memory // 2:
            return Ghost(objective, verify, precision, best.owners), f"two backward passes, {size}"
        if kept > memory // 4:
            half = Grouped(objective, verify, precision, best.owners)
            return half, f"half of a second backward pass, {size}"
    return best, "one backward pass; the tape follows every operation that moves"


def _tried(
    kind: type[Taped],
    model: nn.Module,
    objective: Objective,
    sample: Batch,
    clip: Clip,
    verify: Literal["first", "always", "never"],
    precision: Literal["float32", "bfloat16"],
) -> Taped:
    """A sum of the tape that agrees with single units on the sample. Raises `UnsupportedLayer`."""
    chosen = kind(objective, verify, precision)
    source = Source(bytes(32))
    chosen.learn(model, sample, source)
    seen = kind(objective, "never", "float32", chosen.owners)(model, sample, clip, source)
    single = Looped(objective, chosen.owners)(model, sample, clip, source)
    apart = (seen.local.norms - single.local.norms).abs()
    if not bool((apart <= _AGREES * single.local.norms + 1e-12).all()):
        raise UnsupportedLayer(
            "the tape and single units disagree about this model's gradients by "
            f"{float(apart.max()):.3g}; use `gradients: looped`, and report the model"
        )
    return chosen

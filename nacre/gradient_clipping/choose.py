"""Which gradient sum to use, and why."""

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
from nacre.gradient_clipping.looped import Looped
from nacre.gradient_clipping.vmapped import Vmapped
from nacre.gradient_clipping.whole import Whole

GRADIENT_SUMS = (Looped, Vmapped, Whole)
"""Every gradient sum over rows; the laws run over them."""


def choose(
    name: Literal["auto", "vmapped", "looped", "whole"],
    *,
    model: nn.Module,
    objective: Objective,
    clip: Clip,
    sample: Batch,  # a few made-up or public units, never private ones: the model is tried on them
) -> tuple[GradientSum, str]:
    """The gradient sum of that name, and the reason in a few words.

    `auto` takes `whole` where nothing is clipped, else `vmapped` where the model allows it, else
    `looped`. Raises `Incompatible` for `whole` under a rule that bounds units, and
    `UnsupportedLayer` for `vmapped` where the model does not allow it.
    """
    bounded = math.isfinite(clip.bound(len(clip.groups(list(trainable(model))))))
    if name == "whole" and bounded:
        raise Incompatible(
            "`gradients: whole` gives no single unit's gradient, so nothing can be clipped by "
            "unit: use `gradients: auto`"
        )
    if name == "whole" or (name == "auto" and not bounded):
        why = "asked for" if name == "whole" else "no unit is clipped, so one backward is enough"
        return Whole(objective), why
    if name == "looped":
        return Looped(objective), "asked for"
    vmapped = Vmapped(objective)
    try:
        with torch.random.fork_rng():  # pyright: ignore[reportUnknownMemberType]
            vmapped(model, sample, clip, Source(bytes(32)))
    except UnsupportedLayer as refusal:
        if name == "vmapped":
            raise
        return Looped(objective), str(refusal)
    why = "the model can be differentiated for all units at once"
    return vmapped, "asked for" if name == "vmapped" else why

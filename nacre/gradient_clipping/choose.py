"""Which gradient sum to use, and why."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from nacre.core.errors import UnsupportedLayer
from nacre.core.parts import Clip, Objective
from nacre.core.random import Source
from nacre.core.tensors import norm, subtract, trainable
from nacre.core.types import Batch
from nacre.gradient_clipping.bookkeeping import BookKeeping
from nacre.gradient_clipping.ghost import Ghost
from nacre.gradient_clipping.grouped import Grouped
from nacre.gradient_clipping.looped import Looped
from nacre.gradient_clipping.row_sum import RowSum
from nacre.gradient_clipping.spot_check import Armed, all_answer
from nacre.gradient_clipping.taped_sum import Taped
from nacre.gradient_clipping.vmapped import Vmapped
from nacre.gradient_clipping.whole_sum import Whole

GRADIENT_SUMS: tuple[type[RowSum], ...] = (Looped, Vmapped, BookKeeping, Ghost, Grouped, Whole)
"""Every gradient sum over rows; the laws run over them."""

BY_KIND = {kind.kind: kind for kind in GRADIENT_SUMS}
"""Name under `execution.gradients` -> the sum."""

Verify = Literal["first", "always", "never"]

Name = Literal["auto", "bookkeeping", "grouped", "ghost", "vmapped", "looped", "whole"]

_TAPED = {"bookkeeping": BookKeeping, "ghost": Ghost, "grouped": Grouped}
_AGREES = 1e-3  # relative: the tape and single units, tried on made-up rows


def choose_sum(
    name: Name,
    *,
    model: nn.Module,
    objective: Objective,
    clip: Clip,
    sample: Batch,  # a few made-up or public units, never private ones: the model is tried on them
    verify: Verify = "first",
    precision: Literal["float32", "bfloat16"] = "float32",
    units: int = 1,  # at a time
    wider: float = 1.0,  # how many times the rows of a unit of the sample a unit has
    memory: int | None = None,  # bytes that the step may take; None for no limit
) -> tuple[RowSum, str]:
    """The gradient sum of that name, and the reason in a few words.

    `auto` takes `whole` where nothing is clipped, else book-keeping, or ghost where its tape would
    not fit into memory, else the loop where the tape cannot follow the model; each has been tried
    on the sample against single units. Raises `Incompatible` for a sum that cannot carry the rule,
    `UnsupportedLayer` for one that cannot follow the model.
    """
    groups = len(clip.groups(list(trainable(model))))
    bounded = math.isfinite(clip.bound(groups))
    unclipped = name == "auto" and not bounded
    if name != "auto" or unclipped:
        BY_KIND["whole" if unclipped else name].require(clip, precision)
    if name == "whole" or unclipped:
        why = "asked for" if name == "whole" else "no unit is clipped, so one backward is enough"
        return Whole(objective), why
    with torch.random.fork_rng():
        if bounded:
            all_answer(model, objective, sample)
        if name == "vmapped":
            vmapped = Vmapped(objective)
            vmapped(model, sample, clip, Source(bytes(32)))
            chosen: RowSum = vmapped
        elif name == "looped":
            chosen = _looped(model, objective, sample, verify)
        elif name == "auto":
            taped = BookKeeping(objective, verify, precision)
            try:
                _try(taped, model, sample, clip)
            except torch.OutOfMemoryError:
                raise
            except (UnsupportedLayer, RuntimeError, ValueError, TypeError, LookupError) as refusal:
                looped = _looped(model, objective, sample, verify)
                looped.require(clip, precision)
                return looped, f"one unit at a time, since {_first_line(refusal)}"
            limit = memory if clip.one_factor else None
            return _by_memory(taped, model, sample, units, wider, limit)
        else:
            chosen = _TAPED[name](objective, verify, precision)
            try:
                _try(chosen, model, sample, clip)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise UnsupportedLayer(
                    f"the tape cannot follow the model ({_first_line(error)}); use `gradients: "
                    "looped`"
                ) from error
    return chosen, "asked for"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _looped(model: nn.Module, objective: Objective, sample: Batch, verify: Verify) -> Looped:
    looped = Looped(objective, verify=verify)
    looped.learn(model, sample, Source(bytes(32)))
    return looped


def _by_memory(
    best: BookKeeping,
    model: nn.Module,
    sample: Batch,
    units: int,
    wider: float,
    memory: int | None,
) -> tuple[RowSum, str]:
    """Book-keeping, or ghost where its tape would fill half of memory."""
    if memory is not None:
        kept = units * wider * best.kept(model, sample, Source(bytes(32)))
        size = f"the tape of {units} units takes {kept / 2**30:.3g} GiB"
        if kept > memory // 2:
            ghost = Ghost(best.objective, best.verify, best.precision, best.owners)
            return ghost, f"two backward passes, {size}"
    return best, "one backward pass; the tape follows every operation that moves"


def _try(chosen: Taped, model: nn.Module, sample: Batch, clip: Clip) -> None:
    """Raises `UnsupportedLayer` unless norms and sum agree with single units on the sample."""
    source = Source(bytes(32))
    chosen.learn(model, sample, source)
    exact = replace(chosen, verify="always", precision="float32", armed=Armed())
    seen = exact(model, sample, clip, source)
    if exact.armed.reached:
        raise UnsupportedLayer(
            "a unit's loss hangs on how long the other sequences of its batch are (a mean over the "
            "steps of the longest, or filling that is read); give `total_length`, average over a "
            "unit's own steps, or use `gradients: looped`"
        )
    single = Looped(chosen.objective, chosen.owners, "never")(model, sample, clip, source)
    apart = (seen.local.norms - single.local.norms).abs()
    moved = norm(subtract(seen.total, single.total))
    if (
        not bool((apart <= _AGREES * single.local.norms + 1e-12).all())
        or not moved <= _AGREES * norm(single.total) + 1e-12
    ):
        raise UnsupportedLayer(
            "the tape and single units disagree about this model's gradients: norms by "
            f"{float(apart.max()):.3g}, their sum by {moved:.3g}; use `gradients: looped`, and "
            "report the model"
        )

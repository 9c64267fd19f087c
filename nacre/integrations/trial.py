"""Tries a model, a loss and an optimizer on made-up rows before anything is charged."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from nacre.core import rows
from nacre.core.errors import CallFailed, Incompatible, UnsupportedLayer
from nacre.core.parts import Clip, GradientSum
from nacre.core.random import Source
from nacre.core.swapped import buffers_kept, unmoved
from nacre.core.tensors import trainable
from nacre.core.theirs import foreign_cause, form_of, theirs
from nacre.core.types import Batch, Losses, Tensors
from nacre.gradient_clipping import Looped, choose_sum
from nacre.gradient_clipping.spot_check import Armed
from nacre.gradient_clipping.taped_sum import Taped
from nacre.models.repair import check_layers, check_trace

Gradients = Literal["auto", "bookkeeping", "grouped", "ghost", "vmapped", "looped"]

Precision = Literal["float32", "bfloat16"]
"""What a model computes in; norms and sums are float32 either way."""

_TOLERANCE = 1e-4  # relative: another batch size may round differently


@dataclass(frozen=True, eq=False)
class OwnLoss:
    """A loss that somebody wrote, as an objective: nothing is perturbed."""

    function: Losses

    def perturb(self, model: nn.Module, batch: Batch, source: Source) -> Batch:
        """The batch itself."""
        return batch

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (B,). Raises `Incompatible` for anything else."""
        found = self.function(model, batch)
        require_one_a_row(found, len(batch["present"]))
        return found


def require_one_a_row(found: object, count: int) -> None:
    """Raises `Incompatible` unless this is one loss a row, and says what it is."""
    form = "one number a row, a tensor of shape (B,), as `reduction='none'` gives"
    if not isinstance(found, Tensor):
        remedy = "add `return`" if found is None else "return that tensor alone"
        raise Incompatible(
            f"the loss of {count} rows came as {form_of(found)}, and what is needed is {form}: "
            f"{remedy}"
        )
    if found.shape != (count,):
        raise Incompatible(
            f"the loss of {count} rows came as shape {tuple(found.shape)}, and each row needs one "
            "of its own: return one loss a row, as with `reduction='none'`, and no other axis"
        )
    if not found.is_floating_point():
        raise Incompatible(
            f"the loss came as {form_of(found)}, which has no gradient; return {form}"
        )


def tried(
    model: nn.Module,
    losses: Losses,
    clip: Clip,
    sample: Batch,  # made-up or public rows, at least two of them different
    gradients: Gradients,
    precision: Precision = "float32",
) -> GradientSum:
    """The gradient sum for this model and loss, once both were tried on `sample` in training mode.

    Raises `UnsupportedLayer` where rows see each other, where a pass draws random numbers by a
    row's place, or where no gradient sum can carry the model; `Incompatible` where the loss is not
    one a row. The model, and the random numbers that come next, are afterwards as they were, also
    where this raises. *Limit:* mixing that the sample does not show is not found.
    """
    check_layers(model)
    with unmoved(model):
        model.train()
        _one_a_row(model, losses, sample)
        other = {name: value.flip(0) for name, value in rows.select(sample, slice(2)).items()}
        check_trace(
            model, lambda: _pass(model, losses, sample), lambda: _pass(model, losses, other)
        )
        _rowwise(model, losses, sample)
        if not trainable(model):
            raise Incompatible("the model has no trainable parameters; set `requires_grad` on some")
        given = OwnLoss(losses)
        with theirs("the model or its loss", "its gradients were tried", surely=False):
            sums, _ = choose_sum(
                gradients, model=model, objective=given, clip=clip, sample=sample,
                precision=precision,
            )  # fmt: skip
        _repeats(model, sums, clip, sample)
    return sums


def _seeded(model: nn.Module, losses: Losses, batch: Batch) -> Tensor:
    """The losses under the same random numbers in every call; the model's buffers stay."""
    with buffers_kept(model):
        return _pass(model, losses, batch)


def _pass(model: nn.Module, losses: Losses, batch: Batch) -> Tensor:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(0)
        with theirs("the model or its loss", "it was tried on made-up rows"):
            return losses(model, batch)


def _one_a_row(model: nn.Module, losses: Losses, batch: Batch) -> None:
    try:
        found = _seeded(model, losses, batch)
    except CallFailed as error:
        raise Incompatible(
            "the loss cannot be computed on made-up rows "
            f"({foreign_cause(error.__cause__ or error)}); correct it, or give `sample`, a few "
            "made-up or public rows that fit the model"
        ) from error.__cause__
    require_one_a_row(found, len(batch["present"]))
    if not bool(torch.isfinite(found).all()):
        raise Incompatible(
            "the loss of made-up rows is infinite or NaN, so it has no gradient; correct the "
            "model's weights or give `sample`, a few rows that fit the model"
        )


def _rowwise(model: nn.Module, losses: Losses, batch: Batch) -> None:
    """Refuses losses that another row moves: the first, the last, or their number."""
    before = _seeded(model, losses, batch)
    last = len(before) - 1
    for moved, by in ((0, last), (last, 0)):
        changed = {name: value.clone() for name, value in batch.items()}
        for value in changed.values():
            value[moved] = value[by]
        others = torch.arange(last + 1) != moved
        _same(before[others], _seeded(model, losses, changed)[others])
    model.eval()  # in training mode dropout draws other masks for a batch of another size
    try:
        alone = _seeded(model, losses, rows.select(batch, slice(1)))
        _same(_seeded(model, losses, batch)[:1], alone)
    finally:
        model.train()


def require_padding(
    model: nn.Module, losses: Losses, together: Batch, alone: Sequence[Batch]
) -> None:
    """Raises `UnsupportedLayer` where the loss of a row depends on what it is collated with: on
    the length that it is padded to, or the place where."""
    with unmoved(model):
        model.eval()
        single = torch.cat([_seeded(model, losses, one) for one in alone])
        _same(_seeded(model, losses, together), single)


def _same(before: Tensor, after: Tensor) -> None:
    moved = float((before - after).abs().max())
    if not moved <= _TOLERANCE * max(1.0, float(before.abs().max())):
        raise UnsupportedLayer(
            f"the loss of a row moved by {moved:.3g} with the rows beside it, so no bound on one "
            "row's share exists; remove what computes with the whole batch (batch statistics, "
            "losses that compare rows, means over all tokens, padding on "
            "the left without position ids)"
        )


def _repeats(model: nn.Module, sums: GradientSum, clip: Clip, batch: Batch) -> None:
    """Refuses random numbers that are not the rows' own: the same sum has to come out again."""
    if isinstance(sums, Taped | Looped):  # its armed checks are for the first real steps
        sums = replace(sums, verify="never", armed=Armed())
    totals: list[Tensors] = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            totals.append(sums(model, batch, clip, Source(bytes(32))).total)
    first, second = totals
    if any(not torch.equal(value, second[name]) for name, value in first.items()):
        raise UnsupportedLayer(
            "two passes over the same rows differ: something in the model or the loss draws random "
            "numbers by a row's place in the batch, so taking one row away would change the draws "
            "of others; remove it (dropout of PyTorch's own functions may stay)"
        )


def require_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, new: bool) -> None:
    """Raises `Incompatible` unless the optimizer moves the trainable parameters and nothing else,
    and, for a new run, remembers nothing."""
    if isinstance(optimizer, torch.optim.LBFGS):
        raise Incompatible(
            "LBFGS asks for the loss again and again inside one step, and each answer would be a "
            "release; use an optimizer that takes one gradient a step, as SGD or AdamW"
        )
    names = {id(p): name for name, p in trainable(model).items()}
    held = [p for group in optimizer.param_groups for p in group["params"]]
    strange = [p for p in held if id(p) not in names]
    if strange:
        shapes = ", ".join(str(tuple(p.shape)) for p in strange[:3])
        raise Incompatible(
            f"the optimizer holds parameters that the model does not train (of shape {shapes}), "
            "and nothing here could say what moves them; build it from "
            "`[p for p in model.parameters() if p.requires_grad]`"
        )
    missing = [name for key, name in names.items() if key not in {id(p) for p in held}]
    if missing:
        raise Incompatible(
            f"the optimizer leaves out {missing[0]!r}, which is trainable: it would be clipped and "
            "noised for nothing; give it to the optimizer, or set `requires_grad=False`"
        )
    if new and any(optimizer.state.values()):
        raise Incompatible(
            "the optimizer remembers earlier steps, which no noise protects; give a new one"
        )

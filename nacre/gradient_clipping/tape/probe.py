"""A place in the graph at an operation's output: where it goes, and what is read there."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from typing import Any, NoReturn

import torch
from torch import Tensor

from nacre.core.errors import UnsupportedLayer
from nacre.core.types import Tensors
from nacre.gradient_clipping.operations.call import Backward, ParameterShares, tensors_in
from nacre.gradient_clipping.tape.carried_rows.single import OwnRows, Single
from nacre.gradient_clipping.tape.contributions import Contribution
from nacre.gradient_clipping.tape.layout import Ragged


class Probe(torch.autograd.Function):
    """Nothing but a place in the graph: hands the gradient at an operation's output to the tape."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, result: Tensor, tape: Any, use: Any) -> Tensor:
        ctx.tape, ctx.use = tape, use
        ctx.mark_dirty(result)  # the same memory: what follows may write into it as before
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        if torch.is_grad_enabled():
            raise UnsupportedLayer(
                "the objective differentiates a gradient (as gradient penalties do), and a unit's "
                "share in that is not on the tape; leave it out, or use `gradients: looped`"
            )
        if ctx.tape.watch is not None:
            ctx.tape.watch(ctx.use, gradient)
        if ctx.tape.take is not None:
            ctx.tape.take(ctx.use, ctx.use.answer(gradient.reshape(ctx.use.shape)))
        return None, gradient, None, None


def fresh_base(result: Tensor, args: tuple[Any, ...], kwargs: Any) -> Tensor | None:
    """What `result` is a reshaped view of, where the operation made it for that alone.

    A linear layer of (B, T, I) computes (B T, O) and hands on a view of it. To note the gradient
    there saves a copy of the output: 2 % of an encoder's step.
    """
    base = result._base
    if base is None or base.is_leaf or base.shape.numel() != result.shape.numel():
        return None
    if not (base.is_contiguous() and result.is_contiguous()):
        return None
    held = {t.untyped_storage().data_ptr() for t in tensors_in((args, kwargs))}
    return None if base.untyped_storage().data_ptr() in held else base


def saves_itself(result: Tensor) -> bool:
    """Whether the operation's own backward reads its output (`pow`, attention with a bias): a
    probe counts as a write into it, so it needs a copy."""
    node = result.grad_fn
    if node is None:
        return False
    place = result.untyped_storage().data_ptr()
    own = (name for name in getattr(node, "__dict__", ()) if name.startswith("_saved_"))
    for name in (*_saved(type(node)), *own):
        for saved in tensors_in(getattr(node, name)):
            if saved.untyped_storage().data_ptr() == place:
                return True
    return False


@cache
def _saved(kind: type) -> tuple[str, ...]:
    """What nodes of this kind keep for their backward, sizes left out: they are no tensors."""
    names = (name for name in dir(kind) if name.startswith("_saved_"))
    return tuple(name for name in names if not name.endswith(("_sym_sizes", "_sym_strides")))


def refuse_transforms() -> None:
    if torch._C._are_functorch_transforms_active():
        raise UnsupportedLayer(
            "the model gives a trainable tensor to a transform of torch.func (vmap, grad), "
            "and the tape does not see into it; use `gradients: looped`"
        )


def of_somebody(answer: Backward, layout: Ragged, what: str) -> Backward:
    """The same answer, where rows that nobody owns have no gradient."""

    def checked(gradient: Tensor) -> ParameterShares:
        nobody = (layout.owners < 0).nonzero().squeeze(1)  # now: some may have been adopted
        if bool((gradient.index_select(layout.axis, nobody) != 0).any()):
            raise UnsupportedLayer(
                f"{what} has rows of which it is unknown whose they are, and a loss answers to "
                "them; use `gradients: looped`"
            )
        return answer(gradient)

    return checked


def of_one(answer: Backward, unit: int, units: int) -> Backward:
    """What a call that took rows of one unit gives, told as that unit's."""

    def told(gradient: Tensor) -> ParameterShares:
        return [
            (tensor, part if isinstance(part, Single) else Single(_whole(part), unit, units))
            for tensor, part in answer(gradient)
        ]

    return told


def _whole(part: Contribution | OwnRows) -> Contribution:
    return part.instances() if isinstance(part, OwnRows) else part


def unanswered(what: str) -> Backward:
    """For an output that no loss answered to when the model was tried."""

    def answer(gradient: Tensor) -> ParameterShares:
        if bool((gradient != 0).any()):
            raise UnsupportedLayer(
                f"{what} answers to a loss now and did not when the model was tried, so it is "
                "unknown who owns its rows; use `gradients: looped`"
            )
        return []

    return answer


@contextmanager
def guarded(parameters: Tensors) -> Generator[None]:
    """Raises where autograd itself reaches a trainable tensor."""

    def reached(name: str) -> Callable[[Tensor], NoReturn]:
        def hook(gradient: Tensor) -> NoReturn:
            raise UnsupportedLayer(
                f"the gradient of {name!r} took a way that the tape does not see (activation "
                "checkpointing, or a function of your own that hides it), so a unit's share in "
                "it is unknown; switch checkpointing off, or use `gradients: looped`"
            )

        return hook

    hooks = [p.register_hook(reached(name)) for name, p in parameters.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

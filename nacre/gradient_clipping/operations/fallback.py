"""Every other operation: its own vector-Jacobian product, mapped over the units."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import torch
from torch import Tensor

from nacre.core.errors import UnsupportedLayer
from nacre.gradient_clipping.operations.call import (
    Backward,
    Call,
    ParameterShares,
    replaced,
    tensors_in,
)
from nacre.gradient_clipping.tape.contributions import Instances, wide

_CHUNK = 1 << 24  # numbers of output gradients at a time


def anything(call: Call) -> Backward:
    """The gradient of each unit by the operation's own backward, `vmap`ped over units.

    Exact for any differentiable operation and any layout of its inputs; its cost grows with the
    square of the batch. Raises `UnsupportedLayer` where it has no batched backward.
    """
    args, kwargs = call.args, call.kwargs
    values = [*args, *kwargs.values()]
    data = {id(t): call.hold(t) for t in tensors_in(values) if id(t) not in call.moving}
    moving = {id(t): t for t in tensors_in(values) if id(t) in call.moving}

    def answer(grad: Tensor) -> ParameterShares:
        # Halves as float32: what made them one type in the forward pass is switched off here.
        leaves = {key: _single(t.detach()).requires_grad_() for key, t in moving.items()}
        known = leaves | {key: _single(held.get()) for key, held in data.items()}
        with torch.enable_grad():
            output = call.function(*replaced(args, known), **replaced(kwargs, known))
        gradients = _mapped(call, output, list(leaves.values()), grad.to(output.dtype))
        return [
            (tensor, Instances(gradient))
            for tensor, gradient in zip(moving.values(), gradients, strict=True)
        ]

    return answer


def _single(tensor: Tensor) -> Tensor:
    """Halves as float32; whole numbers, which are places, as they are."""
    return wide(tensor) if tensor.is_floating_point() else tensor


def _mapped(call: Call, output: Tensor, leaves: list[Tensor], grad: Tensor) -> list[Tensor]:
    first = call.units_first(grad)  # (B, positions, …)
    step = max(1, _CHUNK // max(1, grad.numel()))
    parts: list[list[Tensor]] = []
    for start in range(0, call.units, step):
        chosen = range(start, min(start + step, call.units))
        alone = first.new_zeros(len(chosen), *first.shape)
        for row, unit in enumerate(chosen):
            alone[row, unit] = first[unit]
        cotangents = torch.stack([call.layout.back(a, call.shape, call.what) for a in alone])
        try:
            parts.append(
                list(
                    torch.autograd.grad(
                        output, leaves, cotangents, retain_graph=True, is_grads_batched=True,
                        allow_unused=True, materialize_grads=True,
                    )
                )
            )  # fmt: skip
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise UnsupportedLayer(
                f"{call.what} is an operation without a batched backward ({reason}), so no unit's "
                "own gradient can be had from it; use `gradients: looped`"
            ) from error
    return [torch.cat([part[i] for part in parts]) for i in range(len(leaves))]

"""Scale and shift after a normalisation that stays inside one row."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nacre.gradient_clipping.operations.call import Backward, Call, ParameterShares
from nacre.gradient_clipping.tape.contributions import wide


def layer_norm(call: Call) -> Backward | None:
    """By `torch.nn.functional.layer_norm`."""
    x, shape, weight, bias, eps = call.bind("input", "normalized_shape", "weight", "bias", "eps")
    eps = 1e-5 if eps is None else eps
    return _affine(call, x, weight, bias, 0, lambda x: functional.layer_norm(x, shape, eps=eps))


def rms_norm(call: Call) -> Backward | None:
    """By `torch.nn.functional.rms_norm`."""
    x, shape, weight, eps = call.bind("input", "normalized_shape", "weight", "eps")
    return _affine(call, x, weight, None, 0, lambda x: functional.rms_norm(x, shape, eps=eps))


def group_norm(call: Call) -> Backward | None:
    """By `torch.nn.functional.group_norm`."""
    x, groups, weight, bias, eps = call.bind("input", "num_groups", "weight", "bias", "eps")
    eps = 1e-5 if eps is None else eps
    after = x.dim() - 2
    return _affine(
        call, x, weight, bias, after, lambda x: functional.group_norm(x, groups, eps=eps)
    )


def instance_norm(call: Call) -> Backward | None:
    """By `torch.nn.functional.instance_norm`, without running statistics."""
    x, mean, _, weight, bias, from_input, _, eps = call.bind(
        "input",
        "running_mean",
        "running_var",
        "weight",
        "bias",
        "use_input_stats",
        "momentum",
        "eps",
    )
    if mean is not None and from_input is False:
        return None
    eps = 1e-5 if eps is None else eps
    after = x.dim() - 2
    return _affine(call, x, weight, bias, after, lambda x: functional.instance_norm(x, eps=eps))


def _affine(
    call: Call,
    x: Any,
    weight: Any,
    bias: Any,
    after: int,  # axes that follow those of the weight
    normalise: Callable[[Tensor], Tensor],  # the same without scale and shift
) -> Backward | None:
    if call.moves(x):
        return None
    scale = weight if call.moves(weight) else None
    shift = bias if call.moves(bias) else None
    held = call.hold(x) if scale is not None else None
    spread = [torch.Size((*p.shape, *[1] * after)) for p in (scale, shift) if p is not None]
    if any(len(s) > len(call.shape) - 1 or (call.layout.axis >= len(call.shape) - len(s)
           and s[call.layout.axis - len(call.shape)] != 1) for s in spread):  # fmt: skip
        return None  # the units lie along what is normalised

    def answer(grad: Tensor) -> ParameterShares:
        given: ParameterShares = []
        for tensor, values in ((scale, None), (shift, grad)):
            if tensor is None:
                continue
            if values is None:
                assert held is not None
                with torch.no_grad():
                    values = normalise(wide(held.get())).mul_(grad)
            part = call.reduced(values, torch.Size((*tensor.shape, *[1] * after)))
            assert part is not None
            part.gradients = part.gradients.reshape(call.units, *tensor.shape)
            given.append((tensor, part))
        return given

    return answer

"""Functions of torch that hide others, in the open: the tape has to see the operations inside.

`multi_head_attention_forward` and `einsum` are Python, so their own code runs under the tape. What
runs in C++ (`lstm`, `gru`, attention with dropout) is written out here in operations.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false, reportAttributeAccessIssue=false, reportPrivateUsage=false

from __future__ import annotations

import math
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nacre.core.errors import UnsupportedLayer

_CHECKS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


def _opened(function: Any) -> Callable[..., Any]:
    """The same function without the check that hands it to a mode as one call."""
    inside = {**function.__globals__, **{name: _no for name in _CHECKS}}
    copy = FunctionType(
        function.__code__, inside, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _no(*arguments: Any) -> bool:
    return False


def attention(
    query: Tensor,  # (…, H, T, D)
    key: Tensor,  # (…, H or fewer, S, D)
    value: Tensor,  # (…, H or fewer, S, E)
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:  # (…, H, T, E)
    """`scaled_dot_product_attention` with its dropout as an operation of its own."""
    if dropout_p == 0.0:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if enable_gqa:
        times = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(times, -3), value.repeat_interleave(times, -3)
    scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    if attn_mask is not None:
        hides = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if hides else scores + attn_mask
    weights = functional.dropout(scores.softmax(-1), dropout_p)
    return weights @ value


def lstm(x: Tensor, hidden: Any, weights: Any, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """`torch.lstm` in operations."""
    outputs, finals = _recurrent(_lstm_step, x, hidden, weights, *rest)
    return outputs, torch.stack([h for h, _ in finals]), torch.stack([c for _, c in finals])


def gru(x: Tensor, hidden: Any, weights: Any, *rest: Any) -> tuple[Tensor, Tensor]:
    """`torch.gru` in operations."""
    outputs, finals = _recurrent(_gru_step, x, (hidden,), weights, *rest)
    return outputs, torch.stack([h for (h,) in finals])


def rnn_tanh(x: Tensor, hidden: Any, weights: Any, *rest: Any) -> tuple[Tensor, Tensor]:
    """`torch.rnn_tanh` in operations."""
    outputs, finals = _recurrent(_tanh_step, x, (hidden,), weights, *rest)
    return outputs, torch.stack([h for (h,) in finals])


def rnn_relu(x: Tensor, hidden: Any, weights: Any, *rest: Any) -> tuple[Tensor, Tensor]:
    """`torch.rnn_relu` in operations."""
    outputs, finals = _recurrent(_relu_step, x, (hidden,), weights, *rest)
    return outputs, torch.stack([h for (h,) in finals])


def lstm_cell(
    x: Tensor, state: Any, from_input: Tensor, from_hidden: Tensor,
    shift: Tensor | None = None, shift_too: Tensor | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """`torch.lstm_cell` in operations."""
    recalled = functional.linear(state[0], from_hidden, shift_too)
    return _lstm_step(functional.linear(x, from_input, shift), recalled, *state)


class Packed(UnsupportedLayer):
    """A recurrent layer reads packed sequences, whose rows cannot be opened step by step."""


def _recurrent(
    step: Callable[..., tuple[Tensor, ...]],
    x: Tensor,  # (B, T, I), or (T, B, I)
    hidden: tuple[Tensor, ...],  # of all layers and directions, (L, B, H) each
    weights: Any,
    *rest: Any,
) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    if not isinstance(rest[0], bool):
        raise Packed(
            "a recurrent layer reads packed sequences, in which the rows of one step belong to "
            "varying units; pass padded sequences instead of `pack_padded_sequence`"
        )
    biased, layers, dropout, training, both_ways, batch_first = rest
    directions = 2 if both_ways else 1
    each = len(weights) // (layers * directions)
    axis = 1 if batch_first else 0
    finals: list[tuple[Tensor, ...]] = []
    for layer in range(layers):
        found: list[Tensor] = []
        for direction in range(directions):
            index = layer * directions + direction
            own = weights[index * each : (index + 1) * each]
            start = tuple(h[index] for h in hidden)
            outputs, last = _over_time(step, x, start, own, biased, axis, direction == 1)
            found.append(outputs)
            finals.append(last)
        x = found[0] if directions == 1 else torch.cat(found, -1)
        if dropout and training and layer + 1 < layers:
            x = functional.dropout(x, dropout)
    return x, finals


def _over_time(
    step: Callable[..., tuple[Tensor, ...]],
    x: Tensor,
    state: tuple[Tensor, ...],
    weights: Any,  # input, hidden, their biases, projection
    biased: bool,
    axis: int,
    backwards: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    from_input, from_hidden = weights[:2]
    shifts = weights[2:4] if biased else (None, None)
    projection = weights[-1] if len(weights) in (3, 5) else None
    entering = functional.linear(x, from_input, shifts[0]).unbind(axis)
    outputs: list[Tensor] = []
    for inputs in reversed(entering) if backwards else entering:
        recalled = functional.linear(state[0], from_hidden, shifts[1])
        state = step(inputs, recalled, *state)
        if projection is not None:
            state = (functional.linear(state[0], projection), *state[1:])
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if backwards else outputs, axis), state


def _lstm_step(
    inputs: Tensor, recalled: Tensor, hidden: Tensor, cell: Tensor
) -> tuple[Tensor, ...]:
    enter, forget, new, leave = (inputs + recalled).chunk(4, -1)
    cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
    return leave.sigmoid() * cell.tanh(), cell


def _gru_step(inputs: Tensor, recalled: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
    reset, update, new = inputs.chunk(3, -1)
    reset_too, update_too, new_too = recalled.chunk(3, -1)
    keep = (update + update_too).sigmoid()
    fresh = (new + (reset + reset_too).sigmoid() * new_too).tanh()
    return ((1 - keep) * fresh + keep * hidden,)


def _tanh_step(inputs: Tensor, recalled: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
    return ((inputs + recalled).tanh(),)


def _relu_step(inputs: Tensor, recalled: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
    return ((inputs + recalled).relu(),)


def inside_of(function: Any, args: tuple[Any, ...], kwargs: Any) -> Callable[..., Any] | None:
    """What a call looks like inside; None for one that hides nothing."""
    if function is functional.scaled_dot_product_attention:
        p = kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0)
        return attention if p > 0 else None
    return HIDDEN.get(function)


HIDDEN: dict[Any, Callable[..., Any]] = {
    functional.multi_head_attention_forward: _opened(functional.multi_head_attention_forward),
    torch.functional.einsum: _opened(torch.functional.einsum),
    torch.lstm: lstm,
    torch.gru: gru,
    torch.rnn_tanh: rnn_tanh,
    torch.rnn_relu: rnn_relu,
    torch.lstm_cell: lstm_cell,
}
"""What a function looks like inside."""

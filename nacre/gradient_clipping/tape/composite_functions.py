"""Functions of torch that hide others, in the open: the tape has to see the operations inside.

`multi_head_attention_forward` and `einsum` are Python, so their own code runs under the tape. What
runs in C++ (`lstm`, `gru`, attention with dropout) is written out here in operations. Packed
sequences are read over padded steps: a sequence that has ended, or not begun, keeps its state.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false, reportAttributeAccessIssue=false, reportPrivateUsage=false, reportPrivateImportUsage=false

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """`scaled_dot_product_attention` with its dropout, and the sum of scores and a learnt bias, as
    operations of their own. A row that sees nothing gets zeros, as torch gives it."""
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
    weights = torch._safe_softmax(scores, -1)
    return (functional.dropout(weights, dropout_p) if dropout_p else weights) @ value


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
    """A dropout acts on packed rows, whose masks would hang on other units' lengths."""


@dataclass(frozen=True, eq=False)
class Timetable:
    """When the `B` sequences of a packed tensor of `N` rows run, over the `T` steps of the longest.

    The place of a step that a sequence does not have is taken by the sequence's own last row, so
    that nothing of another meets it.
    """

    entering: Tensor  # (T * B,) the packed row of each step of each sequence
    leaving: Tensor  # (N,) where each packed row lies among those
    order: Tensor  # (B,) which of the packed sequences each is
    back: Tensor  # (B,) where each of the packed sequences is
    running: tuple[Tensor | None, ...]  # T of (B, 1): which ones have this step; None for all

    def tensors(self) -> list[Tensor]:
        """All that it holds: made of lengths, and never of rows."""
        held = [t for t in self.running if t is not None]
        return [self.entering, self.leaving, self.order, self.back, *held]


def timetable(
    sizes: Tensor,  # (T,) how many sequences have each step, as the packed tensor tells
    order: Tensor,  # (B,) in which order the packed sequences are taken
) -> Timetable:
    """When packed sequences run. Where nothing of a unit may meet another's, `order` says whose."""
    sizes, places = sizes.to(order.device), order.argsort()
    steps = torch.arange(len(sizes), device=order.device)[:, None]
    lengths = (sizes[:, None] > order).sum(0)
    before = sizes.cumsum(0) - sizes
    entering = before[torch.minimum(steps, lengths - 1)] + order
    runs = steps < lengths
    leaving = (steps * len(order) + places)[sizes[:, None] > torch.arange(len(order)).to(order)]
    running = tuple(
        None if whole else run[:, None]
        for run, whole in zip(runs, runs.all(1).tolist(), strict=True)
    )
    return Timetable(entering.flatten(), leaving, order, places, running)


def reads_packed(function: Any, args: tuple[Any, ...]) -> bool:
    """Whether a call is that of a recurrent layer on a packed tensor."""
    return function in _STEPS and len(args) > 4 and not isinstance(args[3], bool)


def refuse_dropout_inside(args: tuple[Any, ...]) -> None:
    """Raises `Packed` where a recurrent layer drops packed rows between its layers."""
    _, layers, dropout, training = args[4:8]
    if dropout and training and layers > 1:
        raise Packed(
            "a recurrent layer that reads packed sequences has a dropout between its layers, whose "
            "masks would hang on other units' lengths; pass padded sequences instead of "
            "`pack_padded_sequence`, or take the dropout out"
        )


def over_packed(function: Any, table: Timetable, args: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """A recurrent layer on a packed tensor, in operations."""
    x, _, hidden, weights, biased, layers, dropout, training, both_ways = args
    hidden = (hidden,) if isinstance(hidden, Tensor) else hidden
    starts = tuple(h.index_select(1, table.order) for h in hidden)
    steps = x.index_select(0, table.entering).unflatten(0, (len(table.running), -1))
    rest = (biased, layers, dropout, training, both_ways, False)
    found, finals = _recurrent(_STEPS[function], steps, starts, weights, *rest, table.running)
    last = (torch.stack(each).index_select(1, table.back) for each in zip(*finals, strict=True))
    return found.flatten(0, 1).index_select(0, table.leaving), *last


def _recurrent(
    step: Callable[..., tuple[Tensor, ...]],
    x: Tensor,  # (B, T, I), or (T, B, I)
    hidden: tuple[Tensor, ...],  # of all layers and directions, (L, B, H) each
    weights: Any,
    *rest: Any,
) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    biased, layers, dropout, training, both_ways, batch_first, *more = rest
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
            outputs, last = _over_time(step, x, start, own, biased, axis, direction == 1, *more)
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
    running: Sequence[Tensor | None] = (),  # (B, 1) of each step; the others keep their state
) -> tuple[Tensor, tuple[Tensor, ...]]:
    from_input, from_hidden = weights[:2]
    shifts = weights[2:4] if biased else (None, None)
    projection = weights[-1] if len(weights) in (3, 5) else None
    entering = functional.linear(x, from_input, shifts[0]).unbind(axis)
    outputs: list[Tensor] = []
    timed = list(zip(entering, running or [None] * len(entering), strict=True))
    for inputs, runs in reversed(timed) if backwards else timed:
        before = state
        recalled = functional.linear(state[0], from_hidden, shifts[1])
        state = step(inputs, recalled, *state)
        if projection is not None:
            state = (functional.linear(state[0], projection), *state[1:])
        if runs is not None:
            state = tuple(torch.where(runs, *both) for both in zip(state, before, strict=True))
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


_STEPS: dict[Any, Callable[..., tuple[Tensor, ...]]] = {
    torch.lstm: _lstm_step,
    torch.gru: _gru_step,
    torch.rnn_tanh: _tanh_step,
    torch.rnn_relu: _relu_step,
}
"""One step of each recurrent layer."""


def inside_of(
    function: Any, args: tuple[Any, ...], kwargs: Any, learnt: Callable[[Tensor], bool]
) -> Callable[..., Any] | None:
    """What a call looks like inside; None for one that hides nothing. `learnt` says whether a
    tensor is a weight that moves, or computed from such alone."""
    if function is functional.scaled_dot_product_attention:
        p = kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0)
        bias = kwargs.get("attn_mask", args[3] if len(args) > 3 else None)
        return attention if p > 0 or (bias is not None and learnt(bias)) else None
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

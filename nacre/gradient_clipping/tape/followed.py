"""Which forward passes are followed: those whose every call, by what it is, keeps rows in place.

A trial shows how the rows of each tensor lie. That this holds of every later batch as well needs a
reason for each call: that it works entry by entry on rows that lie alike, that it arranges entries
by no value, or that what it mixes lies along another axis than the units. A call without a reason
leaves a doubt, and then each sum is verified (`verified.py`).
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from nacre.gradient_clipping.operations.call import replaced, tensors_in
from nacre.gradient_clipping.tape.layout import UNANSWERED, Layout, Owner

POINTWISE = {
    "add", "sub", "rsub", "mul", "div", "truediv", "floordiv", "floor_divide", "true_divide",
    "divide", "multiply", "subtract", "mod", "remainder", "fmod", "pow", "float_power", "neg",
    "abs", "absolute", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt",
    "sigmoid", "tanh", "relu", "gelu", "silu", "softplus", "elu", "selu", "celu", "leaky_relu",
    "relu6", "hardtanh", "hardswish", "hardsigmoid", "hardshrink", "softshrink", "tanhshrink",
    "softsign", "threshold", "prelu", "mish", "logsigmoid", "clamp", "clamp_min", "clamp_max",
    "clip", "where", "masked_fill", "maximum", "minimum", "fmax", "fmin", "square", "reciprocal",
    "sign", "sgn", "round", "floor", "ceil", "trunc", "frac", "erf", "erfc", "sin", "cos", "tan",
    "sinh", "cosh", "asinh", "atan", "atan2", "arctan", "hypot", "sinc", "logit", "nan_to_num",
    "lerp", "addcmul", "addcdiv", "copy", "clone", "contiguous", "to", "type", "type_as", "float",
    "double", "half", "bfloat16", "cfloat", "requires_grad", "conj", "resolve_conj", "real", "imag",
    "angle", "polar", "complex", "logaddexp", "xlogy", "mse_loss", "l1_loss", "smooth_l1_loss",
    "huber_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div",
    "poisson_nll_loss", "gaussian_nll_loss", "soft_margin_loss", "dropout", "alpha_dropout",
    "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout",
}  # fmt: skip
"""Entry by entry: rows have to lie alike in all that enters and in the result. (A dropout that
drops something is no call, but a product with masks of the units.)"""

ANSWERS = {
    "eq", "ne", "lt", "le", "gt", "ge", "greater", "less", "greater_equal", "less_equal", "and",
    "or", "xor", "invert", "not", "logical_and", "logical_or", "logical_not", "bitwise_and",
    "bitwise_or", "bitwise_not", "long", "int", "bool", "isnan", "isinf", "isfinite", "bucketize",
    "detach",
}  # fmt: skip
"""The same, where no gradient passes."""

STATIC = {
    "view", "reshape", "flatten", "unflatten", "view_as", "reshape_as", "permute", "transpose", "T",
    "mT", "H", "mH", "t", "squeeze", "unsqueeze", "expand", "expand_as", "movedim", "moveaxis",
    "swapaxes", "swapdims", "cat", "concat", "concatenate", "stack", "hstack", "vstack", "split",
    "chunk", "unbind", "narrow", "select", "getitem", "setitem", "repeat", "tile",
    "repeat_interleave", "pad", "view_as_real", "view_as_complex", "unfold", "diagonal", "tril",
    "triu", "index_put",
}  # fmt: skip
"""Entries go elsewhere by no value: rows have to lie along one axis before and after. (Where an
index is one of the batch, `flow` looks at the call.)"""

_ALONG: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(
        ("softmax", "safe_softmax", "log_softmax", "softmin", "cumsum", "cumprod", "cummax",
         "cummin", "logcumsumexp", "sum", "mean", "amax", "amin", "any", "all", "prod", "std",
         "var", "logsumexp", "median", "nanmean", "nansum", "argmax", "argmin", "max", "min",
         "std_mean", "var_mean", "flip", "gather", "index_select", "scatter", "scatter_add",
         "index_add", "index_copy", "index_fill", "count_nonzero"), (1, None),
    ),
    **dict.fromkeys(("sort", "argsort", "glu"), (1, -1)),
    **dict.fromkeys(("topk", "kthvalue", "diff", "fft_fft", "fft_ifft", "fft_rfft", "fft_irfft",
                     "fft_hfft", "fft_ihfft"), (2, -1)),
    **dict.fromkeys(("roll", "norm", "vector_norm", "linalg_vector_norm", "take_along_dim",
                     "gumbel_softmax"), (2, None)),
    **dict.fromkeys(("normalize", "cosine_similarity"), (2, 1)),
}  # fmt: skip
"""What mixes entries along named axes: the place of `dim` among its arguments, and its default."""

_ROWWISE = {
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "lp_pool1d", "lp_pool2d", "group_norm",
    "batch_norm", "instance_norm", "local_response_norm", "interpolate", "upsample",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "fold", "im2col", "col2im",
}  # fmt: skip
"""Each entry of the first axis by itself."""

_NOBODY = -1

_LOSSES = {"cross_entropy", "nll_loss", "multi_margin_loss", "ctc_loss"}

RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}


@dataclass(frozen=True)
class CallOnTrial:
    """A call on trial, as far as this file reads it."""

    function: Any
    name: str  # bare: `add` of `__iadd__`
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    entered: tuple[Tensor, ...]  # what came from the batch and a gradient can reach
    foreign: bool  # whether numbers of the batch entered that no gradient can reach
    strange: bool  # whether some of them lie otherwise than the batch does
    outputs: tuple[Tensor, ...]


def first_doubt(
    calls: Sequence[CallOnTrial], owner: Callable[[Tensor], Owner], units: int
) -> str | None:
    """The name of the first call that has no reason; None where all have one. From the batch on,
    each reason rests on how the rows of what entered lie."""
    for call in calls:
        found = {id(t): owner(t) for t in call.outputs}
        if all(one == UNANSWERED for one in found.values()):
            continue  # what takes it and is answered for is looked at there
        outs = [(t, one) for t in call.outputs if isinstance(one := found[id(t)], Layout)]
        held = [(t, one) for t in call.entered if isinstance(one := owner(t), Layout)]
        strangers = any(not isinstance(o, Layout) and o != UNANSWERED for o in found.values())
        if strangers or len(held) < len(call.entered) or not _reason(call, outs, held, units):
            return call.name
    return None


_Pairs = Sequence[tuple[Tensor, Layout]]


def _reason(call: CallOnTrial, outs: _Pairs, held: _Pairs, units: int) -> bool:
    name, (result, out) = call.name, outs[0]
    if not held:  # weights looked up or multiplied by numbers of the batch
        return not call.strange and name in {"embedding", "getitem", "linear", *POINTWISE}
    only = held[0][1] if len(held) == 1 else None
    if name in POINTWISE or (name in ("max", "min") and _of_two(call.args)):
        return all(_alike(t, layout, result, out) for t, layout in held)
    if name in STATIC:
        return _arranged(call, held, outs, units)
    if name in _ALONG:
        return all(_past(call, t, layout, result, out) for t, layout in held)
    if name in _ROWWISE or name in _LOSSES:
        foreign = call.foreign and name not in _LOSSES
        return not foreign and only == out and out.axis == 0
    if name in RECURRENT:
        return not call.foreign and held[0][1] == out and out.axis < result.dim() - 1
    if name == "einsum":
        return _einsum(call, held, out)
    rule = _OWN.get(name)
    if rule is None or not rule(call, held):
        return False
    return all(
        layout.axis - t.dim() == out.axis - result.dim()
        and (layout.outer, layout.inner) == (out.outer, out.inner)
        for t, layout in held
    )


def _of_two(args: tuple[Any, ...]) -> bool:
    return len(args) > 1 and isinstance(args[1], Tensor)


def _alike(tensor: Tensor, layout: Layout, result: Tensor, out: Layout) -> bool:
    return (
        layout.axis - tensor.dim() == out.axis - result.dim()
        and tensor.shape[layout.axis] == result.shape[out.axis]
        and (layout.outer, layout.inner) == (out.outer, out.inner)
    )


def _arranged(call: CallOnTrial, held: _Pairs, outs: _Pairs, units: int) -> bool:
    """Whether the call, given the owner of each entry in its place, gives those of the result."""
    own = {id(t): _owners(t, layout, units) for t, layout in held}
    nobody = {
        id(t): torch.full(t.shape, _NOBODY, device=t.device)
        for t in tensors_in((call.args, call.kwargs))
        if t.requires_grad and id(t) not in own
    }
    args, kwargs = replaced(call.args, own | nobody), replaced(call.kwargs, own | nobody)
    try:
        found = call.function(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return False
    results = tensors_in(args[0] if found is None else found)
    if len(results) != len(call.outputs):
        return False
    moved = {id(t): r for t, r in zip(call.outputs, results, strict=True)}
    for t, layout in outs:
        r = moved[id(t)]
        if r.shape != t.shape or bool(((r != _owners(t, layout, units)) & (r != _NOBODY)).any()):
            return False
    return True


def _owners(tensor: Tensor, layout: Layout, units: int) -> Tensor:
    """The unit of each entry."""
    size = tensor.shape[layout.axis]
    _, inner = layout.split(size, units, "a tensor on trial")
    shape = [1] * tensor.dim()
    shape[layout.axis] = size
    line = torch.arange(size, device=tensor.device) // inner % units
    return line.reshape(shape).expand(tensor.shape).clone()


def _past(call: CallOnTrial, tensor: Tensor, layout: Layout, result: Tensor, out: Layout) -> bool:
    """Whether a call mixes entries along other axes than the units', which stays what it is."""
    axes = _axes(call, tensor)
    if layout.axis in axes:
        return False
    gone = tensor.dim() - result.dim()
    before = sum(axis < layout.axis for axis in axes) if gone else 0
    return out == replace(layout, axis=layout.axis - before) and gone in (0, len(axes))


def _axes(call: CallOnTrial, tensor: Tensor) -> set[int]:
    """The axes along which a call mixes entries; all of them where it does not say."""
    place, default = _ALONG[call.name]
    found = call.kwargs.get("dim", call.kwargs.get("dims", call.kwargs.get("axis")))
    if found is None:
        found = call.args[place] if len(call.args) > place else default
    if isinstance(found, int):
        found = (found, *call.args[place + 1 :]) if call.name == "flip" else (found,)
    if not isinstance(found, list | tuple):
        return set(range(tensor.dim()))
    return {axis % max(1, tensor.dim()) for axis in found if isinstance(axis, int)}


def _by_weights(call: CallOnTrial, held: _Pairs) -> bool:
    """linear: the last axis of one tensor with a weight."""
    (tensor, layout), *others = held
    return not others and not call.foreign and layout.axis != tensor.dim() - 1


def _added_product(call: CallOnTrial, held: _Pairs) -> bool:
    """addmm: a bias and the product of one tensor of the batch with a weight."""
    (tensor, layout), *others = held
    first = len(call.args) > 1 and call.args[1] is tensor
    return first and not others and not call.foreign and layout.axis != tensor.dim() - 1


def _multiplied(call: CallOnTrial, held: _Pairs) -> bool:
    """Matrix products: the units lie along no axis that is summed over, and of two tensors of the
    batch along one that both have in common."""
    places = {id(t): place for place, t in enumerate(call.args[:2])}
    for tensor, layout in held:
        summed = tensor.dim() - 1 if places.get(id(tensor)) == 0 else max(0, tensor.dim() - 2)
        if id(tensor) not in places or layout.axis == summed:
            return False
    axes = {layout.axis - tensor.dim() for tensor, layout in held}
    return len(held) < 2 or (len(axes) == 1 and max(axes) < -2)


def _attended(call: CallOnTrial, held: _Pairs) -> bool:
    """Attention: queries, keys and values of one unit meet."""
    axes = {layout.axis - tensor.dim() for tensor, layout in held}
    return len(axes) == 1 and max(axes) < -2


def _normalised(call: CallOnTrial, held: _Pairs) -> bool:
    """layer_norm, rms_norm: over the last axes."""
    shape = call.kwargs.get("normalized_shape", call.args[1] if len(call.args) > 1 else None)
    (tensor, layout), *others = held
    if others or call.foreign or not isinstance(shape, list | tuple):
        return False
    return layout.axis < tensor.dim() - len(shape)


def _einsum(call: CallOnTrial, held: _Pairs, out: Layout) -> bool:
    """The letter of the units is in the result, and the same for all tensors of the batch."""
    equation, *operands = call.args
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = list(operands[0])
    if not isinstance(equation, str) or "->" not in equation or "." in equation:
        return False
    given, result = equation.replace(" ", "").split("->")
    terms = {id(t): term for t, term in zip(operands, given.split(","), strict=True)}
    letters = {terms[id(t)][layout.axis] for t, layout in held if id(t) in terms}
    return len(letters) == 1 and result.find(letters.pop()) == out.axis


_OWN: dict[str, Callable[[CallOnTrial, _Pairs], bool]] = {
    "linear": _by_weights, "addmm": _added_product,
    "matmul": _multiplied, "mm": _multiplied, "bmm": _multiplied,
    "scaled_dot_product_attention": _attended,
    "layer_norm": _normalised, "rms_norm": _normalised,
}  # fmt: skip


_OPERATORS = {
    "add", "sub", "mul", "div", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor",
}  # fmt: skip


@lru_cache(maxsize=4096)
def bare_name(name: str) -> str:
    """`add` of `__add__`, `__radd__`, `__iadd__` and `add_`."""
    bare = name.strip("_")
    return (
        bare[1:] if name.startswith("__") and bare[:1] in "ri" and bare[1:] in _OPERATORS else bare
    )


def plain_rows(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Tensor, units: int
) -> bool:
    """Whether numbers computed from some that lie as the batch does lie so too: the units along
    the first axis, in their order."""
    first = args[0] if args else None
    if not isinstance(first, Tensor):
        first = first[0] if isinstance(first, list | tuple) and first else None
    if not isinstance(first, Tensor) or not result.dim() or not first.dim():
        return False
    if result.shape[0] % units or not result.shape[0]:
        return False
    if name in POINTWISE or name in ANSWERS:
        tensors = [t for t in args if isinstance(t, Tensor) and t.dim()]
        return all(t.dim() == result.dim() for t in tensors if t.shape[0] == result.shape[0])
    if name in ("view", "reshape", "flatten", "one_hot", "unflatten"):
        return first.shape[0] % units == 0
    if result.shape[0] != first.shape[0]:
        return False
    if name == "getitem":
        lead = args[1][0] if isinstance(args[1], tuple) and args[1] else args[1]
        return lead is Ellipsis or lead == slice(None)
    if name in ("unsqueeze", "squeeze", "expand", "cat", "stack", "unbind", "narrow", "select"):
        return _past_the_first(name, args, kwargs, first.dim())
    if name in _ALONG:
        call = CallOnTrial(None, name, args, kwargs, (), False, False, ())
        return 0 not in _axes(call, first)
    return False


def _past_the_first(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], dims: int) -> bool:
    if name == "expand":
        sizes = args[1] if isinstance(args[1], list | tuple) else args[1:]
        return len(sizes) == dims
    axis = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    whole = dims + 1 if name in ("unsqueeze", "stack") else dims
    return isinstance(axis, int) and axis % whole != 0

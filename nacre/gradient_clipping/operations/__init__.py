"""What each operation does to a trainable tensor: one rule a function of torch.

A rule looks at a call and returns how to read, from the gradient at the call's output, what each
unit adds to the gradient of the tensors that move; or None where it does not apply, and then
`anything` does. Adding an operation is one function and one line below.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from nacre.gradient_clipping.operations.call import Backward, Call, Function, tensors_in
from nacre.gradient_clipping.operations.convolution import convolution, transposed
from nacre.gradient_clipping.operations.elementwise import (
    add,
    entrywise,
    expand,
    multiply,
    subtraction,
)
from nacre.gradient_clipping.operations.embedding import embedding, embedding_bag
from nacre.gradient_clipping.operations.fallback import anything
from nacre.gradient_clipping.operations.linear import addmm, linear, matmul, mv
from nacre.gradient_clipping.operations.normalisation import (
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
)

OperationRule = Callable[[Call], Backward | None]

T = torch.Tensor

OPERATIONS: dict[OperationRule, tuple[Function, ...]] = {
    linear: (functional.linear,),
    addmm: (torch.addmm, T.addmm),
    matmul: (torch.matmul, T.matmul, T.__matmul__, torch.mm, T.mm, torch.bmm, T.bmm),
    mv: (torch.mv, T.mv),
    convolution: (torch.conv1d, torch.conv2d, torch.conv3d),
    transposed: (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
    embedding: (functional.embedding,),
    embedding_bag: (functional.embedding_bag,),
    layer_norm: (functional.layer_norm,),
    rms_norm: (functional.rms_norm,),
    group_norm: (functional.group_norm,),
    instance_norm: (functional.instance_norm,),
    add: (torch.add, T.add, T.__add__, T.__radd__, T.__iadd__, T.add_),
    subtraction: (torch.sub, T.sub, T.__sub__, T.__isub__, T.sub_),
    multiply: (torch.mul, T.mul, T.__mul__, T.__rmul__),
    entrywise: (
        torch.div, T.div, T.__truediv__, T.__rtruediv__, T.__itruediv__, T.div_,
        torch.where, T.where, torch.masked_fill, T.masked_fill, torch.pow, T.pow, T.__pow__,
        torch.maximum, T.maximum, torch.minimum, T.minimum, torch.lerp, T.lerp,
        torch.addcmul, T.addcmul,
    ),
    expand: (T.expand, T.expand_as, torch.broadcast_to),
}  # fmt: skip
"""Every operation with a rule of its own; the laws run over models that use them."""

RULES = {function: rule for rule, functions in OPERATIONS.items() for function in functions}


def rule_for(call: Call) -> Backward:
    """How to read each unit's share in this call."""
    rule = RULES.get(call.function)
    if any(t.is_complex() for t in tensors_in((call.args, call.kwargs))):
        rule = None  # the rules take no conjugates
    answer = rule(call) if rule is not None else None
    return anything(call) if answer is None else answer

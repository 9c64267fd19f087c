"""Where a classifier's answers start: at the shares of its classes, as far as they are declared."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from nacre.core.errors import Refusal


def start_at(
    model: nn.Module,  # changed in place
    shares: Sequence[float],  # (classes,) declared, positive, of sum 1
) -> None:
    """Sets the bias of the last linear layer to the logarithm of the shares.

    The first steps then need not learn how rare a class is, which under clipping takes many: each
    of them can move a bias by a bounded sum alone. Raises `Refusal` for a model whose last layer
    is not linear with a bias for each class.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    head = linear[-1] if linear else None
    if head is None or head.bias is None or len(head.bias) != len(shares):  # pyright: ignore[reportUnnecessaryComparison]
        raise Refusal(
            "`training.class_prior` sets the bias of the last linear layer, and this model ends in "
            f"none with {len(shares)} outputs and a bias; give it one, or leave `class_prior` out"
        )
    with torch.no_grad():
        head.bias.copy_(torch.tensor([math.log(share) for share in shares]))

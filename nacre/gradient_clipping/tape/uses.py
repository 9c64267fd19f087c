"""What the tape keeps of weights, and of each call that took one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nacre.gradient_clipping.operations.call import Backward
from nacre.gradient_clipping.tape.layout import Layout, Ragged


@dataclass(frozen=True)
class Known:
    """A tensor that moves: a parameter, or something computed from parameters alone."""

    tensor: Tensor
    names: tuple[str, ...]
    derivation: Derivation | None = None  # None for a parameter itself


@dataclass(frozen=True)
class Derivation:
    """How a derived parameter came about."""

    function: Any
    args: tuple[Any, ...]
    kwargs: Any


@dataclass(eq=False)
class Use:
    """One call that took trainable tensors: how to read its output's gradient."""

    answer: Backward
    bytes: int  # of the output's gradient
    anchor: Tensor  # a leaf of its own, so that a backward pass can aim at this use
    tensors: frozenset[int]  # ids of the trainable tensors that it took
    shape: torch.Size  # of the output
    layout: Layout | Ragged | None  # how its rows lie; None where no loss answered on trial
    what: str  # for messages

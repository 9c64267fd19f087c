"""What the tape keeps of weights, and of each call that took one."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nacre.gradient_clipping.operations.call import Backward, tensors_in
from nacre.gradient_clipping.tape.counters import names_of
from nacre.gradient_clipping.tape.flow import DATA, Flow
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


def rewrite(held: dict[int, Known], target: Tensor, names: tuple[str, ...]) -> None:
    """After a write into a derived weight: what it was derived by no longer says how."""
    place = target.untyped_storage().data_ptr()
    for key, known in held.items():
        if known.tensor.untyped_storage().data_ptr() == place and known.derivation is not None:
            both = names_of((known.names, names))
            held[key] = Known(known.tensor, both, Derivation(None, (), {}))


def cuts(flow: Flow, held: Mapping[int, Known], args: Any, kwargs: Any) -> bool:
    """Whether a call takes what has a way back to the batch, which treating its result as a weight
    would cut."""
    return any(
        t.requires_grad and id(t) not in held and flow.level(t) == DATA
        for t in tensors_in((args, kwargs))
    )


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

"""Compression of a party's change before it travels: fewer bytes, and what that costs.

A compressor maps a change to another one of the same shapes that needs fewer bytes; `encodings.py`
writes it in those bytes, without loss. What a compressor leaves out is remembered by the party and
added to its next change (error feedback: Seide et al. 2014; Karimireddy et al. 2019,
https://arxiv.org/abs/1901.09847, algorithm 2).

*Guarantee:* a compressor sees the change that may leave anyway. Where privacy is promised at the
party, change and remainder are computed from noised steps, so what is sent is post-processing, the
places of `top_k` included. Where whole parties are protected, the server applies the clip rule to
what arrives: no compressor, whatever it does to the length, moves the sum by more than the bound.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, get_args

import torch
from torch import Tensor

from nacre.core import require
from nacre.core.errors import BadArgument
from nacre.core.random import Source
from nacre.core.types import Tensors
from nacre.federated_learning.encodings import LARGEST, Encoding, exponent_of


class Compressor(Protocol):
    """What every compression of a change can do."""

    encoding: ClassVar[Encoding]
    """The bytes that hold what it gives without loss."""

    def compressed(self, change: Tensors, source: Source) -> Tensors:
        """Another change, of the same names and shapes."""
        ...

    def sentence(self) -> str:
        """What it does to the changes."""
        ...


@dataclass(frozen=True, kw_only=True)
class EightBits:
    """Each entry is rounded at random to one of 255 multiples of a power of two, so that its mean
    is right: a quarter of the bytes.

    The power of two is a tensor's own: the smallest whose 127-fold is at least the largest entry.
    An entry between two multiples goes up with the probability of its place between them, so the
    error of each is below one multiple and 0 on average. Source: Alistarh et al. 2017 (QSGD),
    https://arxiv.org/abs/1610.02132, section 3.1, with equal levels of the largest entry.
    """

    kind: Literal["eight_bits"] = "eight_bits"
    error_feedback: bool = False
    """Remember what rounding changed and add it to the next change."""

    encoding: ClassVar[Encoding] = "int8"

    def compressed(self, change: Tensors, source: Source) -> Tensors:
        """The rounded change; the same change and source give the same one."""
        stream = source.stream()
        return {
            name: _rounded(value, stream.uniform(value.numel())) for name, value in change.items()
        }

    def sentence(self) -> str:
        """What it does to the changes."""
        return "rounded at random to 8 bits an entry" + _remembered(self.error_feedback)


@dataclass(frozen=True, kw_only=True)
class TopK:
    """Only the entries of largest size are sent, with their places; the others are remembered and
    added to the next change.

    Without error feedback the small entries of every round are lost, and training stops short. The
    places are part of what is released. Source: Stich et al. 2018, https://arxiv.org/abs/1809.07599,
    algorithm 1.
    """

    kind: Literal["top_k"] = "top_k"
    share: float = 0.1
    """Share of all entries that is sent, in (0, 1]: at least one entry is; each costs 8 bytes."""
    error_feedback: bool = True
    """Remember what was not sent and add it to the next change."""

    encoding: ClassVar[Encoding] = "sparse"

    def __post_init__(self) -> None:
        require.positive(share=self.share)
        if self.share > 1:
            raise BadArgument(f"share={self.share} must be at most 1")

    def compressed(self, change: Tensors, source: Source) -> Tensors:
        """Zeros but for the entries of largest size over all tensors; of equal ones the first."""
        flat = torch.cat([value.reshape(-1) for value in change.values()])
        count = max(1, math.floor(self.share * len(flat)))
        kept = torch.argsort(flat.abs(), descending=True, stable=True)[:count]
        sparse = torch.zeros_like(flat)
        sparse[kept] = flat[kept]
        parts = sparse.split([value.numel() for value in change.values()])
        return {
            n: part.reshape(v.shape) for (n, v), part in zip(change.items(), parts, strict=True)
        }

    def sentence(self) -> str:
        """What it does to the changes."""
        return f"as its largest {100 * self.share:g} % of entries" + _remembered(
            self.error_feedback
        )


CompressionOption = EightBits | TopK

COMPRESSIONS: tuple[type[CompressionOption], ...] = get_args(CompressionOption)
"""Every compression that a recipe can name; the laws run over them."""


def _rounded(value: Tensor, coins: Tensor) -> Tensor:
    """Each entry as a multiple of the tensor's power of two, up or down by a coin in (0, 1)."""
    unit = math.ldexp(1.0, exponent_of(value))
    steps = value.double() / unit  # exact: a power of two divides
    down = steps.floor()
    up = coins.reshape(value.shape).double() < steps - down
    most = min(LARGEST, math.floor(torch.finfo(torch.float32).max / unit))
    return ((down + up).clamp(-most, most) * unit).float()


def _remembered(error_feedback: bool) -> str:
    return " (what is left out is added to the next change)" if error_feedback else ""

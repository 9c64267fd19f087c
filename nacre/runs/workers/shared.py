"""Tensors in memory that several processes see. It has no name, so no other program finds it, and
it is gone with the last process that holds it, however that ends."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import contextlib
import math
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nacre.core.types import Tensors

_ALIGNED = 64  # bytes

TensorLayout = Mapping[str, Mapping[str, Any]]
"""Name -> {dtype, shape, start}; JSON."""


@dataclass(frozen=True)
class Shared:
    """A piece of memory and the tensors in it."""

    handle: int  # of the file that the memory is
    layout: TensorLayout
    tensors: Tensors  # views into it

    @classmethod
    def of(cls, tensors: Tensors) -> Shared:
        """A copy of these tensors, as they lie in the memory of the processor."""
        layout: dict[str, dict[str, Any]] = {}
        size = 0
        for name, value in tensors.items():
            layout[name] = {
                "dtype": str(value.dtype).removeprefix("torch."),
                "shape": list(value.shape),
                "start": size,
            }
            size += -(-value.numel() * value.element_size() // _ALIGNED) * _ALIGNED
        handle = os.memfd_create("nacre", os.MFD_CLOEXEC)
        os.ftruncate(handle, max(size, 1))
        views = _views(handle, layout)
        for name, value in tensors.items():
            views[name].copy_(value.detach())
        return cls(handle, layout, views)

    @classmethod
    def at(cls, handle: int, layout: TensorLayout) -> Shared:
        """What another process made."""
        return cls(handle, layout, _views(handle, layout))

    def part(self, prefix: str) -> Tensors:
        """The tensors whose names begin so, without it."""
        return {n.removeprefix(prefix): t for n, t in self.tensors.items() if n.startswith(prefix)}

    def close(self) -> None:
        """Lets go of the file; the memory stays for as long as a tensor lies in it."""
        with contextlib.suppress(OSError):  # it was let go of before
            os.close(self.handle)


def _views(handle: int, layout: TensorLayout) -> Tensors:
    memory = mmap.mmap(handle, os.fstat(handle).st_size)
    found: Tensors = {}
    for name, facts in layout.items():
        dtype: torch.dtype = getattr(torch, facts["dtype"])
        count = math.prod(facts["shape"])
        found[name] = (
            torch.frombuffer(memory, dtype=dtype, count=count, offset=facts["start"])
            if count
            else torch.empty(0, dtype=dtype)
        ).reshape(facts["shape"])
    return found


def moved_into(value: Tensor, view: Tensor) -> None:
    """Lets a tensor lie where `view` does, which holds the same, so that it is in memory once."""
    value.set_(view)  # pyright: ignore[reportArgumentType]

"""Which entries of a tensor belong to which unit.

The first axis is not always the unit: GPT-2's products see (B * T, width), `nn.MultiheadAttention`
works on (T, B, width) whatever the order of its inputs, and TRADES may stack two copies of a batch.
A layout says which axis carries the units, and how units and positions take turns along it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nacre.core.errors import UnsupportedLayer

Where = NDArray[np.bool_]
"""Whether each place along an axis answers: on the processor, where a place costs least to ask."""


@dataclass(frozen=True)
class Layout:
    """Along `axis`, of size outer * B * inner, entry ((o * B) + b) * inner + i is of unit b.

    At most one of `outer` and `inner` follows the length of the input: `inner` where `outer` is
    fixed, `outer` where `inner` is 1 and `outer` was more than 1.
    """

    axis: int
    outer: int = 1
    inner: int = 1

    def split(self, size: int, units: int, what: str) -> tuple[int, int]:
        """(outer, inner) of an axis of this size. Raises `UnsupportedLayer` if units do not fit."""
        if size % units == 0 and units > 0:
            if self.outer == 1:
                return 1, size // units
            if self.inner == 1:
                return size // units, 1
            if size % (units * self.outer) == 0:
                return self.outer, size // (units * self.outer)
        raise UnsupportedLayer(
            f"{what} has {size} entries along axis {self.axis} for {units} units, which is not how "
            "it was laid out when it was tried; use `gradients: looped`"
        )

    def units_first(self, tensor: Tensor, units: int, what: str) -> Tensor:
        """(…, outer * B * inner, …) -> (B, outer * inner, …): a view where that is possible."""
        shape = tensor.shape
        if not shape and units == 1:
            return tensor.reshape(1, 1)  # a single number is its only unit's
        outer, inner = self.split(shape[self.axis], units, what)
        if self.axis == 0 and outer == 1:
            return tensor.reshape(units, inner, *shape[1:])
        parts = tensor.reshape(*shape[: self.axis], outer, units, inner, *shape[self.axis + 1 :])
        parts = parts.movedim((self.axis + 1, self.axis, self.axis + 2), (0, 1, 2))
        return parts.reshape(units, outer * inner, *shape[: self.axis], *shape[self.axis + 1 :])

    def back(self, tensor: Tensor, shape: torch.Size, what: str) -> Tensor:
        """The inverse of `units_first`: (B, outer * inner, …) -> the tensor's own `shape`."""
        units = tensor.shape[0]
        if not shape:
            return tensor.reshape(shape)
        outer, inner = self.split(shape[self.axis], units, what)
        if self.axis == 0 and outer == 1:
            return tensor.reshape(shape)
        rest = (*shape[: self.axis], *shape[self.axis + 1 :])
        parts = tensor.reshape(units, outer, inner, *rest)
        parts = parts.movedim((0, 1, 2), (self.axis + 1, self.axis, self.axis + 2))
        return parts.reshape(shape)


@dataclass(frozen=True, eq=False)
class Ragged:
    """Entry i along `axis` is of unit `owners[i]`; of nobody where that is negative.

    Units may have different numbers of rows: the shorter ones are filled up with zeros.
    """

    axis: int
    owners: Tensor  # (N,) int64
    outer: int = 0  # as of no `Layout`: rows of a unit do not lie side by side
    only: int | None = None  # the unit that owns every entry, where it is one

    def _places(self, units: int) -> tuple[Tensor, Tensor]:
        """(N held,) the rows that somebody owns, and the place of each in (B * longest,)."""
        held = (self.owners >= 0).nonzero().squeeze(1)
        owners = self.owners[held]
        order = owners.argsort(stable=True)
        held, owners = held[order], owners[order]
        counts = torch.bincount(owners, minlength=units)
        before = counts.cumsum(0) - counts
        number = torch.arange(len(held), device=held.device) - before[owners]
        return held, owners * max(1, int(counts.max())) + number

    def units_first(self, tensor: Tensor, units: int, what: str) -> Tensor:
        """(…, N, …) -> (B, longest, …), zeros behind the rows of a unit that has fewer."""
        held, places = self._places(units)
        counts = torch.bincount(self.owners[held], minlength=units)
        longest = max(1, int(counts.max()))
        rows = tensor.movedim(self.axis, 0)
        filled = rows.new_zeros(units * longest, *rows.shape[1:])
        filled = filled.index_copy(0, places, rows[held])
        return filled.reshape(units, longest, *rows.shape[1:])

    def back(self, tensor: Tensor, shape: torch.Size, what: str) -> Tensor:
        """The inverse of `units_first`, zeros where nobody owns a row."""
        held, places = self._places(tensor.shape[0])
        rest = (*shape[: self.axis], *shape[self.axis + 1 :])
        rows = tensor.new_zeros(shape[self.axis], *rest)
        rows = rows.index_copy(0, held, tensor.flatten(0, 1)[places])
        return rows.movedim(0, self.axis)


def over_broadcast(
    first: Tensor,  # (B, positions, other axes …), as `units_first` gives it
    axis: int,  # the axis that carried the units, along which `shape` is broadcast
    shape: Sequence[int],
) -> Tensor:  # (B, *shape)
    """The sum over everything that `shape` is broadcast along, for each unit."""
    full = (1,) * (first.dim() - 1 - len(shape)) + tuple(shape)
    others = full[:axis] + full[axis + 1 :]
    sizes = first.shape[1:]
    gone = [d + 1 for d, size in enumerate((1, *others)) if size == 1 and sizes[d] != 1]
    return (first.sum(dim=gone) if gone else first).reshape(len(first), *shape)


@dataclass(frozen=True, eq=False)
class Answering:
    """Where the gradient of one unit's loss is not zero, as far as a layout asks for it: along each
    axis by itself, which takes next to no memory."""

    anywhere: bool
    along: dict[int, Where]  # axis -> (size,) where the size can be shared between units

    @classmethod
    def of(cls, gradient: Tensor, units: int) -> Answering:
        """Of a gradient; a row that is not finite turns others' zeros into NaN: no answer."""
        entries = (gradient != 0) & gradient.isfinite()
        shape = entries.shape
        along: dict[int, Where] = {}
        for axis, size in enumerate(shape):
            if size and size % units == 0:
                others = [d for d in range(len(shape)) if d != axis]
                found = entries.any(dim=others) if others else entries
                along[axis] = found.cpu().numpy()
        anywhere = next((where.any() for where in along.values()), None)
        return cls(bool(entries.any() if anywhere is None else anywhere), along)


def layout_of(
    shape: torch.Size,
    answers: list[Answering | None],  # of each unit; None where its loss does not depend on it
) -> Layout | None:
    """The layout by which every answering entry belongs to its own unit; None where none fits.

    The simplest one wins: units outermost, then innermost, then copies of the batch side by side;
    leading axes first.
    """
    units = len(answers)
    fitting: list[tuple[int, int, Layout]] = []
    for axis, size in enumerate(shape):
        if size % units or not size:
            continue
        places = [(u, a.along[axis].nonzero()[0]) for u, a in enumerate(answers) if a is not None]
        for outer in _divisors(size // units):
            inner = size // units // outer
            if all((at // inner % units == u).all() for u, at in places):
                kind = 0 if outer == 1 else 1 if inner == 1 else 2
                fitting.append((kind, axis, Layout(axis, outer, inner)))
                break
    return min(fitting, key=lambda f: f[:2])[2] if fitting else None


def _divisors(number: int) -> list[int]:
    """Simplest first: 1, the number itself, then the others."""
    between = [n for n in range(2, number) if number % n == 0]
    return [1, *([number] if number > 1 else []), *between]


SHARED = "shared"
"""The output answers to several units: a parameter derived from parameters, nobody's row."""
MOVED = "moved"
"""The output answers to several units, in an order that values of the batch have made."""
UNANSWERED = "unanswered"
"""No loss answered to the output when the model was tried."""

Owner = Layout | Ragged | str
"""Whose the entries of an operation's output are."""


@dataclass
class LossAnswers:
    """Of each output and each unit, where the unit's loss depends on it."""

    by_output: dict[int, list[Answering | None]]
    known: dict[int, Owner] = field(default_factory=dict)

    def owner(self, outputs: list[Tensor]) -> Owner:
        """Whose the outputs of one call are."""
        owners = {self._of(t) for t in outputs if id(t) in self.by_output}
        owners.discard(UNANSWERED)
        if not owners:
            return UNANSWERED
        return owners.pop() if len(owners) == 1 else SHARED

    def layout(self, tensor: Tensor) -> Layout | None:
        """How the rows of a tensor lie, where one layout fits."""
        owner = self._of(tensor) if id(tensor) in self.by_output else None
        return owner if isinstance(owner, Layout) else None

    def _of(self, output: Tensor) -> Owner:
        found = self.known.get(id(output))
        if found is None:
            found = self.known[id(output)] = self._found(output)
        return found

    def _found(self, output: Tensor) -> Owner:
        answers = self.by_output[id(output)]
        if not any(answer is not None and answer.anywhere for answer in answers):
            return UNANSWERED
        return layout_of(output.shape, answers) or SHARED


def loss_answers(losses: Sequence[Tensor], outputs: list[Tensor]) -> LossAnswers:
    """Each gradient is looked at while it passes, so that no more of them lie in memory than in an
    ordinary backward pass."""
    by_output: dict[int, list[Answering | None]] = {id(t): [] for t in outputs}
    heard: dict[int, Answering] = {}

    def hearing(key: int) -> Callable[[Tensor], None]:
        def hear(gradient: Tensor | None) -> None:
            if gradient is not None:  # of another output of the same node alone
                heard[key] = Answering.of(gradient, len(losses))

        return hear

    ends = _nearest_to_leaves(outputs)
    hooks = [t.register_hook(hearing(id(t))) for t in outputs]
    try:
        for loss in losses:
            heard.clear()
            torch.autograd.grad(loss, ends, retain_graph=True, allow_unused=True)
            for key, answers in by_output.items():
                answers.append(heard.get(key))
    finally:
        for hook in hooks:
            hook.remove()
    return LossAnswers(by_output)


def _nearest_to_leaves(outputs: list[Tensor]) -> list[Tensor]:
    """Those from which no way leads on to another one: a backward pass to these meets all."""
    nodes = {t.grad_fn for t in outputs if t.grad_fn is not None}
    leads: dict[Any, bool] = {}  # node -> whether it is one of them, or leads on to one
    for start in nodes:
        left: list[Any] = [start]
        while left:
            node = left[-1]
            children = [child for child, _ in node.next_functions if child is not None]
            new = [child for child in children if child not in leads]
            if new and node not in leads:
                left += new
                continue
            leads.setdefault(node, node in nodes or any(leads[child] for child in children))
            left.pop()

    def ends(tensor: Tensor) -> bool:
        before = () if tensor.grad_fn is None else tensor.grad_fn.next_functions
        return not any(leads[child] for child, _ in before if child is not None)

    return [t for t in outputs if ends(t)]

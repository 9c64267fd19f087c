"""How the processes of a run share the work of a step, so that the result is that of one process.

Every process draws the same units. They are dealt into `portions` by a number of their own, so
that one unit more moves nobody else, and each process sums the portions that fall to it. The sums
of portions are added along one fixed tree, whoever computed them:

    portions 4, processes 2          ((0 + 1) + (2 + 3))
    portions 4, processes 1          ((0 + 1) + (2 + 3))

*Guarantee:* the sum, and so the noise, the release and the weights, are the same bits for any
number of processes. A step that is taken again by another number of them is no second release.

*Why it is private:* dealing and adding move no unit's share, so the sum is that of the same clipped
units, and its bound and price are those of one process.

`nacre.training.devices.sharded` keeps the weights and the optimizer's state in parts.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]

from nacre.core.errors import Incompatible
from nacre.core.tensors import trainable
from nacre.core.types import BoundedSum, Tensors
from nacre.training.devices.group import Group

Portion = Callable[[int], BoundedSum]
"""The bounded sum over one portion of a step's units."""

Node = tuple[int, int]
"""Portions `start` to `stop - 1`, added up as one part of the tree."""

Value = TypeVar("Value", BoundedSum, Tensor)

_BUCKET = 1 << 20  # numbers that travel at once: 4 MiB stay in a cache and are not paged in anew


class Devices:
    """The weights are whole in every process; with a group of one, a process that runs alone."""

    def __init__(self, group: Group | None = None, portions: int = 1) -> None:
        self.group = group or Group()
        self.portions = portions

    def place(self, model: nn.Module) -> Tensors:
        """Puts the weights where they will be; gives what an optimizer shall move, by name.

        Raises `Incompatible` for a model that several processes cannot train.
        """
        if self.group.size > 1:
            refuse_statistics(model)
        return trainable(model)

    def moved(self, model: nn.Module) -> Tensors:
        """What `place` gave."""
        return trainable(model)

    def part(
        self,
        whole: Tensor,  # of a parameter's shape, the same in every process
        like: Tensor,  # something that `moved` gave
    ) -> Tensor:
        """The part of `whole` that belongs to this process' part of the parameter."""
        return whole

    def whole(self, part: Tensor) -> Tensor:
        """What these parts, one of each process, are parts of; for all processes at once."""
        return part

    def gather(self) -> None:
        """Makes the model's weights whole; for all processes at once. Nothing if they are."""

    def scatter(self) -> None:
        """Lets go of all weights but this process' part. Nothing if that was done."""

    def adopt(self) -> None:
        """Takes over what was written into the whole weights."""

    def total(self, zero: Callable[[], BoundedSum], portion: Portion) -> BoundedSum:
        """The sum over all portions, the same bits in every process of any group.

        `zero` makes the sum over no unit. An error in any portion is raised in all processes.
        """
        own = self.group.all_or_raise(lambda: self._own(portion))
        return own[0, self.portions] if self.group.size == 1 else self._exchanged(zero(), own)

    def _own(self, portion: Portion) -> dict[Node, BoundedSum]:
        """The parts of the tree that this process can add up alone."""
        return {
            node: _added(node, lambda leaf: portion(leaf[0]) if leaf[1] - leaf[0] == 1 else None)
            for node in nodes(self.portions, self.group.rank, self.group.size)
        }

    def _exchanged(self, zero: BoundedSum, own: Mapping[Node, BoundedSum]) -> BoundedSum:
        """The root of the tree. Each process adds a slice of every bucket, then all hand round
        their slices: twice the sum's bytes leave a process, however many there are."""
        sums = [
            {name: t.reshape(-1).cpu() for name, t in part.total.items()} for part in own.values()
        ]
        whole = {name: t.view(-1) for name, t in zero.total.items()}
        for bucket in _buckets(whole):
            sizes = [stop - start for _, start, stop in bucket]
            width = -(-sum(sizes) // self.group.size)  # of a slice; the last one ends in padding
            rows = torch.zeros(len(sums), self.group.size * width)
            for one, row in zip(sums, rows, strict=True):
                torch.cat([one[name][a:b] for name, a, b in bucket], out=row[: sum(sizes)])
            pieces = self._added_slices(rows, width)[: sum(sizes)].split(sizes)
            for (name, start, stop), piece in zip(bucket, pieces, strict=True):
                whole[name][start:stop] = piece
        local = zero.local
        for part in own.values():
            local = local + part.local
        return BoundedSum(zero.total, zero.bound, local)

    def _added_slices(
        self,
        rows: Tensor,  # (nodes of this process, processes * width)
        width: int,
    ) -> Tensor:  # (processes * width,)
        size = self.group.size
        held = [nodes(self.portions, rank, size) for rank in range(size)]
        sent = rows.view(len(rows), size, width).transpose(0, 1).contiguous().view(-1)
        heard = self.group.all_to_all(
            sent, [len(rows) * width] * size, [len(some) * width for some in held]
        )
        names = [node for some in held for node in some]
        slices = dict(zip(names, heard.split(width), strict=True))
        return self.group.all_gather(_added((0, self.portions), slices.get))


@contextlib.contextmanager
def threads(count: int) -> Generator[None]:
    """Lets one operation use so many threads, inside the block: as many as when the run was
    started, since sums over other threads round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def refuse_statistics(model: nn.Module) -> None:
    """Running statistics would be those of one process' rows, and differ between processes."""
    for name, module in model.named_modules():
        if isinstance(module, _NormBase) and module.track_running_stats:
            raise Incompatible(
                f"the layer {name!r} ({type(module).__name__}) keeps statistics of the rows it "
                "sees, and several processes see different ones; use GroupNorm, or one process"
            )


# -- the tree --------------------------------------------------------------------------------------


def nodes(portions: int, rank: int, size: int) -> list[Node]:
    """The largest parts of the tree over `portions` leaves that hold only leaves of this rank.

    A rank has consecutive leaves; with more ranks than leaves some have none.

    >>> nodes(8, 1, 2), nodes(8, 1, 3), nodes(1, 0, 2)
    ([(4, 8)], [(2, 4), (4, 5)], [])
    """
    first, last = rank * portions // size, (rank + 1) * portions // size
    return _cover((0, portions), first, last)


def _cover(node: Node, first: int, last: int) -> list[Node]:
    start, stop = node
    if first <= start and stop <= last:
        return [node]
    if stop <= first or last <= start:
        return []
    middle = _middle(node)
    return _cover((start, middle), first, last) + _cover((middle, stop), first, last)


def _middle(node: Node) -> int:
    """Where a node divides: the left half is the largest power of two that leaves something."""
    start, stop = node
    return start + (1 << (stop - start - 1).bit_length() - 1)


def _added(node: Node, known: Callable[[Node], Value | None]) -> Value:
    """The sum of a node: known, or that of its two halves."""
    value = known(node)
    if value is not None:
        return value
    middle = _middle(node)
    return _added((node[0], middle), known) + _added((middle, node[1]), known)


def _buckets(tensors: Mapping[str, Tensor]) -> Iterator[list[tuple[str, int, int]]]:
    """(name, start, stop) of flat tensors, gathered into buckets of `_BUCKET` numbers."""
    bucket: list[tuple[str, int, int]] = []
    room = _BUCKET
    for name, tensor in tensors.items():
        start, count = 0, tensor.numel()
        while start < count:
            stop = min(count, start + room)
            bucket.append((name, start, stop))
            room -= stop - start
            start = stop
            if not room:
                yield bucket
                bucket, room = [], _BUCKET
    if bucket:
        yield bucket

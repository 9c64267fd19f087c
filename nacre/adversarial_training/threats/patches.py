"""Which entries of an input one step of a random search changes, and by what pattern.

Images are changed in square windows, for a network's first layers see neighbours together; other
inputs have no neighbours and are changed in random sets of entries. An input is seen as
(channels, entries): an image has as many entries as pixels, any other input is one channel.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nacre.adversarial_training.threats.region import Region


class Patches(Protocol):
    """How an input is changed piece by piece.

    All uniform numbers are float64 in (0, 1), as many a row as the property of that name says.
    """

    @property
    def channels(self) -> int: ...
    @property
    def stripe_draws(self) -> int: ...
    @property
    def tile_draws(self) -> int: ...
    @property
    def draws(self) -> int: ...

    def stripes(self, uniform: Tensor) -> Tensor:
        """(R, stripe_draws) -> (R, channels, N): signs to start from in a box."""
        ...

    def tiles(self, uniform: Tensor) -> Tensor:
        """(R, tile_draws) -> (R, channels, N): a relief over the whole input, to start from where
        the whole move is bounded."""
        ...

    def placed(self, uniform: Tensor, share: Tensor, least: int) -> Tensor:
        """(R, draws), (R,) shares of the input -> (R, P) float64: a random patch of about that size
        in numbers, which the following read. `least` is the least side of a window."""
        ...

    def pick(self, placed: Tensor) -> tuple[Tensor, Tensor]:
        """-> (R, 1, N) bool, the entries of each patch, and (R, channels, 1 or N) its signs."""
        ...

    def relief(self, placed: Tensor) -> tuple[Tensor, Tensor]:
        """-> the same entries, and (R, channels, N) what is added to them: 0 outside."""
        ...

    def painted(
        self,
        inputs: Tensor,  # (R, channels, N)
        edges: Tensor,  # (R, 2, channels, N)
        placed: Tensor,  # (R * W, P)
    ) -> Tensor:  # (R * W, channels, N)
        """Each input W times, its patches taken from the first edge where their sign is -, from the
        second where it is +."""
        ...


def patches(region: Region) -> Patches:
    """Windows for inputs of shape (channels, height, width), sets of entries for all others."""
    shape = tuple(region.radii.shape)
    if len(shape) == 3:
        return Windows(*shape)
    return Sets((region.radii > 0).flatten())


@dataclass(frozen=True)
class Windows:
    """Square windows of an image; all of one channel's window moves with one sign.

    *Source:* Andriushchenko et al. 2020, https://arxiv.org/abs/1912.00049, algorithms 2 and 3.
    """

    channels: int
    height: int
    width: int

    @property
    def stripe_draws(self) -> int:
        """A sign a channel and column."""
        return self.channels * self.width

    @property
    def tile_draws(self) -> int:
        """A sign a channel and tile, and one direction."""
        return self.channels * math.ceil(self.height / self._tile) * self._across + 1

    @property
    def draws(self) -> int:
        """A place, a direction and a sign a channel."""
        return 3 + self.channels

    @property
    def _tile(self) -> int:
        return max(1, min(self.height, self.width) // 5)

    @property
    def _across(self) -> int:
        return math.ceil(self.width / self._tile)

    def stripes(self, uniform: Tensor) -> Tensor:
        signs = (uniform - 0.5).sign().reshape(-1, self.channels, 1, self.width)
        return signs.expand(-1, -1, self.height, -1).flatten(2)

    def tiles(self, uniform: Tensor) -> Tensor:
        side = self._tile
        down, across = torch.arange(self.height), torch.arange(self.width)
        tile = (down // side)[:, None] * self._across + (across // side)[None, :]
        signs = (uniform[:, :-1] - 0.5).sign().reshape(len(uniform), self.channels, -1)
        relief = _relief(
            (down % side)[None], (across % side)[None], torch.full((1,), side), uniform[:, -1] < 0.5
        )
        return signs[:, :, tile.flatten()] * relief.flatten(1)[:, None]

    def placed(self, uniform: Tensor, share: Tensor, least: int) -> Tensor:
        """First row, first column, side; direction and signs as they were drawn."""
        side = (share * (self.height * self.width)).sqrt().round()
        side = side.clamp(least, min(self.height, self.width))[:, None]
        room = torch.tensor([self.height + 1, self.width + 1]) - side
        return torch.cat([(uniform[:, :2] * room).floor(), side, uniform[:, 2:]], 1)

    def pick(self, placed: Tensor) -> tuple[Tensor, Tensor]:
        down, across, side = self._counted(placed)
        inside = self._inside(down, side)[:, :, None] & self._inside(across, side)[:, None, :]
        return inside.flatten(1)[:, None], (placed[:, 4:] - 0.5).sign()[:, :, None]

    def relief(self, placed: Tensor) -> tuple[Tensor, Tensor]:
        patch, signs = self.pick(placed)
        relief = _relief(*self._counted(placed), placed[:, 3] < 0.5)
        return patch, signs * (relief.flatten(1)[:, None] * patch)

    def painted(self, inputs: Tensor, edges: Tensor, placed: Tensor) -> Tensor:
        # Only the lines of pixels that a window crosses are read and written.
        count, width = len(placed), len(placed) // len(inputs)
        top, left, side = placed[:, :3].long().unbind(1)
        each, channel = torch.arange(count), torch.arange(self.channels)
        signed = 2 * (each // width)[:, None] + (placed[:, 4:] > 0.5)
        # A smaller window than others repeats its last line.
        line = torch.minimum(torch.arange(int(side.max())), side[:, None] - 1) + top[:, None]
        taken = ((signed * self.channels + channel) * self.height)[:, :, None] + line[:, None]
        put = (each[:, None] * self.channels + channel)[:, :, None] * self.height + line[:, None]
        put, shape = put.flatten(), (*put.shape, self.width)
        whole = inputs[:, None].expand(-1, width, -1, -1)
        lines = whole.clone(memory_format=torch.contiguous_format).view(-1, self.width)
        new = edges.reshape(-1, self.width).index_select(0, taken.flatten()).view(shape)
        old = lines.index_select(0, put).view(shape)
        inside = self._inside(torch.arange(self.width) - left[:, None], side)[:, None, None]
        lines.index_copy_(0, put, torch.where(inside, new, old).view(-1, self.width))
        return lines.view(count, self.channels, -1)

    def _counted(self, placed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(R, H), (R, W) places counted from the window's first row and column, and (R,) sides."""
        top, left, side = placed[:, :3].long().unbind(1)
        down, across = torch.arange(self.height), torch.arange(self.width)
        return down[None] - top[:, None], across[None] - left[:, None], side

    @staticmethod
    def _inside(places: Tensor, side: Tensor) -> Tensor:
        return (places >= 0) & (places < side[:, None])


@dataclass(frozen=True, eq=False)
class Sets:
    """Random sets of entries, each entry with a sign of its own; those that are fixed are never
    drawn."""

    free: Tensor  # (D,) bool

    @property
    def channels(self) -> int:
        """One: all entries together."""
        return 1

    @property
    def draws(self) -> int:
        """A number an entry: which are drawn, and their signs."""
        return len(self.free)

    stripe_draws = tile_draws = draws

    def stripes(self, uniform: Tensor) -> Tensor:
        return (uniform - 0.5).sign()[:, None]

    tiles = stripes

    def placed(self, uniform: Tensor, share: Tensor, least: int) -> Tensor:
        """The numbers as they were drawn, and how many entries are taken."""
        count = (share * int(self.free.sum())).round().clamp(min=1)
        return torch.cat([uniform, count[:, None]], 1)

    def pick(self, placed: Tensor) -> tuple[Tensor, Tensor]:
        signed, count = 2 * placed[:, :-1] - 1, placed[:, -1].long()
        # Sign and size of a symmetric number are independent: the largest sizes are the set.
        size = signed.abs().masked_fill(~self.free, -1)
        order = size.sort(1, descending=True).values
        last = order.gather(1, (count.clamp(max=order.shape[1]) - 1)[:, None])
        return ((size >= last) & self.free)[:, None], signed.sign()[:, None]

    def relief(self, placed: Tensor) -> tuple[Tensor, Tensor]:
        patch, signs = self.pick(placed)
        return patch, signs * patch

    def painted(self, inputs: Tensor, edges: Tensor, placed: Tensor) -> Tensor:
        patch, signs = (found.unflatten(0, (len(inputs), -1)) for found in self.pick(placed))
        low, high = edges[:, None].unbind(2)
        edge = torch.where(signs > 0, high, low)
        return torch.where(patch, edge, inputs[:, None]).flatten(0, 1)


def _relief(down: Tensor, across: Tensor, side: Tensor, turned: Tensor) -> Tensor:
    """(R, H), (R, W) places in windows of (R,) sides -> (R, H, W): a hill in the upper half of the
    window and a valley in the lower one, or left and right where `turned`, (R,).

    A hill is a sum of nested squares around the middle of its half, the c-th of which adds
    1 / (c + 1)² (Andriushchenko et al. 2020, section 3.3).
    """
    count = max(len(down), len(turned))
    longest = int(side.max()) + 2
    sums = torch.arange(1, longest + 1, dtype=torch.float64).pow(-2).cumsum(0)
    sums = torch.cat([torch.zeros(1, dtype=torch.float64), sums])
    upright = _hills(down[:, :, None], across[:, None, :], side[:, None, None], sums)
    lying = _hills(across[:, None, :], down[:, :, None], side[:, None, None], sums)
    shape = (count, *upright.shape[1:])
    return torch.where(turned[:, None, None], lying.expand(shape), upright.expand(shape))


def _hills(along: Tensor, beside: Tensor, side: Tensor, sums: Tensor) -> Tensor:
    half = side // 2
    second = along >= half
    length = torch.where(second, side - half, half)
    middle = torch.where(second, half + length // 2, length // 2)
    distance = torch.maximum((along - middle).abs(), (beside - side // 2).abs())
    squares = torch.maximum(length // 2, side // 2) + 1
    height = sums[squares] - sums[torch.minimum(distance, squares)]
    return torch.where(second, -height, height)

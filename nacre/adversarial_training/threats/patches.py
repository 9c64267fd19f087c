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

    def pick(self, uniform: Tensor, share: Tensor, least: int) -> tuple[Tensor, Tensor]:
        """(R, draws), (R,) shares of the input -> (R, 1, N) bool, a random patch of about that
        size, and (R, channels, 1 or N) its signs. `least` is the least side of a window."""
        ...

    def relief(self, uniform: Tensor, share: Tensor, least: int) -> tuple[Tensor, Tensor]:
        """The same patch, and (R, channels, N) what is added to it: 0 outside."""
        ...

    def painted(
        self,
        inputs: Tensor,  # (R, channels, N)
        edges: Tensor,  # (R, 2, channels, N)
        uniform: Tensor,  # (R * W, draws)
        share: Tensor,  # (R * W,) of the input
    ) -> Tensor:  # (R * W, channels, N)
        """Each input W times, with the patch of `pick` taken from the first edge where its sign is
        -, from the second where it is +."""
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

    def pick(self, uniform: Tensor, share: Tensor, least: int) -> tuple[Tensor, Tensor]:
        down, across, side = self._placed(uniform, share, least)
        inside = self._inside(down, side)[:, :, None] & self._inside(across, side)[:, None, :]
        return inside.flatten(1)[:, None], (uniform[:, 3:] - 0.5).sign()[:, :, None]

    def relief(self, uniform: Tensor, share: Tensor, least: int) -> tuple[Tensor, Tensor]:
        patch, signs = self.pick(uniform, share, least)
        down, across, side = self._placed(uniform, share, least)
        relief = _relief(down, across, side, uniform[:, 2] < 0.5)
        return patch, signs * (relief.flatten(1)[:, None] * patch)

    def painted(self, inputs: Tensor, edges: Tensor, uniform: Tensor, share: Tensor) -> Tensor:
        # Only the lines of pixels that a window crosses are read and written.
        count, width = len(uniform), len(uniform) // len(inputs)
        top, left, side = self._corners(uniform, share, 1)
        each, channel = torch.arange(count), torch.arange(self.channels)
        signed = (each // width)[:, None] * 2 + (uniform[:, 3:] > 0.5)
        # A smaller window than others repeats its last line.
        line = torch.minimum(torch.arange(int(side.max())), side[:, None] - 1) + top[:, None]
        taken = ((signed * self.channels + channel) * self.height)[:, :, None] + line[:, None]
        put = (each[:, None] * self.channels + channel)[:, :, None] * self.height + line[:, None]
        painted = (
            inputs[:, None].expand(-1, width, -1, -1).clone(memory_format=torch.contiguous_format)
        )
        lines = painted.view(-1, self.width)
        new = edges.reshape(-1, self.width).index_select(0, taken.flatten())
        old = lines.index_select(0, put.flatten())
        inside = self._inside(torch.arange(self.width) - left[:, None], side)[:, None, None]
        shape = (*put.shape, self.width)
        lines.index_copy_(
            0, put.flatten(), torch.where(inside, new.view(shape), old.view(shape)).flatten(0, 2)
        )
        return painted.flatten(0, 1)

    def _corners(self, uniform: Tensor, share: Tensor, least: int) -> tuple[Tensor, Tensor, Tensor]:
        """(R,) first rows, first columns and sides of windows."""
        side = (share * (self.height * self.width)).sqrt().round().long()
        side = side.clamp(least, min(self.height, self.width))
        room = torch.tensor([self.height + 1, self.width + 1]) - side[:, None]
        top, left = (uniform[:, :2] * room).long().unbind(1)
        return top, left, side

    def _placed(self, uniform: Tensor, share: Tensor, least: int) -> tuple[Tensor, Tensor, Tensor]:
        """(R, H), (R, W) places counted from the window's first row and column, and (R,) sides."""
        top, left, side = self._corners(uniform, share, least)
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

    def pick(self, uniform: Tensor, share: Tensor, least: int) -> tuple[Tensor, Tensor]:
        signed = 2 * uniform - 1
        # Sign and size of a symmetric number are independent: the largest sizes are the set.
        size = signed.abs().masked_fill(~self.free, -1)
        count = (share * int(self.free.sum())).round().long().clamp(min=1)
        order = size.sort(1, descending=True).values
        last = order.gather(1, (count.clamp(max=order.shape[1]) - 1)[:, None])
        return ((size >= last) & self.free)[:, None], signed.sign()[:, None]

    def relief(self, uniform: Tensor, share: Tensor, least: int) -> tuple[Tensor, Tensor]:
        patch, signs = self.pick(uniform, share, least)
        return patch, signs * patch

    def painted(self, inputs: Tensor, edges: Tensor, uniform: Tensor, share: Tensor) -> Tensor:
        patch, signs = (v.unflatten(0, (len(inputs), -1)) for v in self.pick(uniform, share, 1))
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

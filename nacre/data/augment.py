"""Copies of rows, flipped, shifted or moved by noise at random, each a row of the same unit."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nacre.core import require, rows
from nacre.core.errors import BadArgument
from nacre.core.random import Source
from nacre.core.types import Batch

_DRAWS = 3  # of a copy: flip, rows, columns


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Each row enters a step as several copies of itself, with Gaussian noise on their entries,
    and images flipped and shifted at random.

    A unit's loss is the mean over its copies, and the gradient of that mean is clipped once. *Why
    epsilon stays the same:* the copies are made of the unit's own rows and of draws that are keyed
    by the unit, so however many they are, they move the sum by one bounded share and no other
    unit's. They cost `count` times the work.

    *Source:* De, Berrada, Hayes, Smith & Balle 2022, "Unlocking High-Accuracy Differentially
    Private Image Classification through Scale", https://arxiv.org/abs/2204.13650
    ("augmentation multiplicity"); for noise Cohen, Rosenfeld & Kolter 2019, section 3.3, and with
    privacy Wu et al. 2023 (DP-CERT), https://arxiv.org/abs/2306.08656.
    """

    kind: Literal["copies"] = "copies"
    count: int
    """Copies of each row in a step."""
    flip: bool = False
    """Whether a copy is mirrored left to right, by the toss of a coin."""
    shift: int = 0
    """The farthest that a copy moves in each direction, in pixels; what comes in at one side
    repeats the edge."""
    noise: float = 0.0
    """Deviation of the Gaussian noise on each entry of a copy, in the model's scaled units: that of
    the smoothing by which the model is to be certified. Entries may leave their legal range."""
    include_original: bool = False
    """Whether the first of the copies is the row as it is, as DP-CERT trains: with `count` 3, the
    row and two random versions of it. A model trained on noise then answers rows without noise
    better and certifies a little less than with `count` random versions."""

    def __post_init__(self) -> None:
        if not 1 <= self.count <= 256:
            raise BadArgument(f"count={self.count} must lie between 1 and 256")
        require.at_least(0, shift=self.shift)
        require.not_negative(noise=self.noise)
        if not self.flip and not self.shift and not self.noise:
            raise BadArgument(
                "flip=False, shift=0 and noise=0 make copies that are all the same: set one"
            )
        if self.include_original and self.count == 1:
            raise BadArgument(
                "count=1 with include_original=True leaves the row alone as it is: set count=2 or "
                "more, or leave `augment` out"
            )

    @property
    def moves_images(self) -> bool:
        """Whether copies are flipped or shifted, as images alone can be."""
        return self.flip or self.shift > 0

    @property
    def subject(self) -> str:
        """What is copied, in the singular."""
        return "image" if self.moves_images else "row"

    def problem(self, shape: tuple[int, ...]) -> str | None:
        """Why rows of this shape have no such copies, with the remedy; None where they have."""
        if not self.moves_images:
            return None
        if len(shape) != 3:
            return (
                f"copies are flipped and shifted as images (channels, height, width), and a row "
                f"here has the shape {shape}; leave `augment` out, or declare images"
            )
        if self.shift >= min(shape[1:]):
            return (
                f"shift={self.shift} moves images of {shape[1]} x {shape[2]} pixels out of sight; "
                f"use at most {min(shape[1:]) - 1}"
            )
        return None

    def apply(self, batch: Batch, source: Source) -> Batch:
        """The batch with K copies of each row: (B, …) becomes (B, K, …), (B, R, …) (B, R * K, …).

        Unit i depends on its own rows, its number and `source` alone.
        """
        if not rows.grouped(batch):
            one = torch.ones_like(batch["present"])[:, None]
            own = ("present", "unit")
            batch = {n: v if n in own else v[:, None] for n, v in batch.items()} | {"rows": one}
        copied = {
            name: value if name in ("present", "unit") else value.repeat_interleave(self.count, 1)
            for name, value in batch.items()
        }
        features, units = copied["features"], batch["unit"]
        if not self.include_original:
            return copied | {"features": self._randomized(features, units, source)}
        places = torch.arange(features.shape[1], device=features.device)
        drawn = places % self.count > 0
        features[:, drawn] = self._randomized(features[:, drawn], units, source)
        return copied

    def _randomized(
        self,
        features: Tensor,  # (B, K, …)
        units: Tensor,  # (B,)
        source: Source,
    ) -> Tensor:  # the same shape
        if self.moves_images:
            features = self._moved(features, units, source)
        if self.noise:
            features = features + self.noise * _normals(features, units, source.child("noise"))
        return features

    def _moved(
        self,
        images: Tensor,  # (B, K, channels, height, width)
        units: Tensor,  # (B,)
        source: Source,
    ) -> Tensor:  # the same shape
        count, copies, *shape = images.shape
        draws = source.stream().rows(units, copies * _DRAWS).to(images.device)
        flip, *steps = draws.view(count * copies, _DRAWS).unbind(1)
        down, across = (((2 * self.shift + 1) * step).long() - self.shift for step in steps)
        height = _places(shape[1], down)
        width = _places(shape[2], across)
        if self.flip:
            width = torch.where(flip[:, None] < 0.5, width.flip(1), width)
        flat = images.reshape(count * copies, *shape)
        moved = flat.gather(2, height[:, None, :, None].expand_as(flat))
        return moved.gather(3, width[:, None, None, :].expand_as(flat)).view(images.shape)


def _normals(features: Tensor, units: Tensor, source: Source) -> Tensor:
    """Standard normals, of the shape and type of `features`; those of a unit are its own."""
    uniform = source.stream().rows(units, features[0].numel() if len(features) else 0)
    return torch.special.ndtri(uniform).to(features).reshape(features.shape)


def _places(
    length: int,
    steps: Tensor,  # (N,) int64
) -> Tensor:  # (N, length): where each pixel comes from
    places = torch.arange(length, device=steps.device)
    return (places + steps[:, None]).clamp(0, length - 1)

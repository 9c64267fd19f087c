"""Pictures that show nothing, and what they tell about the features of pictures."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

_PICTURES = 1000  # of 28 by 28 pixels; fewer of larger ones, so that all take as long
_PIXELS = _PICTURES * 28 * 28
_FEWEST = 200
_MOST_SHAPES = 10
_AT_ONCE = 100


def dead_leaves(
    count: int,
    shape: tuple[int, ...],  # of one picture: (channels, height, width)
    seed: int = 0,
) -> Tensor:
    """(count, C, H, W) in [-1, 1], as inputs of a declared range are: dead leaves.

    Up to ten random discs, boxes and rhombs in each picture, half of them outlines, cover one
    another around the middle of a black picture; their sizes follow a power law, and they are of
    random greys or colours, many of them white or black.

    They depend on the arguments alone. *Source:* Lee, Mumford & Huang 2001, "Occlusion models for
    natural images"; for learning, Baradad et al. 2021, "Learning to see by looking at noise".

    >>> dead_leaves(2, (1, 8, 8)).shape
    torch.Size([2, 1, 8, 8])
    """
    random = np.random.default_rng(seed)
    sizes = [min(_AT_ONCE, count - start) for start in range(0, count, _AT_ONCE)]
    return torch.from_numpy(np.concatenate([_block(size, shape, random) for size in sizes]))


def _block(count: int, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    colours, height, width = shape
    side = max(height, width)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    pictures = np.zeros((count, colours, height, width), np.float32)
    shapes = random.integers(1, _MOST_SHAPES + 1, count)
    for k in range(_MOST_SHAPES):
        turn, stretch = np.pi * random.random(count), np.exp(0.6 * random.normal(size=count))
        middle = [[height / 2], [width / 2]] + 0.18 * side * random.normal(size=(2, count))
        radius = 0.08 * side * (1 - random.random(count)) ** (-2 / 3)
        size = np.minimum(0.45 * side, radius)[:, None, None]
        half = (0.018 + 0.054 * random.random(count))[:, None, None] * side  # width of an outline
        form = random.integers(3, size=count)[:, None, None]
        outlined = (random.random(count) < 0.5)[:, None, None]
        colour = random.random((count, colours)) * (random.random((count, 1)) < 0.7)
        colour = np.maximum(colour, random.random((count, 1)) < 0.3)
        down, right = (line - at[:, None, None] for line, at in zip((y, x), middle, strict=True))
        cos, sin = (turned(turn)[:, None, None] for turned in (np.cos, np.sin))
        u = np.abs(right * cos + down * sin) / stretch[:, None, None]
        v = np.abs(down * cos - right * sin) * stretch[:, None, None]
        far = np.choose(form, (np.hypot(u, v), np.maximum(u, v), u + v))  # from its middle
        inside = np.where(outlined, half - np.abs(far - size), size - far)
        # A border one pixel wide, as a camera's would be.
        covers = np.clip(inside + 0.5, 0, 1) * (k < shapes)[:, None, None]
        pictures += covers[:, None] * (colour[:, :, None, None] - pictures)
    return (2 * pictures - 1).astype(np.float32)


@dataclass(frozen=True)
class Moments:
    """What pictures have in common, in float64."""

    mean: Tensor  # (K, P): of K features at P pixels
    over_features: Tensor  # (K, K): their covariance, averaged over the pixels
    over_pixels: Tensor  # (P, P): the covariance of pixels, averaged over the features


def moments(
    seen: Callable[[Tensor], Tensor],  # (B, C, H, W) -> (B, K, h, w), each picture by itself
    shape: tuple[int, ...],
) -> Moments:
    """Those of `seen` on dead leaves of this shape: a thousand of 28 by 28 pixels."""
    _, height, width = shape
    count = max(_FEWEST, min(_PICTURES, _PIXELS // (height * width)))
    mean = features = pixels = torch.zeros((), dtype=torch.float64)
    for block in dead_leaves(count, shape).split(32):
        with torch.no_grad():
            found = seen(block).flatten(2).double()
        mean = mean + found.sum(0) / count
        features = features + torch.einsum("bki,bli->kl", found, found) / count
        pixels = pixels + torch.einsum("bki,bkj->ij", found, found) / count
    features = (features - mean @ mean.T) / mean.shape[1]
    return Moments(mean, features, (pixels - mean.T @ mean) / mean.shape[0])


class Whitened(nn.Module):
    """(B, K, h, w) -> the same: features decorrelated by means and covariances of other pictures,
    the covariance of all being taken for the Kronecker product of the two of `moments`. `ridge` is
    added to each variance, in units of the mean one, and bounds how far a direction is raised.

    It is a linear map of each image by itself and knows nothing of the data, so it costs no
    privacy. Gradient descent behind it learns all directions at about one pace; without it a few
    take most of the steps, and every step costs privacy.
    """

    def __init__(self, known: Moments, ridge: float) -> None:
        super().__init__()
        whole = known.over_features.diagonal().mean()
        values, turn = torch.linalg.eigh(known.over_features / whole)
        others, other_turn = torch.linalg.eigh(known.over_pixels / whole)
        # A picture's features are normalised, so neither is zero but by rounding.
        variances = values.clamp(min=0)[:, None] * others.clamp(min=0)
        scale = (variances + ridge).rsqrt()
        # As far from zero as before, on those pictures.
        scale = scale / (variances * scale**2).mean().sqrt()
        for name, value in (
            ("mean", known.mean), ("turn", turn), ("other_turn", other_turn), ("scale", scale),
        ):  # fmt: skip
            self.register_buffer(name, value.float())

    def forward(self, inputs: Tensor) -> Tensor:
        turn, other = self.get_buffer("turn"), self.get_buffer("other_turn")
        centred = inputs.flatten(2) - self.get_buffer("mean")
        scaled = (turn.T @ centred @ other) * self.get_buffer("scale")
        # Turned back: signs and order of eigenvectors, which differ between machines, do not show.
        return (turn @ scaled @ other.T).view_as(inputs)

    def extra_repr(self) -> str:
        """What a listing of layers says."""
        return f"features={self.get_buffer('turn').shape[0]}"

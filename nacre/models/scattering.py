"""Images seen through fixed wavelets, and a small trained part behind them."""

# kymatio is untyped, and its types come from its values.
# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from nacre.core import require
from nacre.core.assumptions import NoAssumptions
from nacre.core.errors import BadArgument, Incompatible, Refusal
from nacre.models.dead_leaves import Moments, Whitened, moments
from nacre.models.tabular import Activation, activation, check_activation


@dataclass(frozen=True, kw_only=True)
class Scattering(NoAssumptions):
    """The scattering transform of an image (Mallat 2012), normalised, then a linear or a small
    convolutional head. Wavelets are fixed: nothing about them is learnt, so they cost no privacy,
    and what is left to learn is small enough to be learnt through much noise.

    Needs `pip install 'nacre[images]'` (kymatio). *Source:* Tramèr & Boneh 2021, "Differentially
    Private Learning Needs Better Features (or Much More Data)", https://arxiv.org/abs/2011.11660
    """

    kind: Literal["scattering"] = "scattering"
    scales: int = 2
    """Sizes of wavelets, each twice the last: features are averages over 2^scales pixels."""
    angles: int = 8
    """Directions of wavelets."""
    groups: int = 27
    """Groups of features that are normalised together, within each image; divides the number of
    features of a pixel: 81 for a grey image, two scales and eight angles."""
    whiten: float | None = None
    """Decorrelates the features, for a linear head, by their covariance on made-up pictures of
    random shapes (`nacre.models.dead_leaves`), which tells nothing about the data. The number is
    the ridge: a variance added to each direction, in units of the mean one; 1 is a good start.
    Descent then learns all directions alike, in fewer steps."""
    random: int = 0
    """Random features that join them, for a linear head: the tangents (tanh) of so many fixed
    random sums of the others, which a linear layer alone cannot see (Rahimi & Recht 2008)."""
    head: Literal["linear", "convolution"] = "linear"
    """What is trained: one linear layer, or two convolutions of `channels` before it."""
    channels: int = 64
    """Channels of each convolution of the head."""
    activation: Activation = "tanh"
    """What follows each convolution of the head."""

    def sentence(self, folder: Path) -> str:
        """Kind, wavelets, head, and what is done to the features."""
        words = f"{self.kind} of {self.scales} scales and {self.angles} angles, {self.head} head"
        words += ", whitened on made-up pictures" if self.whiten is not None else ""
        return words + (f", {self.random} random features" if self.random else "")

    def __post_init__(self) -> None:
        require.at_least(
            1, scales=self.scales, angles=self.angles, groups=self.groups, channels=self.channels
        )
        require.at_least(0, random=self.random)
        if self.random and self.head != "linear":
            raise BadArgument("random features have no place in an image: use `head: linear`")
        if self.whiten is not None and not 1e-6 <= self.whiten < math.inf:
            raise BadArgument(f"whiten={self.whiten} must be at least 1e-6; 1 is a good start")
        if self.whiten is not None and self.head != "linear":
            raise BadArgument("`whiten` mixes the pixels of an image: use `head: linear`")
        check_activation(self.activation)

    def features(self, channels: int) -> int:
        """Features of each pixel of the transform, of an image of so many channels.

        >>> Scattering().features(1), Scattering(groups=81).features(3)
        (81, 243)
        """
        pairs = self.scales * (self.scales - 1) // 2
        return channels * (1 + self.scales * self.angles + pairs * self.angles**2)


class Transform(nn.Module):
    """(B, C, H, W) -> (B, C * K, H / 2^J, W / 2^J): K coefficients of J scales and L angles for
    each channel, in the order of the paths (), (j1, angle), (j1, j2, angle1, angle2), j1 < j2.

    It has no parameters; each image is transformed by itself, in float32. Wavelets are kymatio's
    (Andreux et al. 2020), the borders are reflected. *Source:* Mallat 2012, "Group Invariant
    Scattering", equation 2.14; Bruna & Mallat 2013, section 2.
    """

    def __init__(self, option: Scattering, height: int, width: int) -> None:
        super().__init__()
        self.scales, self.angles = option.scales, option.angles
        side = 2**option.scales
        self._kept = (height // side, width // side)
        sizes = (self._kept[0] + 2) * side, (self._kept[1] + 2) * side
        self._sizes = sizes  # with the padding
        self._before = (sizes[0] - height) // 2, (sizes[1] - width) // 2
        wavelets, lowpass = _filters(*sizes, option.scales, option.angles)
        for level, values in enumerate(lowpass):
            self.register_buffer(f"lowpass{level}", values, persistent=False)
        for (scale, level), values in wavelets.items():
            self.register_buffer(f"wavelets{scale}_{level}", values, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            return self._paths(self._padded(images.float())).flatten(1, 2)

    def _paths(self, images: Tensor) -> Tensor:  # (B, C, H', W') -> (B, C, K, h, w)
        whole = torch.fft.fft2(images)[:, :, None]
        first: list[Tensor] = []
        second: list[Tensor] = []
        for j1 in range(self.scales):
            seen = self._seen(whole, j1, 0)
            first.append(self._averaged(seen, j1))
            for j2 in range(j1 + 1, self.scales):
                again = self._seen(seen[:, :, :, None], j2, j1).flatten(2, 3)
                second.append(self._averaged(again, j2))
        return torch.cat([self._averaged(whole, 0), *first, *second], dim=2)

    def _seen(self, spectrum: Tensor, scale: int, level: int) -> Tensor:
        """The spectrum of the modulus behind each wavelet of `scale`, at its own resolution."""
        wavelets = self.get_buffer(f"wavelets{scale}_{level}")
        return torch.fft.fft2(_coarse(spectrum * wavelets, scale - level).abs())

    def _averaged(self, spectrum: Tensor, level: int) -> Tensor:
        """(..., h, w): local averages, without the padding."""
        lowpass = self.get_buffer(f"lowpass{level}")
        found = _coarse(spectrum * lowpass, self.scales - level).real
        height, width = self._kept
        return found[..., 1 : height + 1, 1 : width + 1]

    def _padded(self, images: Tensor) -> Tensor:
        places = [
            _reflected(length, before, size, images.device)
            for length, before, size in zip(
                images.shape[2:], self._before, self._sizes, strict=True
            )
        ]
        return images[:, :, places[0][:, None], places[1]]

    def extra_repr(self) -> str:
        """What a listing of layers says."""
        return f"scales={self.scales}, angles={self.angles}"


def _reflected(length: int, before: int, size: int, device: torch.device) -> Tensor:
    """(size,): where each pixel of a padded side comes from; its border pixels are not repeated."""
    places = torch.arange(-before, size - before, device=device)
    period = max(1, 2 * (length - 1))
    places = places.remainder(period)
    return torch.minimum(places, period - places)


def _coarse(spectrum: Tensor, halvings: int) -> Tensor:
    """The signal of this spectrum, every 2^halvings-th pixel of it: folding the spectrum is what
    leaving pixels out does."""
    for _ in range(halvings):
        height, width = (n // 2 for n in spectrum.shape[-2:])
        spectrum = spectrum[..., :height, :] + spectrum[..., height:, :]
        spectrum = spectrum[..., :width] + spectrum[..., width:]
    return torch.fft.ifft2(spectrum) * 0.25**halvings


class WithRandom(nn.Module):
    """(B, …) -> (B, inputs + count): the inputs, and the tanh of random sums of them.

    The sums have a deviation of about 2 for normalised inputs. They are drawn once, by PyTorch's
    generator as it stands, and kept with the model's weights.
    """

    def __init__(self, inputs: int, count: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.randn(inputs, count) * (2 / inputs**0.5))

    def forward(self, inputs: Tensor) -> Tensor:
        flat = inputs.flatten(1)
        return torch.cat([flat, torch.tanh(flat @ self.get_buffer("sums"))], dim=1)

    def extra_repr(self) -> str:
        """What a listing of layers says."""
        return f"random={self.get_buffer('sums').shape[1]}"


class Scattered(nn.Sequential):
    """A fixed beginning of `fixed` layers that no training moves, and the rest of the model.

    `beginning` maps each row by itself without any randomness, so its outputs may be computed once
    and taken as the inputs of `rest`, which shares its weights with this model.
    """

    def __init__(self, layers: OrderedDict[str, nn.Module], fixed: int) -> None:
        super().__init__(layers)
        self._fixed = fixed

    @property
    def beginning(self) -> nn.Sequential:
        """(B, C, H, W) -> the features of each image."""
        return nn.Sequential(OrderedDict(list(self.named_children())[: self._fixed]))

    @property
    def rest(self) -> nn.Sequential:
        """What is trained, under the same names: features -> (B, outputs)."""
        return nn.Sequential(OrderedDict(list(self.named_children())[self._fixed :]))


def scattered(
    option: Scattering,
    shape: tuple[int, ...],  # of one input: (channels, height, width)
    outputs: int,
) -> Scattered:
    """The network, (B, C, H, W) -> (B, outputs); its last layer is named `head`.

    Raises `Incompatible` for inputs that are no images, too small for the widest wavelets, or of
    features that `groups` does not divide; `Refusal` where kymatio is not installed.
    """
    if len(shape) != 3:
        raise Incompatible(
            f"model `scattering` needs inputs of shape (channels, height, width) and the data have "
            f"{shape}; use `model: {{kind: mlp}}`"
        )
    colours, height, width = shape
    side = 2**option.scales
    if min(height, width) < side:
        raise Incompatible(
            f"model `scattering` averages over {side} by {side} pixels and the images have "
            f"{height} by {width}; lower `scales`"
        )
    features = option.features(colours)
    if features % option.groups:
        raise Incompatible(
            f"groups={option.groups} does not divide the {features} features of a pixel that "
            f"scales={option.scales} and angles={option.angles} give; use {_divisor(features)}"
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["scattering"] = Transform(option, height, width)
    layers["norm"] = nn.GroupNorm(option.groups, features, affine=False)
    left = (height // side) * (width // side)
    if option.whiten is not None:
        known = _on_leaves(option.scales, option.angles, option.groups, shape)
        layers["whitened"] = Whitened(known, option.whiten)
    if option.random:
        layers["random"] = WithRandom(features * left, option.random)
    fixed = len(layers)
    if option.head == "convolution":
        before = features
        for i in range(2):
            layers[f"convolution{i}"] = nn.Conv2d(before, option.channels, kernel_size=3, padding=1)
            layers[f"activation{i}"] = activation(option.activation)
            before = option.channels
        features = before
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(features * left + option.random, outputs)
    return Scattered(layers, fixed)


@functools.lru_cache(maxsize=4)
def _on_leaves(scales: int, angles: int, groups: int, shape: tuple[int, ...]) -> Moments:
    """Moments of the normalised transform on made-up pictures; they take seconds."""
    option = Scattering(scales=scales, angles=angles, groups=groups)
    with torch.device("cpu"):  # numbers even where only sizes are asked for, as they are kept
        norm = nn.GroupNorm(groups, option.features(shape[0]), affine=False)
        return moments(nn.Sequential(Transform(option, *shape[1:]), norm), shape)


def _divisor(features: int) -> int:
    """The divisor nearest to a third of the features: groups of three are a good start."""
    return min(
        (n for n in range(1, features + 1) if features % n == 0),
        key=lambda n: abs(n - features / 3),
    )


def _filters(
    height: int, width: int, scales: int, angles: int
) -> tuple[dict[tuple[int, int], Tensor], list[Tensor]]:
    """kymatio's filters in Fourier space: wavelets by (scale, halvings of the image that they are
    applied to) as (angles, h, w), and the low pass by halvings as (h, w).

    Taken from where they are made: `kymatio.torch` itself loads parts that newer scipy no longer
    has. Raises `Refusal` where kymatio is not installed.
    """
    try:
        from kymatio.scattering2d.filter_bank import filter_bank
    except ImportError as error:
        raise Refusal(
            "model `scattering` needs kymatio, which is not installed; "
            "`pip install 'nacre[images]'`"
        ) from error
    bank: Any = filter_bank(height, width, scales, angles)
    found: dict[tuple[int, int], list[Tensor]] = {}
    for wavelet in bank["psi"]:
        for level, values in enumerate(wavelet["levels"]):
            found.setdefault((wavelet["j"], level), []).append(_real(values))
    wavelets = {key: torch.stack(values) for key, values in found.items()}
    return wavelets, [_real(values) for values in bank["phi"]["levels"]]


def _real(values: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.real(values), dtype=np.float32))

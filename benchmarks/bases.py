"""A public base for benchmarks/utility.py: a network that others trained, held fixed."""

from __future__ import annotations

from collections import OrderedDict

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from nacre.models.scattering import Scattered

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the inputs of its training


class ResNet20(nn.Module):
    """(B, 3, 32, 32) in [-1, 1] -> (B, 64): Yerlan Idelbayev's ResNet-20, without its last layer.

    Its batch norms are fixed scales and shifts, and part of the convolutions here, so each image is
    mapped by itself.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        for name in [key.removesuffix(".weight") for key in weights if "conv" in key]:
            norm = name.replace("conv", "bn")
            scale = weights[f"{norm}.weight"] * (weights[f"{norm}.running_var"] + 1e-5).rsqrt()
            shift = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
            flat = name.replace(".", "_")
            self.register_buffer(flat, weights[f"{name}.weight"] * scale[:, None, None, None])
            self.register_buffer(f"{flat}_shift", shift)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        inputs = ((images + 1) / 2 - self.get_buffer("mean")) / self.get_buffer("std")
        found = F.relu(self._convolved(inputs, "conv1", 1))
        for stage in (1, 2, 3):
            for block in range(3):
                halves = 2 if stage > 1 and block == 0 else 1
                name = f"layer{stage}_{block}_conv"
                inner = F.relu(self._convolved(found, f"{name}1", halves))
                inner = self._convolved(inner, f"{name}2", 1)
                more = (inner.shape[1] - found.shape[1]) // 2  # channels of zeros on either side
                past = F.pad(found[:, :, ::halves, ::halves], (0, 0, 0, 0, more, more))
                found = F.relu(inner + past)
        return found.mean((2, 3))

    def _convolved(self, inputs: Tensor, name: str, stride: int) -> Tensor:
        weight, shift = self.get_buffer(name), self.get_buffer(f"{name}_shift")
        return F.conv2d(inputs, weight, shift, stride, padding=1)


def resnet20(path: str) -> Scattered:
    """The base of these weights, normalised, and one linear layer that is trained."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["base"] = ResNet20(load_file(path))
    layers["norm"] = nn.LayerNorm(64, elementwise_affine=False)
    layers["head"] = nn.Linear(64, 10)
    return Scattered(layers, fixed=2)

"""What a recipe may say under `gradient_clipping`, and every rule there is."""

from __future__ import annotations

from nacre.gradient_clipping.adaptive import Adaptive
from nacre.gradient_clipping.mean_gradient import ByNorm, ByValue
from nacre.gradient_clipping.rules import Automatic, Flat, PerLayer, Unclipped

UnitClip = Flat | Automatic | PerLayer | Adaptive
"""The rules that bound each unit's share, which is what noise is measured by."""

ClippingOption = UnitClip | ByValue | ByNorm

CLIP_RULES = (Flat, Automatic, PerLayer, Adaptive, Unclipped)
"""Every rule; the laws run over them."""

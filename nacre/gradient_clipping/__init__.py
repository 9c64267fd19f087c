"""Gradient clipping: per-unit bounds for privacy, whole-gradient bounds for stability."""

from nacre.gradient_clipping.adaptive import Adaptive
from nacre.gradient_clipping.bookkeeping import BookKeeping
from nacre.gradient_clipping.choose import BY_KIND, GRADIENT_SUMS, choose_sum
from nacre.gradient_clipping.ghost import Ghost
from nacre.gradient_clipping.grouped import Grouped
from nacre.gradient_clipping.looped import Looped
from nacre.gradient_clipping.mean_gradient import ByNorm, ByValue
from nacre.gradient_clipping.options import CLIP_RULES, ClippingOption, UnitClip
from nacre.gradient_clipping.row_sum import RowSum
from nacre.gradient_clipping.rules import Automatic, Flat, PerLayer, Unclipped
from nacre.gradient_clipping.vmapped import Vmapped
from nacre.gradient_clipping.whole_sum import Whole

__all__ = [
    "BY_KIND",
    "CLIP_RULES",
    "GRADIENT_SUMS",
    "Adaptive",
    "Automatic",
    "BookKeeping",
    "ByNorm",
    "ByValue",
    "ClippingOption",
    "Flat",
    "Ghost",
    "Grouped",
    "Looped",
    "PerLayer",
    "RowSum",
    "Unclipped",
    "UnitClip",
    "Vmapped",
    "Whole",
    "choose_sum",
]

"""What attacks raise: losses of scores, each positive-is-worse for the model, row by row."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn


class ScoreLoss(Protocol):
    """A loss of scores. `other` is the class that is aimed at, where the loss aims at one."""

    def __call__(self, scores: Tensor, label: Tensor, other: Tensor | None = None) -> Tensor:
        """(R, K), (R,), (R,) -> (R,)"""
        ...


def cross_entropy(scores: Tensor, label: Tensor, other: Tensor | None = None) -> Tensor:
    """Minus the log-probability of the right class, or the log-probability of `other`."""
    if other is not None:
        return -nn.functional.cross_entropy(scores, other, reduction="none")
    return nn.functional.cross_entropy(scores, label, reduction="none")


def score_margin(scores: Tensor, label: Tensor, other: Tensor | None = None) -> Tensor:
    """The best other score, or that of `other`, minus the right one: above 0 exactly where the
    answer is wrong (Carlini & Wagner 2017, objective f6, https://arxiv.org/abs/1608.04644)."""
    own = scores.gather(1, label[:, None]).squeeze(1)
    if other is not None:
        return scores.gather(1, other[:, None]).squeeze(1) - own
    return _others(scores, label).amax(1) - own


def probability_margin(scores: Tensor, label: Tensor, other: Tensor | None = None) -> Tensor:
    """The margin between probabilities instead of scores (Liu et al. 2024, PMA,
    https://arxiv.org/abs/2411.15210, equation 6): a softmax weighs how sure the model is."""
    return score_margin(scores.softmax(1), label, other)


def logit_ratio(scores: Tensor, label: Tensor, other: Tensor | None = None) -> Tensor:
    """The margin divided by the gap between the largest and the third largest score (DLR), or,
    towards `other`, by the gap to the mean of the third and the fourth: no factor on the scores
    changes it (Croce & Hein 2020, https://arxiv.org/abs/2003.01690, equations 6 and 7).

    With three classes the gap is to the third; with two there is none and the margin is divided by
    1 + the size of the scores instead, which also bounds it.
    """
    top = scores.sort(1, descending=True).values
    if scores.shape[1] < 3:
        gap = 1 + scores.abs().sum(1)
    elif other is not None and scores.shape[1] > 3:
        gap = top[:, 0] - (top[:, 2] + top[:, 3]) / 2
    else:
        gap = top[:, 0] - top[:, 2]
    return score_margin(scores, label, other) / gap.clamp(min=1e-12)


def _others(scores: Tensor, label: Tensor) -> Tensor:
    """The scores with the right class at minus infinity."""
    return scores.scatter(1, label[:, None], -torch.inf)


LOSSES: dict[str, ScoreLoss] = {
    "cross_entropy": cross_entropy,
    "margin": score_margin,
    "probability_margin": probability_margin,
    "logit_ratio": logit_ratio,
}
"""Every loss that an attack may raise; the laws run over them."""

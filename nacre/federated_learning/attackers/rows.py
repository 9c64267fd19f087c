"""Attackers that train as agreed, on rows that they changed: their replies are honest work."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from nacre.core import require
from nacre.core.errors import Incompatible
from nacre.core.random import Source
from nacre.data.dataset import Rows
from nacre.federated_learning.attackers.attacker import Attacker


@dataclass(frozen=True, kw_only=True)
class LabelFlip(Attacker):
    """Every label l becomes classes - 1 - l.

    Source: Fang et al. 2020, https://arxiv.org/abs/1911.11815, section 5 (as a baseline).
    """

    kind: Literal["label_flip"] = "label_flip"
    classes: int | None = None
    """Classes of the task; an audit fills them in where they are absent."""

    def __post_init__(self) -> None:
        require.at_least(2, classes=self.classes)

    def rows(self, rows: Rows, source: Source) -> Rows:
        """The rows with these labels. Raises `Incompatible` for labels that are no classes, and
        where nobody says how many there are."""
        _require_classes(self.kind, rows)
        if self.classes is None:
            raise Incompatible("label_flip turns labels around; say among how many (`classes: N`)")
        return replace(rows, label=self.classes - 1 - rows.label)

    def sentence(self) -> str:
        """What it does."""
        among = "the" if self.classes is None else f"{self.classes}"
        return f"trains on labels turned around among {among} classes"


@dataclass(frozen=True, kw_only=True)
class PixelBackdoor(Attacker):
    """A square in a corner of some images, which then have one label: the model is to answer it
    wherever the square is.

    Source: Gu et al. 2017, https://arxiv.org/abs/1708.06733, section 4; in a federation Bagdasaryan
    et al. 2020, https://arxiv.org/abs/1807.00459.
    """

    kind: Literal["pixel_backdoor"] = "pixel_backdoor"
    target: int = 0
    """Label of images with the square."""
    size: int = 3
    """Side of the square, in pixels, at the end of rows and columns."""
    value: float = 1.0
    """What its pixels become, in the units of the features."""
    share: float = 0.5
    """Of the party's rows, drawn by its source."""

    def __post_init__(self) -> None:
        require.at_least(0, target=self.target)
        require.at_least(1, size=self.size)
        require.positive(share=self.share)

    def rows(self, rows: Rows, source: Source) -> Rows:
        """The rows with some of them stamped. Raises `Incompatible` for what are no images."""
        _require_classes(self.kind, rows)
        order = source.child("backdoor").stream().permutation(len(rows))
        chosen = order[: max(1, round(min(self.share, 1.0) * len(rows)))]
        features, label = rows.features.clone(), rows.label.clone()
        features[chosen] = self.stamped(features[chosen])
        label[chosen] = self.target
        return replace(rows, features=features, label=label)

    def stamped(
        self,
        images: Tensor,  # (N, …, height, width)
    ) -> Tensor:
        """The images with the square, which is how the backdoor is asked for. Raises
        `Incompatible` where a row has fewer than two sides, or shorter ones."""
        if images.dim() < 3 or min(images.shape[-2:]) < self.size:
            raise Incompatible(
                f"pixel_backdoor puts a square of {self.size} pixels into images, and a row has "
                f"shape {tuple(images.shape[1:])}; use it on images, or a smaller `size`"
            )
        found = images.clone()
        found[..., -self.size :, -self.size :] = self.value
        return found

    def sentence(self) -> str:
        """What it does."""
        return (
            f"stamps a square of {self.size} pixels on {self.share:.0%} of its images and calls "
            f"them {self.target}"
        )


def _require_classes(kind: str, rows: Rows) -> None:
    if rows.label.is_floating_point() or rows.label.dim() != 1:
        raise Incompatible(f"{kind} changes the class of a row, and these labels are no classes")

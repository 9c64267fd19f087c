"""Every certificate that an audit can ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from nacre.adversarial_training.certificates.extremes import longest
from nacre.adversarial_training.certificates.network import network_of
from nacre.adversarial_training.certificates.propagation import (
    interval_margins,
    linear_margins,
)
from nacre.adversarial_training.certificates.smoothing import VoteCount, certified_radii
from nacre.adversarial_training.certificates.steps import Network
from nacre.adversarial_training.evaluation.access import LabelOnly, Scorer
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.evaluation.untouched import untouched
from nacre.adversarial_training.threats.region import Region
from nacre.core import require
from nacre.core.random import Source

CertificateProgress = Callable[[int, int], None]
"""(rows decided, rows), at one region or at all of them."""


class Certificate(Protocol):
    """A proof, row by row, that no input of a region is answered wrongly.

    *Law:* `certify` is True for no row that an attack of the same model breaks inside the region,
    but with the probability `failure` for each row. Adding one is a class and a line in
    `CERTIFICATES`, over which the laws run.
    """

    @property
    def kind(self) -> str:
        """Its name in a recipe."""
        ...

    @property
    def failure(self) -> float:
        """How likely a row may be certified without being robust; 0 for a deterministic proof."""
        ...

    smooths: ClassVar[bool]
    """Whether the model that is certified is the smoothed one."""

    def sentence(self) -> str:
        """What is certified, with all its numbers."""
        ...

    def certify(
        self,
        model: nn.Module,
        regions: Sequence[Region],  # nested, the smallest first
        rows: Inputs,
        source: Source,
        shown: CertificateProgress | None = None,
    ) -> Tensor:
        """(G, R) bool: whether every input of the row's region is answered with its label; a row
        that is certified in a region is so in all before it. The model is left as it was."""
        ...


MarginBounds = Callable[[Network, Region, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class _Propagated:
    """Bounds carried through the layers."""

    failure: ClassVar[float] = 0.0
    smooths: ClassVar[bool] = False
    margins: ClassVar[MarginBounds]
    batch: ClassVar[int]  # rows at a time

    def certify(
        self,
        model: nn.Module,
        regions: Sequence[Region],
        rows: Inputs,
        source: Source,
        shown: CertificateProgress | None = None,
    ) -> Tensor:
        """(G, R) bool. Raises `Incompatible` for layers without a bound, by name."""
        network, margins = network_of(model, tuple(rows.clean.shape[1:])), type(self).margins
        found = torch.zeros(len(regions), len(rows), dtype=torch.bool)
        left, clean = torch.arange(len(rows)), rows.clean.detach().cpu()
        for place, region in enumerate(regions):
            # What is not certified here is not in a larger region; that a row fails here and
            # passes there is a looseness of the bounds, which is left alone.
            for part in left.split(self.batch):
                centre, label = clean[part], rows.label[part].cpu()
                least, rounding = margins(network, region, centre, label)
                found[place, part] = least > rounding
            left = left[found[place, left]]
            if shown is not None:
                shown(place + 1, len(regions))
        return found


@dataclass(frozen=True, kw_only=True)
class IBP(_Propagated):
    """Intervals carried forward through Linear, Conv2d and ReLU: cheap, and loose where a model
    was not trained for them (Gowal et al. 2018)."""

    kind: Literal["ibp"] = "ibp"

    margins: ClassVar[MarginBounds] = staticmethod(interval_margins)
    batch: ClassVar[int] = 256

    def sentence(self) -> str:
        """The method."""
        return "interval bounds carried through the layers (IBP)"


@dataclass(frozen=True, kw_only=True)
class CROWN(_Propagated):
    """Linear bounds carried back through Linear, Conv2d and ReLU: never looser than intervals,
    at the cost of a pass for each entry whose sign is open (Zhang et al. 2018)."""

    kind: Literal["crown"] = "crown"

    margins: ClassVar[MarginBounds] = staticmethod(linear_margins)
    batch: ClassVar[int] = 32

    def sentence(self) -> str:
        """The method."""
        return "linear bounds carried back through the layers (CROWN)"


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """Votes of the model under Gaussian noise (Cohen et al. 2019): for models of any kind. What is
    certified is the answer that wins the votes."""

    kind: Literal["smoothing"] = "smoothing"
    deviation: float
    """Of the noise on each entry of an input, in the model's scaled units: that of training."""
    samples: int = 10_000
    """Votes of each row; rows that are decided earlier take fewer. They bound the largest radius:
    10,000 votes allow 3.1 deviations."""
    guesses: int = 100
    """Votes that choose the class, before those that certify it."""
    failure: float = 0.001
    """How likely a row may get a radius that is too large, each row for itself."""

    smooths: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require.positive(deviation=self.deviation)
        require.at_least(1, guesses=self.guesses)
        require.at_least(100, samples=self.samples)
        require.between(0, 0.5, failure=self.failure)

    def sentence(self) -> str:
        """The method with its numbers."""
        return (
            f"{self.samples:,} votes under Gaussian noise of deviation {self.deviation:g} "
            f"(randomized smoothing, wrong for a row with probability at most {self.failure:g})"
        )

    def certify(
        self,
        model: nn.Module,
        regions: Sequence[Region],
        rows: Inputs,
        source: Source,
        shown: CertificateProgress | None = None,
    ) -> Tensor:
        """(G, R) bool: a region counts where its longest move is shorter than the radius."""
        clean = rows.clean.detach().cpu()
        lengths = torch.stack([longest(region, clean) for region in regions])
        with untouched(model):
            votes = LabelOnly(Scorer(model))
            radii, _ = certified_radii(votes, rows, lengths, self.count, source, shown)
        return radii > lengths

    @property
    def count(self) -> VoteCount:
        """How the votes are taken."""
        return VoteCount(
            deviation=self.deviation, samples=self.samples, guesses=self.guesses,
            failure=self.failure,
        )  # fmt: skip


CertificateOption = IBP | CROWN | Smoothing

CERTIFICATES = (IBP, CROWN, Smoothing)
"""Every certificate that a recipe can name; the laws run over them."""

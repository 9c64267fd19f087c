"""Attackers that send something else than what they trained."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import ClassVar, Literal

import torch
from torch import Tensor

from nacre.core import require
from nacre.core.random import Source
from nacre.core.tensors import norm, scale, subtract
from nacre.core.types import Tensors
from nacre.data.dataset import Rows
from nacre.federated_learning.attackers.attacker import Attacker, Seen
from nacre.federated_learning.attackers.rows import PixelBackdoor


@dataclass(frozen=True, kw_only=True)
class SignFlip(Attacker):
    """The opposite of its own change, `factor` times as long.

    Source: Li et al. 2019, https://arxiv.org/abs/1811.03761, section 5 (sign-flipping).
    """

    kind: Literal["sign_flip"] = "sign_flip"
    factor: float = 1.0
    """Length of the lie, in lengths of the true change."""

    def __post_init__(self) -> None:
        require.positive(factor=self.factor)

    def changes(self, seen: Seen) -> list[Tensors]:
        """-factor times each."""
        return [scale(change, -self.factor) for change in seen.own]

    def sentence(self) -> str:
        """What it does."""
        return f"sends the opposite of its change, {self.factor:g} times as long"


@dataclass(frozen=True, kw_only=True)
class GaussianLie(Attacker):
    """Independent normal numbers in place of a change.

    Source: Blanchard et al. 2017, https://arxiv.org/abs/1703.02757, section 6 (Gaussian attack).
    """

    kind: Literal["gaussian_noise"] = "gaussian_noise"
    deviation: float = 1.0
    """Of each number, in units of the weights."""

    def __post_init__(self) -> None:
        require.positive(deviation=self.deviation)

    def changes(self, seen: Seen) -> list[Tensors]:
        """Fresh ones for each party, keyed by the round."""
        return [
            {
                name: self.deviation * _normal(seen.source.child(place, name), value)
                for name, value in change.items()
            }
            for place, change in enumerate(seen.own)
        ]

    def sentence(self) -> str:
        """What it does."""
        return f"sends normal numbers of deviation {self.deviation:g}"


@dataclass(frozen=True, kw_only=True)
class ALittleIsEnough(Attacker):
    """All send the honest mean minus z honest deviations in each coordinate: inside the crowd, and
    on one side of it.

    With m of n at fault, z is the largest for which enough honest parties lie further out than the
    lie to make a majority with those at fault: the normal quantile of (n - m - s) / (n - m), where
    s = ⌊n / 2 + 1⌋ - m.

    Source: Baruch et al. 2019, https://arxiv.org/abs/1902.06156, section 3.
    """

    kind: Literal["alie"] = "alie"
    z: float | None = None
    """Deviations; by the formula where none is given."""

    omniscient: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.z is not None:
            require.positive(z=self.z)

    def deviations(self, cohort: int, bad: int) -> float:
        """z, as given or by the formula; 0 where those at fault need nobody or are too few."""
        if self.z is not None:
            return self.z
        honest = cohort - bad
        supporters = math.floor(cohort / 2 + 1) - bad
        share = (honest - supporters) / honest if honest else 0.0
        return max(0.0, NormalDist().inv_cdf(share)) if 0 < share < 1 else 0.0

    def changes(self, seen: Seen) -> list[Tensors]:
        """The same for all."""
        z = self.deviations(seen.cohort, len(seen.own))
        mean, spread = _mean(seen.known), _deviation(seen.known)
        lie = {name: value - z * spread[name] for name, value in mean.items()}
        return [lie for _ in seen.own]

    def sentence(self) -> str:
        """What it does."""
        z = "as many as the majority allows" if self.z is None else f"{self.z:g}"
        return f"sends the honest mean minus {z} honest deviations (ALIE)"


@dataclass(frozen=True, kw_only=True)
class InnerProduct(Attacker):
    """All send the opposite of the honest mean, `factor` times as long, so that the inner product
    of the true direction and the result is negative.

    Source: Xie et al. 2020, https://arxiv.org/abs/1903.03936, section 4.
    """

    kind: Literal["inner_product"] = "inner_product"
    factor: float = 0.5
    """Below 1 it looks small, far above 1 it overrules a mean."""

    omniscient: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require.positive(factor=self.factor)

    def changes(self, seen: Seen) -> list[Tensors]:
        """The same for all."""
        lie = scale(_mean(seen.known), -self.factor)
        return [lie for _ in seen.own]

    def sentence(self) -> str:
        """What it does."""
        return f"sends -{self.factor:g} times the honest mean (inner-product manipulation)"


@dataclass(frozen=True, kw_only=True)
class MinMax(Attacker):
    """All send the honest mean, moved against the honest deviations as far as no honest change is
    further from the lie than two honest changes are from each other.

    Source: Shejwalkar and Houmansadr 2021, https://doi.org/10.14722/ndss.2021.24498,
    equation 8, with the inverse standard deviation as perturbation; the factor in closed form.
    """

    kind: Literal["min_max"] = "min_max"

    omniscient: ClassVar[bool] = True

    def changes(self, seen: Seen) -> list[Tensors]:
        """The same for all."""
        mean, way = _mean(seen.known), scale(_deviation(seen.known), -1.0)
        factor = self.factor(seen.known, mean, way)
        lie = {name: value + factor * way[name] for name, value in mean.items()}
        return [lie for _ in seen.own]

    def factor(self, honest: Sequence[Tensors], mean: Tensors, way: Tensors) -> float:
        """The largest g for which mean + g way is within the largest honest distance of each honest
        change; 0 where way is zero.

        Each change asks for g² |way|² + 2g <way, mean - change> + |mean - change|² <= distance².
        """
        square = norm(way) ** 2
        if not square > 0:
            return 0.0
        farthest, found = _farthest(honest), math.inf
        for change in honest:
            off = subtract(mean, change)
            along = _inner(way, off)
            room = along**2 - square * (norm(off) ** 2 - farthest**2)
            found = min(found, (-along + math.sqrt(max(0.0, room))) / square)
        return max(0.0, found)

    def sentence(self) -> str:
        """What it does."""
        return "sends the honest mean moved as far as honest changes are apart (min-max)"


@dataclass(frozen=True, kw_only=True)
class ModelReplacement(Attacker):
    """Trains a backdoor and sends its change so much longer that it survives the mean.

    With n in the cohort and m at fault each sends n / m times its change, so the mean is a model of
    theirs, less the honest changes, which are small once the model has converged.

    Source: Bagdasaryan et al. 2020, https://arxiv.org/abs/1807.00459, equation 3.
    """

    kind: Literal["model_replacement"] = "model_replacement"
    boost: float | None = None
    """Times its own change; n / m where none is given."""
    backdoor: PixelBackdoor = field(default_factory=PixelBackdoor)
    """What it trains on."""

    def __post_init__(self) -> None:
        if self.boost is not None:
            require.positive(boost=self.boost)

    def rows(self, rows: Rows, source: Source) -> Rows:
        """Those of the backdoor."""
        return self.backdoor.rows(rows, source)

    def changes(self, seen: Seen) -> list[Tensors]:
        """Each its own, boosted."""
        boost = seen.cohort / len(seen.own) if self.boost is None else self.boost
        return [scale(change, boost) for change in seen.own]

    def sentence(self) -> str:
        """What it does."""
        boost = "n / m" if self.boost is None else f"{self.boost:g}"
        return f"{self.backdoor.sentence()}, and sends {boost} times its change (replacement)"


def _normal(source: Source, like: Tensor) -> Tensor:
    return source.stream().normal(*like.shape).float()


def _mean(changes: Sequence[Tensors]) -> Tensors:
    return {
        name: torch.stack([change[name].double() for change in changes]).mean(0).float()
        for name in changes[0]
    }


def _deviation(changes: Sequence[Tensors]) -> Tensors:
    """Coordinate by coordinate, of the changes as a whole population."""
    return {
        name: torch.stack([c[name].double() for c in changes]).std(0, correction=0).float()
        for name in changes[0]
    }


def _farthest(changes: Sequence[Tensors]) -> float:
    """The largest distance between two of them."""
    flat = [torch.cat([value.reshape(-1) for value in each.values()]) for each in changes]
    rows = torch.stack(flat).double()
    return float(torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").max())


def _inner(a: Tensors, b: Tensors) -> float:
    return sum(float((value.double() * b[name].double()).sum()) for name, value in a.items())

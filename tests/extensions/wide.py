"""A noise: independent normals, wider than their price by a declared factor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from nacre.core.parts import NoiseState
from nacre.core.random import Source
from nacre.core.types import Adjacency, BoundedSum, Release, Tensors
from nacre.differential_privacy.noise.independent import Gaussian
from nacre.differential_privacy.noise.unit_scale import require_multiplier


@dataclass(frozen=True, kw_only=True)
class Wide:
    """Gaussian noise of `factor` times the deviation that is paid for."""

    kind: Literal["wide"] = "wide"
    factor: float
    multiplier: float | None = None

    def __post_init__(self) -> None:
        require_multiplier(self.multiplier)

    def facts(self) -> dict[str, Any]:
        """Kind, multiplier and factor."""
        return {"kind": self.kind, "multiplier": self.multiplier, "factor": self.factor}

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any], steps: int) -> Self:
        """What `facts` described, uncalibrated."""
        return cls(factor=facts["factor"])

    def init(self, like: Tensors) -> NoiseState:
        """None: draws of different steps are independent."""
        return None

    def spread(self, step: int) -> float:
        """`factor`."""
        return self.factor

    def add(
        self,
        total: BoundedSum,
        state: NoiseState,
        source: Source,
        adjacency: Adjacency,
        *,
        consume: bool = False,
    ) -> tuple[Release, NoiseState]:
        """The noised sum in float32."""
        if self.multiplier is None:
            raise ValueError("multiplier=None: calibrate the mechanism before it is used")
        wider = Gaussian(multiplier=self.factor * self.multiplier)
        return wider.add(total, state, source, adjacency, consume=consume)


@dataclass(frozen=True, kw_only=True)
class WideNoise:
    """Independent noise that is wider than it has to be."""

    kind: Literal["wide"] = "wide"
    factor: float = 1.5
    """How many times as wide; at least 1."""

    made: ClassVar[type[Wide]] = Wide
    bands: ClassVar[int] = 1
    correlated: ClassVar[bool] = False
    added: ClassVar[str] = "noised sums are rounded as those of exact real numbers would be"
    rounding: ClassVar[str] = "Wide noise is exact, as Gaussian noise is."

    def __post_init__(self) -> None:
        if not self.factor >= 1:
            raise ValueError(f"factor={self.factor} must be at least 1")

    def sentence(self) -> str:
        """The noise, as the subject of a sentence."""
        return f"Gaussian noise {self.factor:g} times as wide as it is priced"

    def remembered(self, steps: int) -> int:
        """0: tensors that are kept from step to step."""
        return 0

    def unfit(self) -> str | None:
        """None: it is made on the processor."""
        return None

    def build(self, steps: int, cycle: int = 1) -> Wide:
        """The noise, without a multiplier until it is calibrated."""
        return Wide(factor=self.factor)

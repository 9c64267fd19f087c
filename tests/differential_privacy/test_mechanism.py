from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dp_accounting as dp
import pytest
from torch import Tensor

from nacre.core.errors import Unbounded
from nacre.core.types import Release, Tensors
from nacre.data.sampling import AllUnits, Poisson
from nacre.differential_privacy.mechanism import Budget, Mechanism
from nacre.differential_privacy.noise.independent import Gaussian, NoNoise


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NACRE_CACHE", str(tmp_path))


@dataclass(frozen=True)
class Clip:
    norm: float = 1.0

    def groups(self, names: Sequence[str]) -> list[list[str]]:
        return [list(names)]

    def factors(self, norms: Tensor) -> Tensor:
        return (self.norm / norms).clamp(max=1)

    def bound(self, groups: int) -> float:
        return self.norm

    def extras(self, norms: Tensor) -> Tensors:
        return {}

    def after(self, release: Release, expected: float) -> Clip:
        return self

    def moved(self) -> dict[str, float]:
        return {}

    def at(self, moved: Mapping[str, float]) -> Clip:
        return self


def mechanism(noise: Gaussian | NoNoise, steps: int = 20, norm: float = 1.0) -> Mechanism:
    return Mechanism(
        unit="example", sampling=Poisson(50, 200), clip=Clip(norm), noise=noise, steps=steps
    )


def test_event_and_price() -> None:
    made = mechanism(Gaussian(multiplier=2.0))
    step = dp.PoissonSampledDpEvent(0.25, dp.GaussianDpEvent(2.0))
    assert made.event() == dp.SelfComposedDpEvent(step, 20)
    assert made.event(3) == dp.SelfComposedDpEvent(step, 3)
    assert made.event(0) == dp.NoOpDpEvent()
    assert made.price(1e-5, "pld").epsilon < made.price(1e-5, "rdp").epsilon


def test_calibrated() -> None:
    made = mechanism(Gaussian())
    ready = made.calibrated(Budget(2.0, 1e-5))
    assert made.noise.multiplier is None, "the original is unchanged"
    assert 1.998 <= ready.price(1e-5).epsilon <= 2.0
    assert ready.noise.multiplier is not None
    by_rdp = made.calibrated(Budget(2.0, 1e-5), "rdp").noise.multiplier
    assert by_rdp is not None and by_rdp > ready.noise.multiplier


def test_norm_does_not_move_the_event() -> None:
    """The multiplier is in units of the sensitivity."""
    small, large = (mechanism(Gaussian(multiplier=1.0), norm=norm) for norm in (0.1, 10.0))
    assert small.event() == large.event()


def test_refusals() -> None:
    with pytest.raises(Unbounded, match="gradient_clipping"):
        mechanism(Gaussian(), norm=math.inf)
    with pytest.raises(ValueError, match="steps=0"):
        mechanism(Gaussian(), steps=0)
    public = mechanism(NoNoise("the rows are public"), norm=math.inf)
    assert public.price(1e-5).epsilon == math.inf
    with pytest.raises(ValueError, match="nothing to calibrate"):
        public.calibrated(Budget(1.0, 1e-5))


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0.0, 0.1), (math.inf, 0.1), (1.0, 0.0), (1.0, 1.0)]
)
def test_budget_is_checked(epsilon: float, delta: float) -> None:
    with pytest.raises(ValueError, match=r"epsilon=|delta="):
        Budget(epsilon, delta)


def test_client_level_full_participation() -> None:
    made = Mechanism(
        unit="client",
        adjacency="replace_one",
        sampling=AllUnits(3),
        clip=Clip(),
        noise=Gaussian(),
        steps=10,
    ).calibrated(Budget(5.0, 1e-2))
    assert made.price(1e-2).accountant == "closed"

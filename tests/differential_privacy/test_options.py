from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from nacre.core.errors import Incompatible
from nacre.differential_privacy.noise.correlated import Tree
from nacre.differential_privacy.noise.factorization import banded
from nacre.differential_privacy.noise.independent import Gaussian
from nacre.differential_privacy.options import BandedNoise, GaussianNoise, Privacy, TreeNoise


def test_defaults() -> None:
    privacy = Privacy(epsilon=2.0, delta=1e-5)
    assert (privacy.unit, privacy.adjacency, privacy.accountant) == (
        "example",
        "add_or_remove",
        "auto",
    )
    assert privacy.noise == GaussianNoise() and privacy.noise.build(10) == Gaussian()
    assert Privacy(epsilon=1, delta=0.1, unit="group", rows_per_unit=3).rows_per_unit == 3


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"epsilon": 0.0}, "epsilon=0.0"),
        ({"epsilon": math.inf}, "epsilon=inf"),
        ({"epsilon": math.nan}, "epsilon=nan"),
        ({"delta": 0.0}, "delta=0.0"),
        ({"delta": 1.0}, "delta=1.0"),
        ({"unit": "group", "rows_per_unit": 0}, "rows_per_unit=0"),
        ({"rows_per_unit": 2}, "unit=group"),
    ],
)
def test_values_are_checked(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Privacy(**({"epsilon": 1.0, "delta": 1e-5} | wrong))


def test_correlated_noise_is_built_for_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NACRE_CACHE", str(tmp_path))
    assert BandedNoise(bands=3, momentum=0.5).build(9).coefficients == banded(3, 9, 0.5)
    assert TreeNoise().build(9, 4) == Tree(steps=9, separation=4)
    with pytest.raises(Incompatible, match="`bands: 2` or fewer"):
        BandedNoise(bands=3).build(2)


@pytest.mark.parametrize(
    "values", [{"bands": 0}, {"bands": 2, "momentum": 1.0}, {"bands": 2, "decay": -0.1}]
)
def test_banded_noise_checks_its_numbers(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{list(values)[-1]}="):
        BandedNoise(**values)

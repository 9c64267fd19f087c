"""Our factors against those of JAX Privacy, which the authors of BandMF wrote."""

import numpy as np
import pytest

from nacre.differential_privacy.noise.factorization import banded, mean_squared_error, workload

# (steps, bands, how many times as small the deviation of prefix sums is as with independent noise):
# jax-privacy 2.0.0, `toeplitz.optimize_banded_toeplitz` of 1000 steps, `toeplitz.loss`, in float64.
GAINS = [
    (96, 2, 1.3702990128746684),
    (96, 8, 2.262343614272329),
    (1000, 16, 3.563440630465329),
    (1024, 1024, 7.40644907163736),
    (2000, 64, 6.171589712757979),
    (2048, 32, 4.888856470652182),
    (10_000, 100, 8.553747483139716),
]


@pytest.mark.parametrize(("steps", "bands", "gain"), GAINS)
def test_banded_noise_gains_what_its_authors_library_gains(
    steps: int, bands: int, gain: float
) -> None:
    work = workload(steps)
    ours = np.array(banded(bands, steps))
    alone = mean_squared_error(np.ones(1), work)
    assert np.sqrt(alone / mean_squared_error(ours, work)) == pytest.approx(gain, rel=1e-9)

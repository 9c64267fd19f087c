import pytest

from nacre.core.errors import DataError
from nacre.data.sampling import (
    AllUnits,
    BallsInBins,
    BallsInBinsSampling,
    CyclicPoisson,
    CyclicPoissonSampling,
    FixedSize,
    FixedSizeSampling,
    FullBatch,
    Poisson,
    PoissonSampling,
    Shuffled,
    ShuffledSampling,
)


def test_options_build_what_they_name():
    assert PoissonSampling().build(32, 313) == Poisson(32.0, 313)
    assert ShuffledSampling().build(32, 313) == Shuffled(32, 313)
    assert CyclicPoissonSampling().build(32, 313) == CyclicPoisson(32.0, 313, 1)
    assert CyclicPoissonSampling().build(32, 313, 8) == CyclicPoisson(32.0, 313, 8)
    assert CyclicPoissonSampling(cycle=9).build(32, 313, 8) == CyclicPoisson(32.0, 313, 9)
    assert CyclicPoisson(32.0, 256, 4).rate == 0.5
    assert FixedSizeSampling().build(32, 128) == FixedSize(32, 128)
    assert FixedSize(32, 128).rate == 0.25
    assert BallsInBinsSampling().build(32, 313) == BallsInBins(313, 9)
    assert BallsInBinsSampling(anew=True).build(32, 313) == BallsInBins(313, 9, anew=True)
    assert BallsInBins(313, 9).expected == pytest.approx(313 / 9)
    assert Shuffled(32, 313).epoch == 9
    assert FullBatch().build(32, 10) == AllUnits(10)
    assert Poisson(32.0, 128).rate == 0.25
    assert (Shuffled(32, 64).expected, AllUnits(10).expected) == (32.0, 10.0)


OPTIONS = [
    PoissonSampling(),
    CyclicPoissonSampling(),
    FixedSizeSampling(),
    ShuffledSampling(),
    BallsInBinsSampling(),
]


@pytest.mark.parametrize("option", OPTIONS)
def test_a_batch_larger_than_the_data_is_refused(option):
    with pytest.raises(DataError, match="batch=314 is larger than the declared size=313"):
        option.build(314, 313)


@pytest.mark.parametrize("option", [*OPTIONS, FullBatch()])
def test_sizes_are_at_least_one(option):
    with pytest.raises(ValueError, match="must be at least 1"):
        option.build(0, 0)


def test_a_group_that_holds_less_than_a_batch_is_refused():
    assert CyclicPoissonSampling(cycle=4).build(25, 100).rate == 1
    with pytest.raises(DataError, match="`batch: 25` or fewer"):
        CyclicPoissonSampling(cycle=4).build(26, 100)
    with pytest.raises(DataError, match="use a shorter cycle, 3 or less"):
        CyclicPoissonSampling(cycle=1000).build(26, 100)
    with pytest.raises(ValueError, match="cycle=0"):
        CyclicPoissonSampling(cycle=0)

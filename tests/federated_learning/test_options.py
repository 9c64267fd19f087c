"""What a recipe says about a federation, and when it is refused."""

import math

import pytest

from nacre.data.partition import Uniform
from nacre.federated_learning import (
    FederatedLearning,
    Local,
    MeanAggregate,
    Median,
    Plain,
    PlainGather,
    PoissonCohort,
    StopWhenFlat,
)

PARTIES = Uniform(names=("east", "north", "south"))


def test_all_parties_are_expected_unless_a_cohort_says_so():
    assert FederatedLearning(parties=PARTIES).expected() == 3.0
    cohort = PoissonCohort(expected=1.5)
    assert FederatedLearning(parties=PARTIES, cohort=cohort).expected() == 1.5


def test_the_default_is_fedavg():
    option = FederatedLearning(parties=PARTIES)
    assert option.gather.build(3.0) == Plain(MeanAggregate(), 3.0)
    assert (option.optimizer.kind, option.optimizer.lr, option.local.steps) == ("sgd", 1.0, 1)
    assert PlainGather(aggregate=Median()).build(2.0) == Plain(Median(), 2.0)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Local(steps=0), "steps=0 must be at least 1"),
        (lambda: FederatedLearning(parties=PARTIES, rounds=0), "rounds=0 must be at least 1"),
        (lambda: PoissonCohort(expected=0.0), "expected=0.0 must be > 0"),
        (lambda: PoissonCohort(expected=math.nan), "expected=nan must be > 0"),
        (
            lambda: FederatedLearning(parties=PARTIES, cohort=PoissonCohort(expected=4)),
            "expected=4 must be at most the number of parties, 3",
        ),
        (lambda: StopWhenFlat(patience=0), "patience=0 must be at least 1"),
        (lambda: StopWhenFlat(min_delta=-1.0), "min_delta=-1.0 must be at least 0"),
    ],
)
def test_values_that_make_no_sense_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("figures", "flat"),
    [
        ([], False),
        ([1.0], False),
        ([1.0, 0.9, 0.8], False),
        ([1.0, 1.0], False),
        ([1.0, 1.0, 1.0], True),
        ([1.0, 1.1, 0.85], False),
        ([0.5, 0.6, 0.45, 0.44], True),  # below the best so far, but by less than min_delta
        ([1.0, math.nan, math.nan], True),
    ],
)
def test_a_run_stops_once_the_figure_is_flat(figures, flat):
    assert StopWhenFlat(patience=2, min_delta=0.1).flat(figures) is flat
    turned = [-figure for figure in figures]
    assert StopWhenFlat(figure="accuracy", patience=2, min_delta=0.1).flat(turned) is flat

import math

import pytest
import torch
from scipy import stats

from nacre.adversarial_training.certificates import Smoothing
from nacre.adversarial_training.certificates.smoothing import (
    ABSTAINED,
    VoteCount,
    certified_radii,
    radius_of,
)
from nacre.adversarial_training.evaluation.access import LabelOnly, Scorer
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.core.errors import BadArgument
from nacre.core.random import Source

SOURCE = Source(bytes(32))
WEIGHT = torch.tensor([3.0, -4.0])  # of length 5
ROWS = 400


def line(x):
    score = x.double() @ WEIGHT.double()
    return torch.stack([-score, score], 1)


def inputs(count=ROWS):
    torch.manual_seed(1)
    clean = torch.randn(count, 2) * 0.6
    return Inputs(
        torch.arange(count), torch.arange(count), clean, (clean @ WEIGHT > 0).long()
    )  # fmt: skip


def votes(failure=0.001, samples=2000, deviation=0.5):
    return VoteCount(deviation=deviation, samples=samples, guesses=50, failure=failure)


def model(predict=line):
    return LabelOnly(Scorer(predict))


@pytest.mark.parametrize(("right", "seen"), [(80, 100), (990, 1000), (1000, 1000), (51, 100)])
def test_the_chance_behind_a_radius_explains_the_votes_just_so_often(right, seen):
    """Clopper & Pearson 1934: with that chance, so many votes or more have probability failure."""
    radius = radius_of(right, seen, 0.01, 2.0)
    if radius == ABSTAINED:
        assert stats.binom.sf(right - 1, seen, 0.5) > 0.01
    else:
        chance = stats.norm.cdf(radius / 2.0)
        assert stats.binom.sf(right - 1, seen, chance) == pytest.approx(0.01, rel=1e-6)


def test_no_votes_give_no_radius():
    assert radius_of(0, 100, 0.001, 1.0) == ABSTAINED
    assert radius_of(50, 100, 0.001, 1.0) == ABSTAINED


def test_radii_of_a_line_are_below_the_true_ones_as_often_as_promised():
    """The smoothed line is the line: its radius is the distance |w·x| / |w|. With failure 0.2 at
    most a share of 0.2 of the radii is too large; more than 117 of 400 has probability 1e-5."""
    rows = inputs()
    true = (rows.clean.double() @ WEIGHT.double()).abs() / 5
    found, _ = certified_radii(model(), rows, (), votes(failure=0.2), SOURCE)
    over = int((found > true).sum())
    assert stats.binom.sf(117, ROWS, 0.2) < 1e-5
    assert 0 < over <= 117
    sure, _ = certified_radii(model(), rows, (), votes(failure=1e-6), SOURCE)
    assert (sure <= true).all()
    close = (true < 1.0) & (true > 0.2)
    assert (found[close] / true[close]).mean() > 0.9


def test_a_wrong_answer_has_no_radius_and_costs_the_guesses_only():
    rows = inputs(20)
    wrong = Inputs(rows.place, rows.unit, rows.clean * 4, 1 - rows.label)
    far = (wrong.clean.double() @ WEIGHT.double()).abs() / 5 > 1.5  # three deviations
    found, taken = certified_radii(model(), wrong, (), votes(), SOURCE)
    assert (found[far] == ABSTAINED).all()
    assert (taken[far] == 50).all()


def test_neighbours_and_widths_change_nothing():
    rows = inputs(30)
    whole, _ = certified_radii(model(), rows, (0.25, 0.5), votes(), SOURCE)
    for row in (0, 11, 29):
        alone, _ = certified_radii(
            model(), rows.take(torch.tensor([row])), (0.25, 0.5), votes(), SOURCE
        )
        assert alone[0] == whole[row]


def test_ending_early_certifies_no_more_and_asks_less():
    rows, wanted = inputs(), (0.1, 0.3, 0.5)
    whole, most = certified_radii(model(), rows, (), votes(samples=10_000), SOURCE)
    early, taken = certified_radii(model(), rows, wanted, votes(samples=10_000), SOURCE)
    assert (early <= whole).all()
    for goal in wanted:
        lost = (whole > goal) & ~(early > goal)
        assert int(lost.sum()) <= 4  # 400 rows, each dropped with at most 0.002
    assert taken.sum() < 0.75 * most.sum()


def test_answers_that_are_no_numbers_count_against_the_row():
    found, _ = certified_radii(
        model(lambda x: torch.full((len(x), 2), math.nan)), inputs(5), (), votes(), SOURCE
    )
    assert (found == ABSTAINED).all()


def test_no_rows_give_no_radii():
    found, taken = certified_radii(model(), inputs(0), (0.5,), votes(), SOURCE)
    assert len(found) == len(taken) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"deviation": 0.0},
        {"deviation": math.nan},
        {"deviation": 1.0, "samples": 10},
        {"deviation": 1.0, "failure": 0.5},
        {"deviation": 1.0, "guesses": 0},
    ],
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(BadArgument):
        Smoothing(**wrong)

import math

import pytest
import torch
from scipy import stats

from nacre.adversarial_training.certificates import Smoothing
from nacre.adversarial_training.certificates.smoothing import (
    ABSTAINED,
    LOOKS,
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


def asked(*radii, of=ROWS):
    """(G, R): the same radii for every row."""
    return torch.tensor(radii).reshape(-1, 1).expand(-1, of)


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
    found, _ = certified_radii(model(), rows, asked(), votes(failure=0.2), SOURCE)
    over = int((found > true).sum())
    assert stats.binom.sf(117, ROWS, 0.2) < 1e-5
    assert 0 < over <= 117
    sure, _ = certified_radii(model(), rows, asked(), votes(failure=1e-6), SOURCE)
    assert (sure <= true).all()
    close = (true < 1.0) & (true > 0.2)
    assert (found[close] / true[close]).mean() > 0.9


def test_a_wrong_answer_has_no_radius_and_costs_the_guesses_only():
    rows = inputs(20)
    wrong = Inputs(rows.place, rows.unit, rows.clean * 4, 1 - rows.label)
    far = (wrong.clean.double() @ WEIGHT.double()).abs() / 5 > 1.5  # three deviations
    found, taken = certified_radii(model(), wrong, asked(of=20), votes(), SOURCE)
    assert (found[far] == ABSTAINED).all()
    assert (taken[far] == 50).all()


def test_neighbours_and_widths_change_nothing():
    rows = inputs(30)
    whole, _ = certified_radii(model(), rows, asked(0.25, 0.5, of=30), votes(), SOURCE)
    for row in (0, 11, 29):
        alone, _ = certified_radii(
            model(), rows.take(torch.tensor([row])), asked(0.25, 0.5, of=1), votes(), SOURCE
        )
        assert alone[0] == whole[row]


def test_ending_early_certifies_no_more_and_asks_less():
    rows, wanted = inputs(), (0.1, 0.3, 0.5)
    whole, most = certified_radii(model(), rows, asked(), votes(samples=10_000), SOURCE)
    early, taken = certified_radii(model(), rows, asked(*wanted), votes(samples=10_000), SOURCE)
    assert (early <= whole).all()
    for goal in wanted:
        lost = (whole > goal) & ~(early > goal)
        assert int(lost.sum()) <= 4  # 400 rows, each dropped with at most 0.002
    assert taken.sum() < 0.75 * most.sum()


@pytest.mark.parametrize("samples", [200, 2000])
def test_a_radius_that_no_votes_can_give_is_not_waited_for(samples):
    """Of 2,000 right votes p is at least .9966, which allows 2.7 deviations and no more."""
    rows = inputs(30)
    far = Inputs(rows.place, rows.unit, rows.clean.sign() * 9, rows.label)  # every vote is right
    far = far.take((rows.clean[:, 0] * rows.clean[:, 1] < 0).nonzero().squeeze(1))
    far = Inputs(far.place, far.unit, far.clean, (far.clean @ WEIGHT > 0).long())
    most = radius_of(samples, samples, 0.001 * LOOKS[-1][1], 0.5)
    never, few = certified_radii(
        model(), far, asked(1.001 * most, of=len(far)), votes(samples=samples), SOURCE
    )
    found, all_ = certified_radii(
        model(), far, asked(0.999 * most, of=len(far)), votes(samples=samples), SOURCE
    )
    assert (few == 50 + max(1, round(LOOKS[0][0] * samples))).all() and (all_ == 50 + samples).all()
    assert found.tolist() == pytest.approx([most] * len(far)) and (never < found).all()


def test_the_looks_share_the_failure():
    """Every look at the votes may be wrong with its own share, and they add up to the whole: by
    the union bound a radius that is the largest of three is wrong no more often than promised."""
    assert sum(share for _, share in LOOKS) == pytest.approx(1.0)
    assert LOOKS[-1][0] == 1.0 and [part for part, _ in LOOKS] == sorted(part for part, _ in LOOKS)


@pytest.mark.diagonal
@pytest.mark.parametrize("chance", [0.55, 0.8, 0.98])
@pytest.mark.parametrize("goals", [(), (0.2, 0.6)])
def test_the_chance_of_a_wrong_radius_is_below_the_failure(chance, goals):
    """The rule of looks and ends itself, over 4,000 sequences of coins in place of a model: the
    radius is that of a chance above the true one with probability at most `failure`."""
    runs, samples, failure = 4000, 300, 0.05

    class Coins:
        """Draws anew for each batch."""

        stream = torch.Generator().manual_seed(11)

        def labels(self, x):
            return (torch.rand(len(x), generator=self.stream) < chance).long()

    rows = Inputs(
        torch.arange(runs), torch.arange(runs), torch.zeros(runs, 1), torch.ones(runs).long()
    )
    count = VoteCount(deviation=1.0, samples=samples, guesses=1, failure=failure)
    found, _ = certified_radii(Coins(), rows, asked(*goals, of=runs), count, SOURCE)
    over = int((found > stats.norm.ppf(chance)).sum())
    assert stats.binom.sf(270, runs, failure) < 1e-6
    assert over <= 270
    assert (found > 0).any() or chance < 0.6


class Grain(torch.nn.Module):
    """Answers 1 where every entry near 0 is a multiple of 2**-29, as sums with 0.02 are in
    float32, and 0 where one is finer."""

    def forward(self, x):
        near = (x != 0) & (x.abs() < 2.0**-8)
        scaled = x.double() * 2.0**29
        coarse = ((scaled == scaled.round()) | ~near).all(1)
        return torch.stack([(~coarse).double(), coarse.double()], 1)


def test_noise_has_more_bits_than_the_model_reads():
    """Two inputs 1.26 apart that noise of 24 bits lets a model tell apart; with noise of deviation
    1 that would break a certificate of radius 2.4 for the first."""
    clean = torch.stack([torch.zeros(4000), torch.full((4000,), 0.02)])
    assert 1.2 < float((clean[1] - clean[0]).norm()) < 1.3
    stream = torch.Generator().manual_seed(3)
    coarse = clean[:, None] + torch.randn(2, 200, 4000, generator=stream)
    told = [Grain()(noisy).argmax(1) for noisy in coarse]
    assert (told[0] == 0).all() and (told[1] == 1).all()
    rows = Inputs(torch.arange(2), torch.arange(2), clean, torch.tensor([0, 0]))
    count = VoteCount(deviation=1.0, samples=400, guesses=20, failure=0.001)
    found, _ = certified_radii(model(Grain()), rows, asked(of=2), count, SOURCE)
    assert (found > 2).all()  # the answer is the same, so neither certificate is broken


def test_answers_that_are_no_numbers_count_against_the_row():
    found, _ = certified_radii(
        model(lambda x: torch.full((len(x), 2), math.nan)), inputs(5), asked(of=5), votes(), SOURCE
    )
    assert (found == ABSTAINED).all()


def test_no_rows_give_no_radii():
    found, taken = certified_radii(model(), inputs(0), asked(0.5, of=0), votes(), SOURCE)
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

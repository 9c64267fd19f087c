import pytest
import torch

from nacre.audit.data_privacy.thresholds import Scores, at_false_positives, fix, strongest
from nacre.core.random import Source

SOURCE = Source(bytes(range(32)))


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def normals(count, mean, label):
    return SOURCE.child(label).stream().normal(count) + mean


def by_hand(scores, threshold):
    tpr = (scores.members > threshold).double().mean()
    return float(tpr - (scores.outsiders > threshold).double().mean())


def test_the_threshold_has_the_largest_advantage_of_all():
    scores = Scores(normals(40, 1.0, "in"), normals(30, 0.0, "out"))
    fixed = fix(scores)
    everywhere = torch.cat([scores.members, scores.outsiders, numbers(-9.0, 9.0)])
    assert fixed.advantage == pytest.approx(max(by_hand(scores, t) for t in everywhere.tolist()))
    assert by_hand(scores, fixed.threshold) == pytest.approx(fixed.advantage)


def test_without_information_nobody_is_called_a_member():
    scores = Scores(numbers(1, 1, 1), numbers(1, 1, 1, 1))
    fixed = fix(scores)
    assert fixed.advantage == 0
    assert scores.counts(fixed.threshold).true_positives == 0


def test_of_equal_thresholds_the_one_that_accuses_fewest():
    assert fix(Scores(numbers(3, 1), numbers(2, 0))).threshold == 2  # as good as 0


def test_broken_scores_speak_for_no_one():
    scores = Scores.of(numbers(float("nan"), float("inf")), numbers(float("-inf"), 1))
    assert scores.members.isfinite().all() and scores.outsiders.isfinite().all()
    assert scores.counts(0.0).true_positives == 0
    assert scores.counts(0.0).false_positives == 1


def test_halves_part_the_rows_and_are_the_same_for_every_attack():
    scores = Scores(normals(11, 0, "in"), normals(8, 0, "out"))
    fixing, measuring = scores.halves(SOURCE)
    assert (len(fixing.members), len(measuring.members)) == (5, 6)
    assert (len(fixing.outsiders), len(measuring.outsiders)) == (4, 4)
    together = torch.cat([fixing.members, measuring.members]).sort().values
    assert torch.equal(together, scores.members.sort().values)
    doubled = Scores(2 * scores.members, 2 * scores.outsiders).halves(SOURCE)
    assert torch.equal(doubled[1].members, 2 * measuring.members)
    assert not torch.equal(scores.halves(SOURCE.child("other"))[0].members, fixing.members)


def test_balanced_takes_as_many_of_each():
    scores = Scores(normals(5, 0, "in"), normals(3, 0, "out")).balanced()
    assert (len(scores.members), len(scores.outsiders)) == (3, 3)


def test_the_strongest_is_chosen_by_advantage_and_the_first_of_equals():
    weak = Scores(numbers(0, 1), numbers(0, 1))
    strong = Scores(numbers(2, 3), numbers(0, 1))
    assert strongest({"weak": weak, "strong": strong})[0] == "strong"
    assert strongest({"b": weak, "a": weak})[0] == "b"


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5])
def test_a_threshold_keeps_its_false_positive_rate(rate):
    scores = Scores(normals(10, 0, "in"), normals(60, 0, "out"))
    threshold = at_false_positives(scores, rate)
    assert scores.counts(threshold).fpr <= rate
    lower = at_false_positives(scores, rate + 0.1)
    assert lower is not None and lower < threshold


def test_a_rate_that_the_sample_cannot_show():
    scores = Scores(normals(500, 0, "in"), normals(99, 0, "out"))
    assert at_false_positives(scores, 0.01) is None

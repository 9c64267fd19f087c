import math

import pytest
import torch

from nacre.core.types import BoundedSum, Noised, Release
from nacre.gradient_clipping import Adaptive


def _released(rule, below, above):
    """What a step without noise releases where so many units were below the norm, and above."""
    norms = torch.tensor([rule.norm] * below + [2 * rule.norm] * above).double()[:, None]
    return Release(rule.extras(norms), Noised(1.0))


def test_a_unit_at_the_norm_counts_as_below():
    rule = Adaptive(norm=2.0, share=0.5)
    answers = rule.extras(torch.tensor([[2.0], [2.1]]).double())
    assert answers[":below"].item() == 0.0
    assert rule.extras(torch.tensor([[2.0]]))[":below"].item() == pytest.approx(1.0, rel=1e-6)


def test_nobody_answers_zero_in_float32():
    nobody = Adaptive().extras(torch.zeros(0, 1))
    assert nobody.keys() == {":below"}
    assert (nobody[":below"].dtype, nobody[":below"].shape) == (torch.float32, torch.Size())
    assert nobody[":below"] == 0


def test_the_norm_moves_geometrically_towards_the_quantile():
    rule = Adaptive(norm=1.0, quantile=0.5, rate=0.2)
    up = rule.after(_released(rule, 2, 8), 10.0)
    assert up.norm == pytest.approx(math.exp(0.2 * 0.3), rel=1e-5)
    down = rule.after(_released(rule, 10, 0), 10.0)
    assert down.norm == pytest.approx(math.exp(-0.2 * 0.5), rel=1e-5)
    still = rule.after(_released(rule, 5, 5), 10.0)
    assert still == rule


def test_the_answers_count_over_the_declared_number_and_not_over_the_drawn_one():
    """4 of 4 drawn below, 10 declared: on average the others would have answered half and half."""
    rule = Adaptive(quantile=0.5, rate=1.0)
    assert rule.after(_released(rule, 4, 0), 10.0).norm == pytest.approx(math.exp(-0.2), rel=1e-5)


def test_a_wild_release_moves_the_norm_by_a_factor_of_e_at_most_and_never_out_of_range():
    rule = Adaptive(norm=1.0)
    for sign in (1, -1):
        wild = Release({":below": torch.tensor(sign * 1e30)}, Noised(1.0))
        assert rule.after(wild, 10.0).norm == pytest.approx(math.exp(-sign))
        for start in (1e-12, 1e12):
            moved = Adaptive(norm=start).after(wild, 1.0).norm
            assert 1e-12 <= moved <= 1e12


def test_the_bound_is_that_of_gradient_and_answer_together_and_moves_with_the_norm():
    rule = Adaptive(norm=0.3, share=0.75)
    assert rule.bound(1) == pytest.approx(0.3 * 1.25)
    moved = rule.at({"norm": 0.6})
    assert moved.bound(1) == pytest.approx(2 * rule.bound(1))
    assert BoundedSum({}, moved.bound(1)).sensitivity("replace_one") == 2 * moved.bound(1)


def test_a_checkpoint_gives_the_same_rule_to_the_last_bit():
    rule = Adaptive(norm=1.0)
    for below in (3, 9, 1, 4):
        rule = rule.after(_released(rule, below, 10 - below), 10.0)
    assert Adaptive(norm=1.0).at(rule.moved()) == rule
    assert repr(rule) != repr(Adaptive(norm=1.0)), "what enters a step is digested from this"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm": 0.0}, "norm=0.0"),
        ({"norm": 1e13}, "norm=1.*from 1e-12 to"),
        ({"rate": math.inf}, "rate=inf"),
        ({"share": 0.0}, "share=0.0"),
        ({"quantile": 0.0}, "quantile=0.0"),
        ({"quantile": 1.0}, "quantile=1.0"),
    ],
)
def test_options_that_make_no_rule_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Adaptive(**wrong)

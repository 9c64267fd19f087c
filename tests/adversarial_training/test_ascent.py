import pytest
import torch
from torch import nn

from nacre.adversarial_training import FGSM, PGD, Ball
from nacre.adversarial_training.attacks.ascent import evaluating
from nacre.core.random import Source
from nacre.core.types import FeatureSpace

SPACE = FeatureSpace((1,))


def _valley(model, batch):
    """A loss with a peak at 0.3, lower on both sides."""
    return -(batch["features"][:, 0] - 0.3).abs()


def _batch(*values):
    units = len(values)
    return {
        "features": torch.tensor(values)[:, None],
        "present": torch.ones(units, dtype=torch.bool),
        "unit": torch.arange(units),
    }


def _run(option, *values):
    attack = option.build(SPACE)
    moved = attack(nn.Identity(), _batch(*values), _valley, Source(bytes(32)))
    return moved["features"].flatten().tolist()


def test_one_long_step_that_overshoots_is_taken_back():
    assert _run(FGSM(ball=Ball(radius=1.0)), 0.2, 0.3) == pytest.approx([0.2, 0.3])


def test_small_steps_find_the_peak():
    climb = PGD(ball=Ball(radius=1.0), steps=50, step_size=0.05, random_start=False)
    assert _run(climb, 0.0, 0.9) == pytest.approx([0.3, 0.3], abs=0.05)


def test_the_best_point_on_the_way_is_kept_and_not_the_last():
    climb = PGD(ball=Ball(radius=1.0), steps=3, step_size=0.3, random_start=False)
    assert _run(climb, 0.0) == pytest.approx([0.3])


def test_more_restarts_never_find_less():
    few, many = PGD(ball=Ball(radius=1.0), steps=1), PGD(ball=Ball(radius=1.0), steps=1, restarts=9)
    values = (-0.5, 0.1, 0.8)
    short = [abs(x - 0.3) for x in _run(few, *values)]
    long = [abs(x - 0.3) for x in _run(many, *values)]
    assert all(b <= a for a, b in zip(short, long, strict=True))
    assert sum(long) < sum(short)  # each start is another one


def test_evaluating_restores_each_modules_own_mode():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout())).train()
    model[1].eval()
    with pytest.raises(KeyError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == [True, True, False, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"restarts": 0}, "restarts=0"),
        ({"step_size": 0.0}, "step_size=0.0 must be above 0"),
        ({"step_size": 2.5}, "step_size=2.5 must be above 0 and at most 2"),
        ({"restarts": 2, "random_start": False}, "restarts=2 from the clean input"),
    ],
)
def test_climbs_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PGD(ball=Ball(radius=1.0), **options)

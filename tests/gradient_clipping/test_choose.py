import pytest
import torch
from torch import nn

from nacre.adversarial_training import Standard
from nacre.core.errors import Incompatible, UnsupportedLayer
from nacre.gradient_clipping import Flat, Looped, Unclipped, Vmapped, Whole, choose
from tests.laws.zoo import MLP

FLAT = Flat(norm=1.0)


class Curious(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x) if x.sum() > 0 else self.head(-x)


def _choose(name, clip, model=None):
    objective, sample = Standard(MLP.task), MLP.batch(2)
    return choose(name, model=model or MLP.model(), objective=objective, clip=clip, sample=sample)


@pytest.mark.parametrize(
    ("name", "clip", "kind", "why"),
    [
        ("auto", Unclipped(), Whole, "no unit is clipped"),
        ("auto", FLAT, Vmapped, "the model can be differentiated for all units at once"),
        ("whole", Unclipped(), Whole, "asked for"),
        ("vmapped", FLAT, Vmapped, "asked for"),
        ("looped", FLAT, Looped, "asked for"),
        ("looped", Unclipped(), Looped, "asked for"),
    ],
)
def test_the_choice_and_its_reason(name, clip, kind, why):
    chosen, reason = _choose(name, clip)
    assert type(chosen) is kind
    assert reason.startswith(why)


def test_auto_falls_back_to_the_loop_and_says_why():
    chosen, why = _choose("auto", FLAT, Curious())
    assert type(chosen) is Looped
    assert why.startswith("Curious cannot be differentiated for all units at once (")


def test_what_was_asked_for_is_refused_rather_than_replaced():
    with pytest.raises(UnsupportedLayer, match="Curious cannot be differentiated"):
        _choose("vmapped", FLAT, Curious())
    with pytest.raises(Incompatible, match="gradients: auto"):
        _choose("whole", FLAT)


def test_trying_the_model_draws_no_global_random_numbers():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3)).train()
    before = torch.get_rng_state()
    _choose("auto", FLAT, model)
    assert torch.equal(torch.get_rng_state(), before)

"""Plain minibatches inside a party: the numbers of `fit`, whatever the model does on the way."""

import pytest
import torch
from torch import nn

from nacre.adversarial_training import PGD, Ball, Madry, Ramp
from nacre.adversarial_training.objectives import at
from nacre.core.errors import Incompatible
from nacre.core.parts import Objective
from nacre.core.random import Source
from nacre.core.swapped import unmoved
from nacre.core.tensors import detached, trainable
from nacre.core.types import FeatureSpace
from nacre.data.dataset import Rows, Schema
from nacre.data.sampling import AllUnits, Shuffled
from nacre.data.units import Units
from nacre.differential_privacy.mechanism import Mechanism
from nacre.differential_privacy.noise.independent import NoNoise
from nacre.federated_learning.local.kept import InMemory
from nacre.gradient_clipping import ByNorm, ByValue, Flat, Unclipped, Whole
from nacre.gradient_clipping.clipped_sum import UnitLosses
from nacre.models import task_for
from nacre.recipe.load import loads
from nacre.training import holders
from nacre.training.fit import NoJournal, fit
from nacre.training.holders import Setting, Workplace
from nacre.training.local.minibatches import LocalSteps, Minibatches
from nacre.training.planned import NOTHING
from nacre.training.step import Parts, State
from tests.training.tiny import FEDERATED, changed, text

SOURCE = Source(bytes(range(32)))


def _rows(count=24):
    stream = torch.Generator().manual_seed(1)
    return Rows(
        torch.randn(count, 4, generator=stream),
        torch.randint(3, (count,), generator=stream),
    )


def _model(*more):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), *more, nn.Linear(6, 3))


def _objective() -> Objective:
    from nacre.adversarial_training import Standard

    return Standard(task_for("classification", 3))


def _units(rows):
    return Units(rows, "example", None, SOURCE, numbered_by="place")


def _plain(model, rows, sampling, steps, shape=None, microbatch=None, lr=0.5):
    minibatches = Minibatches(UnitLosses(model, _objective()), shape is not None, microbatch)
    made = LocalSteps(_units(rows), sampling, 0, steps, SOURCE, b"asked", shape)
    minibatches.take(lambda: torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9), made)
    return detached(trainable(model))


def _fitted(model, rows, sampling, steps, shape=None, lr=0.5):
    objective = _objective()
    parts = Parts(
        sampling=sampling, sums=lambda step: Whole(objective), noise=NoNoise(because="a test"),
        adjacency="add_or_remove", shape=shape,
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    state = State(model, optimizer, Unclipped())
    fit(state, _units(rows), parts, until=steps, source=SOURCE, charge=NoJournal(), planned=NOTHING)
    return detached(trainable(model))


def _near(one, other, tolerance=1e-6):
    return all(torch.allclose(one[n], other[n], atol=tolerance, rtol=0) for n in one)


@pytest.mark.parametrize("sampling", [AllUnits(24), Shuffled(8, 24)], ids=["full", "shuffled"])
@pytest.mark.parametrize("shape", [None, ByNorm(norm=0.3), ByValue(limit=0.02)])
def test_they_are_the_steps_of_fit(sampling, shape):
    """Draws of a shuffle are keyed by the epoch alone, so both draw the same."""
    rows = _rows()
    found = _plain(_model(), rows, sampling, 5, shape)
    assert _near(found, _fitted(_model(), rows, sampling, 5, shape))
    assert _near(found, _plain(_model(), rows, sampling, 5, shape, microbatch=5))
    assert not _near(found, detached(trainable(_model())), 1e-2)


def test_a_growing_threat_is_that_of_fit_from_any_step_on():
    attack = PGD(ball=Ball(radius=0.5), steps=3, random_start=False)
    option = Madry(attack=attack, ramp=Ramp(share=1.0, radius=0.0, steps=1))
    objective = option.build(task_for("classification", 3), FeatureSpace((4,)))
    rows, draw, first, total = _rows(), AllUnits(24), 3, 9
    found, expected, whole = _model(), _model(), _model()

    def optimizer(model):
        return torch.optim.SGD(model.parameters(), lr=0.5)

    for model, run_steps in ((found, total), (whole, None)):
        steps = LocalSteps(_units(rows), draw, first, 4, SOURCE, b"asked")
        losses = UnitLosses(model, objective)
        own = Minibatches(losses, clips=False, microbatch=None, run_steps=run_steps)
        own.take(lambda model=model: optimizer(model), steps)
    parts = Parts(
        sampling=draw, sums=lambda step: Whole(at(objective, step / total)),
        noise=NoNoise(because="a test"), adjacency="add_or_remove",
    )  # fmt: skip
    fit(
        State(expected, optimizer(expected), Unclipped(), done=first), _units(rows), parts,
        until=first + 4, source=SOURCE, charge=NoJournal(), planned=NOTHING,
    )  # fmt: skip
    kept = [detached(trainable(model)) for model in (found, expected, whole)]
    assert _near(kept[0], kept[1])
    assert not _near(kept[0], kept[2], 1e-3)


def test_a_unit_whose_gradient_is_not_finite_is_left_out_as_by_fit():
    rows = _rows()
    rows.features[3] = float("inf")
    found = _plain(_model(), rows, AllUnits(24), 3)
    assert all(bool(value.isfinite().all()) for value in found.values())
    assert _near(found, _fitted(_model(), rows, AllUnits(24), 3))


def test_an_empty_draw_is_a_step_of_zeros():
    rows = Rows(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    found = _plain(_model(), rows, Shuffled(8, 8), 2)
    assert _near(found, detached(trainable(_model())), 0.0)


def test_the_same_request_gives_the_same_bits_with_dropout_too():
    one, again = (_plain(_model(nn.Dropout(0.5)), _rows(), AllUnits(24), 4) for _ in range(2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    before = torch.random.get_rng_state()
    _plain(_model(nn.Dropout(0.5)), _rows(), AllUnits(24), 1)
    assert torch.equal(before, torch.random.get_rng_state())


# -- where parties train, one after another ------------------------------------------------------


class _Written(nn.Module):
    """Keeps something of what it has seen, in one place or another."""

    def __init__(self, place):
        super().__init__()
        self.place, self.seen = place, 0.0
        self.register_buffer("kept", torch.zeros(1))
        self.part, self.last = nn.Linear(4, 3), torch.zeros(())

    def forward(self, rows):
        if self.place == "in place":
            out = self.part(rows) * (1 + self.last)
            self.last.copy_(rows.detach().abs().mean())
            return out
        if self.place == "attribute":
            out = self.part(rows) * (1 + self.seen)
            self.seen = float(rows.detach().abs().mean())
            return out
        return self.part(rows)


def _workplace(model, monkeypatch):
    base = changed(
        FEDERATED, {"differential_privacy": None, "gradient_clipping": None, "ledger": None}
    )
    recipe = loads(text(base, training__batch=8))

    def sums(recipe, model, *_):  # without the check that would refuse it; tried as there
        with unmoved(model):
            model(torch.ones(2, 4))
        return Whole(_objective()), "a test"

    monkeypatch.setattr(holders.pieces, "sums", sums)
    schema = Schema((4,), (), "classification", ("a", "b", "c"), -9, 9)
    return Workplace(Setting(recipe, schema, FeatureSpace((4,))), model)


def _change(place, name, rows, model):
    mechanism = Mechanism(
        unit="example", adjacency="add_or_remove", sampling=Shuffled(8, 24), clip=Unclipped(),
        noise=NoNoise(because="a test"), steps=8,
    )  # fmt: skip
    train = place.training(
        mechanism, rows, SOURCE.child("party", name), NoJournal(), NOTHING, InMemory()
    )
    return train(detached(trainable(model)), 0).total


@pytest.mark.parametrize("kept", ["attribute", "in place"])
def test_what_a_model_keeps_of_one_party_reaches_no_other(monkeypatch, kept):
    """Each step makes a new number where the one before stood, in the same memory or not."""
    model, other = _Written(kept), _rows()
    other.features.mul_(100.0)
    alone = _change(_workplace(model, monkeypatch), "b", _rows(), model)
    place = _workplace(model, monkeypatch)
    _change(place, "a", other, model)
    after = _change(place, "b", _rows(), model)
    assert all(torch.equal(alone[name], after[name]) for name in alone)


def test_a_buffer_that_a_party_writes_into_is_an_error(monkeypatch):
    """Under another name than the one that forward passes are given a copy of."""
    model = _Written("none")
    place = _workplace(model, monkeypatch)
    held, losses = place._own.kept, UnitLosses.forward
    monkeypatch.setattr(
        UnitLosses, "forward", lambda self, batch: held.data.add_(1.0) * 0 + losses(self, batch)
    )
    with pytest.raises(Incompatible, match="'kept' was written into"):
        _change(place, "a", _rows(), model)


@pytest.mark.parametrize("clip", [Unclipped(), Flat(norm=1e6)], ids=["minibatches", "fit"])
def test_a_threat_grows_over_the_local_steps_of_all_rounds(clip):
    attack = {"kind": "pgd", "steps": 2, "ball": {"radius": 0.5}, "random_start": False}
    whole = {"kind": "madry", "attack": attack}
    model, rows = _model(), _rows()

    clipping = None if isinstance(clip, Unclipped) else {"kind": "flat", "norm": clip.norm}

    def change(round_number, option):
        base = changed(
            FEDERATED,
            {"differential_privacy": None, "gradient_clipping": clipping, "ledger": None},
        )
        more = {} if option is None else {"adversarial_training": option}
        recipe = loads(text(base, training__batch=24, federated_learning__local__steps=1, **more))
        schema = Schema((4,), (), "classification", ("a", "b", "c"), -9, 9)
        place = Workplace(Setting(recipe, schema, FeatureSpace((4,))), model)
        mechanism = Mechanism(
            unit="example", adjacency="add_or_remove", sampling=AllUnits(24), clip=clip,
            noise=NoNoise(because="a test"), steps=4,
        )  # fmt: skip
        train = place.training(mechanism, rows, SOURCE, NoJournal(), NOTHING, InMemory())
        return train(detached(trainable(model)), round_number).total

    grown = whole | {"ramp": {"share": 0.75, "radius": 0.0}}
    assert _near(change(0, grown), change(0, None))
    assert _near(change(3, grown), change(3, whole))
    between = change(2, grown)
    assert not _near(between, change(2, None), 1e-4)
    assert not _near(between, change(2, whole), 1e-4)

"""No field of `Execution` moves the event, the price, or what a step draws and adds up to."""

import itertools
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from nacre.adversarial_training import PGD, Ball, Madry
from nacre.core.errors import Incompatible
from nacre.core.random import Source
from nacre.core.types import FeatureSpace
from nacre.data.dataset import Rows
from nacre.data.sampling import Poisson
from nacre.data.units import Units
from nacre.differential_privacy.noise.independent import NoNoise
from nacre.gradient_clipping import Flat, Vmapped
from nacre.models import MLP, build, task_for
from nacre.planning.plan import plan
from nacre.recipe.sections import Execution
from nacre.training.devices.portions import Devices
from nacre.training.step import Parts, State, entering, step
from tests.conftest import ALL
from tests.training.tiny import CENTRAL, FEDERATED, recipe

CHOICES = {
    "gradients": ("auto", "bookkeeping", "grouped", "ghost", "vmapped", "looped"),
    "verify": ("first", "always"),
    "precision": ("float32", "bfloat16"),
    "microbatch": (None, 7),
    "threads": (None,),
    "compile": (False,),  # True: tests/training/test_compiled.py
    "devices": ("auto",),  # of these two, all in a test of their own
    "portions": (None,),
    "workers": (None,),  # several: tests/laws/test_side_by_side.py
    "stacked": (None,),  # 2 and more: tests/laws/test_stacked.py
}


def test_every_field_is_tried():
    assert set(CHOICES) == {field.name for field in fields(Execution)}


@pytest.mark.slow
@pytest.mark.parametrize("base", [CENTRAL, FEDERATED], ids=["central", "federated"])
def test_no_field_moves_the_event(tmp_path, base):
    """Of the eight other settings of each sum four, in which all pairs of values meet, unless all
    are asked for."""
    asked = recipe(tmp_path, base)
    events = set()
    for number, values in enumerate(itertools.product(*CHOICES.values())):
        if number % 4 in ((0, 3), (1, 2))[number // 4 % 2] and not ALL:
            continue
        execution = Execution(**dict(zip(CHOICES, values, strict=True)))
        if execution.precision != "float32" and execution.gradients in ("vmapped", "looped"):
            with pytest.raises(Incompatible, match=r"`execution\.precision`: bfloat16 is for"):
                plan(replace(asked, execution=execution))
            continue
        planned = plan(replace(asked, execution=execution))
        events.add(
            repr([(h.mechanism.event(), h.price, h.account, h.quote) for h in planned.levels])
        )
    assert len(events) == 1


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["auto", "one", "replicated", "sharded"])
@pytest.mark.parametrize("portions", [None, 1, 8])
def test_neither_devices_nor_portions_move_the_event(tmp_path, devices, portions):
    asked = recipe(tmp_path, CENTRAL)
    execution = Execution(devices=devices, portions=portions)
    (one,), (other,) = plan(asked).levels, plan(replace(asked, execution=execution)).levels
    assert (one.mechanism, one.price, one.quote) == (other.mechanism, other.price, other.quote)


@pytest.mark.parametrize("portions", [2, 3, 8])
def test_portions_move_a_release_by_rounding_only(portions):
    """The same draw, the same starts of attacks; sums add in another order."""
    whole, dealt = _released(), _released(devices=Devices(portions=portions))
    for name, value in whole.items():
        torch.testing.assert_close(value, dealt[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("microbatch", [1, 3, 7, 100])
def test_microbatches_move_a_release_by_rounding_only(microbatch):
    """The same draw, the same starts of attacks; sums add in another order."""
    whole, split = _released(), _released(microbatch=microbatch)
    for name, value in whole.items():
        torch.testing.assert_close(value, split[name], rtol=1e-5, atol=1e-6)


def _released(**more):
    """What one step on made-up rows releases without noise."""
    generator = torch.Generator().manual_seed(0)
    rows = Rows(torch.randn(20, 4, generator=generator), torch.arange(20) % 2)
    task = task_for("classification", 2)
    attack = Madry(attack=PGD(ball=Ball(radius=0.5), steps=3))

    model = build(MLP(hidden=(5,)), (4,), 2, 0, Path())
    state = State(model, torch.optim.SGD(model.parameters(), lr=0.1), Flat(norm=0.3))
    objective = attack.build(task, FeatureSpace((4,)))
    parts = Parts(
        sampling=Poisson(12.0, 20),
        sums=lambda number: Vmapped(objective),
        noise=NoNoise(because="its noise is keyed by the sum, to the last bit"),
        adjacency="add_or_remove",
        **more,
    )
    root = Source(bytes(32))
    units = Units(rows, "example", None, root)
    return step(state, units, parts, root, entering(state, root))[1].total

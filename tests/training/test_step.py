"""The step: keyed by what enters it, noised even when nothing was drawn."""

import pytest
import torch
from torch import nn

from nacre.adversarial_training import Standard
from nacre.core.random import Source
from nacre.core.tensors import detached, trainable
from nacre.core.types import Noised, Release
from nacre.data.dataset import Rows
from nacre.data.sampling import AllUnits, Poisson
from nacre.data.units import Units
from nacre.differential_privacy.noise.independent import Gaussian, NoNoise
from nacre.gradient_clipping import ByValue, Flat, Looped, Unclipped, Vmapped, Whole
from nacre.models import task_for
from nacre.training.fit import fit
from nacre.training.planned import NOTHING
from nacre.training.step import Parts, State, _times, _update, entering
from nacre.training.step import step as one_step

ROOT = Source(bytes(32))
OBJECTIVE = Standard(task_for("classification", 2))


def _rows(count=8):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(count, 3, generator=generator)
    return Rows(features, (features.sum(1) > 0).long())


def _state(clip=None, lr=1.0):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return State(model, torch.optim.SGD(model.parameters(), lr=lr), clip or Flat(norm=1.0))


def _parts(sampling, noise=None, sums=None, **more):
    sums = sums or Looped(OBJECTIVE)
    return Parts(
        sampling=sampling,
        sums=lambda number: sums,
        noise=noise or Gaussian(multiplier=1.0),
        adjacency="add_or_remove",
        **more,
    )


def _units(rows):
    return Units(rows, "example", None, ROOT)


def step(state, units, parts, source, context=b""):
    return one_step(state, units, parts, source, entering(state, source, context))


def _weights(state):
    return detached(trainable(state.model))


def test_the_same_step_releases_the_same_numbers():
    parts, units = _parts(Poisson(4.0, 8)), _units(_rows())
    first = step(_state(), units, parts, ROOT)[1]
    again = step(_state(), units, parts, ROOT)[1]
    assert all(torch.equal(first.total[name], again.total[name]) for name in first.total)


@pytest.mark.parametrize("what", ["weights", "request", "step", "key"])
def test_another_step_draws_other_noise(what):
    """Two answers whose noise were equal would differ by the gradient alone."""
    parts, units = _parts(AllUnits(8)), _units(_rows(0))  # no unit: the release is noise alone
    first = step(_state(), units, parts, ROOT)[1]
    state, source, context = _state(), ROOT, b""
    if what == "weights":
        with torch.no_grad():
            state.model.bias[0] += 1e-7
    elif what == "request":
        context = b"another"
    elif what == "step":
        state = State(state.model, state.optimizer, state.clip, done=1)
    else:
        source = ROOT.child("another")
    other = step(state, units, parts, source, context)[1]
    assert not torch.equal(first.total["weight"], other.total["weight"])


@pytest.mark.parametrize("changed", [{"multiplier": 2.0}, {"bound": 2.0}])
def test_noise_of_another_size_is_other_noise(changed):
    """Else twice one release less the other would be the sum without any noise."""
    units = _units(_rows(0))
    first = step(_state(), units, _parts(AllUnits(8)), ROOT)[1]
    noise = Gaussian(multiplier=changed.get("multiplier", 1.0))
    state = _state(Flat(norm=changed.get("bound", 1.0)))
    other = step(state, units, _parts(AllUnits(8), noise), ROOT)[1]
    assert (first.how.deviation, other.how.deviation) == (1.0, 2.0)
    assert float((other.total["weight"] - 2 * first.total["weight"]).abs().max()) > 0.5


def test_an_empty_draw_is_noised_and_moves_the_weights():
    state = _state()
    before = _weights(state)
    state, release = step(state, _units(_rows(0)), _parts(Poisson(4.0, 8)), ROOT)
    assert isinstance(release.how, Noised)
    assert all(value.abs().sum() > 0 for value in release.total.values())
    after = _weights(state)
    moved = (before["bias"] - after["bias"]) * 4.0  # the declared size of a draw, not the actual
    torch.testing.assert_close(moved, release.total["bias"])


def test_the_mean_is_over_the_declared_number():
    rows = _rows(8)
    small, large = _state(), _state()
    release = step(small, _units(rows), _parts(AllUnits(8), NoNoise(because="test")), ROOT)[1]
    step(large, _units(rows), _parts(AllUnits(80), NoNoise(because="test")), ROOT)
    start = _weights(_state())
    for name, total in release.total.items():
        torch.testing.assert_close(start[name] - _weights(small)[name], total / 8)
        torch.testing.assert_close(start[name] - _weights(large)[name], total / 80)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_update_moves_weights_of_any_precision_and_leaves_the_release(dtype):
    model = nn.Linear(3, 2).to(dtype)
    before = {name: value.clone() for name, value in trainable(model).items()}
    total = {name: torch.ones(value.shape) for name, value in before.items()}
    release = Release({**total, ":below": torch.tensor(3.0)}, Noised(1.0))
    _update(model, torch.optim.SGD(model.parameters(), lr=1.0), release, _parts(AllUnits(8)))
    for name, value in trainable(model).items():
        torch.testing.assert_close(
            before[name] - value, torch.full_like(value, 1 / 8), rtol=0.02, atol=0.01
        )
        assert value.dtype == dtype and value.grad is None
        assert torch.equal(release.total[name], torch.ones(value.shape))


def test_riding_entries_are_not_clipped_with_the_mean():
    model = nn.Linear(3, 2)
    total = {name: torch.ones(value.shape) for name, value in trainable(model).items()}
    release = Release({**total, ":below": torch.tensor(3.0)}, Noised(1.0))
    start = _weights(State(model, None, None))
    parts = _parts(AllUnits(1), shape=ByValue(limit=0.5))
    _update(model, torch.optim.SGD(model.parameters(), lr=1.0), release, parts)
    for name, value in trainable(model).items():
        torch.testing.assert_close(start[name] - value, torch.full_like(value, 0.5))


def test_what_is_journalled_cannot_be_told_without_the_key():
    state = _state()
    same = entering(state, ROOT)
    assert same == entering(_state(), Source(bytes(32)))
    assert same != entering(state, Source.fresh())
    assert same != ROOT.digest("sum", trainable(state.model), 0, repr(state.clip), b"")


@pytest.mark.parametrize("sums", [Looped, Vmapped])
def test_microbatches_change_nothing(sums):
    units = _units(_rows())
    plain = NoNoise(because="noise is keyed by the sum, to the last bit")
    whole = step(_state(), units, _parts(AllUnits(8), plain, sums(OBJECTIVE)), ROOT)[1]
    parts = step(_state(), units, _parts(AllUnits(8), plain, sums(OBJECTIVE), microbatch=3), ROOT)[
        1
    ]
    for name in whole.total:
        torch.testing.assert_close(whole.total[name], parts.total[name])


def test_whole_batch_clipping_acts_on_the_released_mean():
    """Whatever the microbatches: it sees the sum over all of them."""
    results = []
    for micro in (None, 3):
        state = _state(Unclipped())
        noise = NoNoise(because="test")
        clip = ByValue(limit=1e-3)
        parts = _parts(AllUnits(8), noise, Whole(OBJECTIVE), shape=clip, microbatch=micro)
        start = _weights(state)
        step(state, _units(_rows()), parts, ROOT)
        results.append({n: start[n] - v for n, v in _weights(state).items()})
    assert max(float(v.abs().max()) for v in results[0].values()) == pytest.approx(1e-3, rel=1e-3)
    for name in results[0]:
        torch.testing.assert_close(results[0][name], results[1][name])


def test_dropout_is_keyed_and_leaves_the_global_generator_alone():
    def train():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        state = State(model.train(), torch.optim.SGD(model.parameters(), lr=1.0), Flat(norm=1.0))
        torch.manual_seed(1)
        before = torch.get_rng_state()
        step(state, _units(_rows()), _parts(AllUnits(8)), ROOT)
        assert torch.equal(before, torch.get_rng_state())
        return _weights(state)

    first, again = train(), train()
    assert all(torch.equal(first[name], again[name]) for name in first)


class _Journal:
    def __init__(self):
        self.steps = []
        self.entered = []

    def journal(self, step, entered):
        self.steps.append(step)
        self.entered.append(entered)


def test_fit_journals_each_step_before_it_is_released():
    journal, seen = _Journal(), []

    def observe(state, release):
        seen.append((state.done, list(journal.steps)))
        return state.done == 3

    state = fit(
        _state(), _units(_rows()), _parts(AllUnits(8)), until=5, source=ROOT, charge=journal,
        planned=NOTHING, observe=observe,
    )  # fmt: skip
    assert state.done == 3
    assert seen == [(1, [1]), (2, [1, 2]), (3, [1, 2, 3])]
    assert len(set(journal.entered)) == 3


def test_fit_goes_on_where_it_stopped():
    whole = fit(
        _state(),
        _units(_rows()),
        _parts(AllUnits(8)),
        until=4,
        source=ROOT,
        charge=_Journal(),
        planned=NOTHING,
    )
    half = fit(
        _state(),
        _units(_rows()),
        _parts(AllUnits(8)),
        until=2,
        source=ROOT,
        charge=_Journal(),
        planned=NOTHING,
    )
    rest = fit(
        half,
        _units(_rows()),
        _parts(AllUnits(8)),
        until=4,
        source=ROOT,
        charge=_Journal(),
        planned=NOTHING,
    )
    for name, value in _weights(whole).items():
        assert torch.equal(value, _weights(rest)[name])


def test_two_sums_never_meet_the_same_noise():
    """Else who changes rows or code behind a step's back subtracts the noise from two answers."""
    rows = _rows()
    other = Rows(rows.features * 2, rows.label)
    parts = _parts(AllUnits(8))
    plain = _parts(AllUnits(8), NoNoise(because="test"))
    noise = []
    for some in (rows, other):
        released = step(_state(), _units(some), parts, ROOT)[1].total["weight"]
        noise.append(released - step(_state(), _units(some), plain, ROOT)[1].total["weight"])
    assert (noise[0] - noise[1]).abs().max() > 0.1


@pytest.mark.parametrize("form", ["plain", "float64", "columns"])
def test_gradients_have_the_type_and_layout_of_the_parameter(form):
    """Where they are those of the release, all are scaled by one call; the numbers are the same."""
    values = [torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.ones(4)]
    like = {str(i): value.clone() for i, value in enumerate(values)}
    if form == "float64":
        like = {name: value.double() for name, value in like.items()}
    elif form == "columns":
        like["0"] = like["0"].t().contiguous().t()
    for value, parameter, found in zip(
        values, like.values(), _times(values, 1 / 3, like), strict=True
    ):
        assert found.dtype == parameter.dtype and found.stride() == parameter.stride()
        assert torch.equal(found, torch.mul(value, 1 / 3, out=torch.empty_like(parameter)))
        assert found.data_ptr() != value.data_ptr(), "the release is left as it is"

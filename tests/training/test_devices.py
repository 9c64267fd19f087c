"""Several processes do what one does: the same sums, the same releases, the same bits."""

import functools
import itertools
import os
import signal

import pytest
import torch
from torch import nn

from nacre.adversarial_training import PGD, Ball, Madry, Standard
from nacre.core.errors import BudgetExceeded
from nacre.core.optimizers import SGD, Adagrad, Adam, AdamW, Yogi
from nacre.core.random import Source
from nacre.core.tensors import detached, trainable
from nacre.core.types import BoundedSum, FeatureSpace
from nacre.data.dataset import Rows
from nacre.data.sampling import Poisson
from nacre.data.units import Units
from nacre.differential_privacy.noise.independent import Gaussian, NoNoise
from nacre.gradient_clipping import Flat, Looped, Vmapped
from nacre.models import task_for
from nacre.runs import checkpoint
from nacre.training.devices import portions as sharing
from nacre.training.devices.group import Group
from nacre.training.devices.portions import Devices, nodes
from nacre.training.devices.sharded import Sharded
from nacre.training.fit import Agreed, NoJournal, fit
from nacre.training.planned import NOTHING
from nacre.training.step import Parts, State, entering, step
from tests.training.processes import raised, several

pytestmark = pytest.mark.slow

ROOT = Source(bytes(32))
TASK = task_for("classification", 2)
KINDS = {"replicated": Devices, "sharded": Sharded}


# -- the tree --------------------------------------------------------------------------------------


@pytest.mark.parametrize("portions", range(1, 10))
@pytest.mark.parametrize("size", range(1, 6))
def test_the_processes_cover_every_portion_once(portions, size):
    held = [nodes(portions, rank, size) for rank in range(size)]
    leaves = [leaf for some in held for start, stop in some for leaf in range(start, stop)]
    assert leaves == list(range(portions))


def _portion(number):
    """Sums whose last bits depend on the order in which they are added."""
    random = torch.Generator().manual_seed(number)
    total = {"a": torch.randn(7, 3, generator=random), "b": torch.randn(11, generator=random)}
    return BoundedSum(total, 1.0)


def _totals(group, buckets):
    found = {}
    like = _portion(0).total
    for portions, sharing._BUCKET in itertools.product((1, 2, 3, 4, 8), buckets):
        total = Devices(group, portions).total(lambda: BoundedSum.zero(like, 1.0), _portion)
        found[portions, sharing._BUCKET] = torch.cat([t.view(-1) for t in total.total.values()])
    return found


@pytest.mark.parametrize("size", [2, 3])
def test_a_sum_has_the_same_bits_for_any_number_of_processes(size):
    buckets = (5, 21, 1 << 23)
    alone = _totals(Group(), buckets)
    for found in several(size, _totals, buckets):
        for key, value in alone.items():
            assert torch.equal(value, found[key]), key


def test_the_order_of_adding_shows_in_the_bits():
    """The test above would otherwise prove nothing."""
    alone = _totals(Group(), [1 << 23])
    backwards = sum(reversed([_portion(i).total["b"] for i in range(8)]), torch.zeros(11))
    assert not torch.equal(alone[8, 1 << 23][-11:], backwards)


# -- the step --------------------------------------------------------------------------------------


class _Small(nn.Module):
    """A tied weight, a frozen one, an odd number of rows, and one row for two processes."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, 5)
        self.again = nn.Linear(5, 5, bias=False)
        self.again.weight = self.inner.weight
        self.outer = nn.Linear(5, 2)
        self.shift = nn.Parameter(torch.full((1,), 0.1))
        self.outer.bias.requires_grad_(False)

    def forward(self, inputs):
        hidden = self.again(torch.tanh(self.inner(inputs)))
        return self.outer(torch.tanh(hidden) + self.shift)


def _model():
    torch.manual_seed(0)
    return _Small()


def _units(count=40):
    random = torch.Generator().manual_seed(1)
    features = torch.randn(40, 5, generator=random)[:count]
    return Units(Rows(features, (features.sum(1) > 0).long()), "example", None, ROOT)


def _parts(kind, noise, shared):
    standard = Standard(TASK)
    sums = {
        "looped": Looped(standard),
        "vmapped": Vmapped(standard),
        "attacked": Vmapped(Madry(attack=PGD(ball=Ball(radius=0.3), steps=2)).build(
            TASK, FeatureSpace((5,))
        )),
    }  # fmt: skip
    return Parts(
        sampling=Poisson(16.0, 40), sums=lambda number: sums[kind], noise=noise,
        adjacency="add_or_remove", microbatch=7, devices=shared,
    )  # fmt: skip


def _trained(shared, sums, noise, optimizer, steps):
    """Weights and the optimizer's state after some steps, whole."""
    model = _model()
    moved = optimizer.build(shared.place(model).values())
    state = State(model, moved, Flat(norm=0.5))
    parts = _parts(sums, noise, shared)
    charge = Agreed(shared.group, NoJournal())
    fit(state, _units(), parts, until=steps, source=ROOT, charge=charge, planned=NOTHING)
    shared.gather()
    found = detached(checkpoint.collected(model, moved, shared))
    assert "model.again.weight" in found
    return found


NOISED, PLAIN = Gaussian(multiplier=0.5), NoNoise(because="the sums are compared")
CASES = [
    ("looped", NOISED, AdamW(lr=0.1)),
    ("vmapped", NOISED, SGD(lr=0.1, momentum=0.9, weight_decay=0.01)),
    ("attacked", NOISED, Adam(lr=0.1)),
    ("vmapped", PLAIN, SGD(lr=0.1)),
    ("looped", NOISED, Yogi(lr=0.1)),
    ("looped", NOISED, Adagrad(lr=0.1)),
]


def _cases(group, kind):
    return [_trained(KINDS[kind](group, 4), *case, 4) for case in CASES]


@functools.cache
def _alone():
    return _cases(Group(), "replicated")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [2, 3])
def test_training_in_several_processes_is_training_in_one(kind, size):
    """Weights, and the optimizer's state, are the same bits, in each of the cases."""
    for process in several(size, _cases, kind):
        for (sums, _, optimizer), found, alone in zip(CASES, process, _alone(), strict=True):
            case = f"{sums}, {optimizer.kind}"
            assert found.keys() == alone.keys(), case
            assert all(torch.equal(found[name], alone[name]) for name in alone), case


def _released(group, kind, portions):
    shared = KINDS[kind](group, portions) if kind else Devices(group, portions)
    model = _model()
    optimizer = torch.optim.SGD(shared.place(model).values(), lr=0.1)
    state = State(model, optimizer, Flat(norm=0.5))
    before = entering(state, ROOT)
    return step(state, _units(), _parts("looped", PLAIN, shared), ROOT, before)[1].total


@pytest.mark.parametrize("kind", KINDS)
def test_the_sum_of_two_processes_is_that_of_one_which_deals_nothing(kind):
    alone = _released(Group(), "", 1)
    for found in several(2, _released, kind, 2):
        for name, value in alone.items():
            assert (found[name] - value).abs().max() <= 1e-6


def test_one_unit_more_moves_nobody_elses_portion():
    few, many = _units(39), _units(40)
    assert torch.equal(few.numbers(torch.arange(39)), many.numbers(torch.arange(39)))


# -- what is kept in parts -------------------------------------------------------------------------


def _memory(group):
    model = nn.Sequential(nn.Linear(300, 200), nn.Tanh(), nn.Linear(200, 101))
    shared = Sharded(group, 2)
    optimizer = torch.optim.AdamW(shared.place(model).values(), lr=0.1)
    shared.scatter()
    held = sum(p.untyped_storage().nbytes() for p in model.parameters())
    for shard in shared.moved(model).values():
        shard.grad = torch.zeros_like(shard)
    optimizer.step()
    state = [t.to_local() for slots in optimizer.state.values() for t in list(slots.values())[1:]]
    shared.gather()
    shared.gather()
    whole = sum(p.untyped_storage().nbytes() for p in model.parameters())
    return held, sum(t.numel() for t in state), whole


def test_a_process_keeps_its_part_of_weights_and_state():
    numbers = 300 * 200 + 200 + 200 * 101 + 101
    found = several(2, _memory)
    assert all(held == 0 and whole >= 4 * numbers for held, _, whole in found)
    assert sum(state for _, state, _ in found) == 2 * numbers
    assert abs(found[0][1] - found[1][1]) <= 2 * (200 + 1)


def _resumed(group, kind, path):
    """Two more steps from a checkpoint, and what is written then."""
    shared = KINDS[kind](group, 4)
    model = _model()
    optimizer = AdamW(lr=0.1).build(shared.place(model).values())
    tensors, done, _ = checkpoint.read(path)
    checkpoint.put_back(path, tensors, model, optimizer, shared)
    shared.adopt()
    state = State(model, optimizer, Flat(norm=0.5), done=done)
    fit(
        state, _units(), _parts("looped", NOISED, shared), until=done + 2, source=ROOT,
        charge=Agreed(group, NoJournal()), planned=NOTHING,
    )  # fmt: skip
    shared.gather()
    written = checkpoint.collected(model, optimizer, shared)
    facts = group.broadcast(lambda: str(checkpoint.write(path.parent, written, done + 2, {})))
    return path.with_name(facts.rpartition("/")[2])


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_of_two_goes_on_in_one_and_back(tmp_path, kind):
    model = _model()
    alone = _trained(Devices(Group(), 4), "looped", NOISED, AdamW(lr=0.1), 7)
    optimizer = AdamW(lr=0.1).build(trainable(model).values())
    state = State(model, optimizer, Flat(norm=0.5))
    parts = _parts("looped", NOISED, Devices(Group(), 4))
    fit(state, _units(), parts, until=1, source=ROOT, charge=NoJournal(), planned=NOTHING)
    path = checkpoint.save_checkpoint(tmp_path, model, optimizer, 1, {})
    path = several(2, _resumed, kind, path)[0]
    path = _resumed(Group(), "replicated", path)
    path = several(2, _resumed, kind, path)[0]
    tensors, done, _ = checkpoint.read(path)
    assert done == 7
    assert all(torch.equal(tensors[name], alone[name]) for name in alone)


# -- what cannot be shared -------------------------------------------------------------------------


class _Scalar(nn.Module):
    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))


def _refused(group):
    return [
        raised(lambda: Devices(group, 2).place(nn.BatchNorm1d(3))),
        raised(lambda: Sharded(group, 2).place(nn.BatchNorm1d(3))),
        raised(lambda: Sharded(group, 2).place(_Scalar())),
    ]


def test_models_that_processes_cannot_share_are_refused():
    for statistics, same, scalar in several(2, _refused):
        assert statistics == same
        assert statistics[0] == scalar[0] == "Incompatible"
        assert "one process" in statistics[1]
        assert "'temperature' is a single number" in scalar[1]
    assert Devices().place(nn.BatchNorm1d(3))


# -- the group -------------------------------------------------------------------------------------


def _spoken(group):
    other = {"a": torch.arange(6.0).view(2, 3), "n": torch.tensor([True]), "e": torch.empty(0, 2)}
    shared = group.broadcast_tensors(other if group.first else {})
    return (
        group.on_rank_zero(lambda: "done", "elsewhere"),
        group.broadcast(lambda: {"rank": group.rank}),
        group.all_or_raise(lambda: group.rank),
        group.require_equal("nothing", bytes(32)),
        all(torch.equal(shared[name], value) for name, value in other.items()),
    )


def test_the_first_process_tells_the_others():
    alone = _spoken(Group())
    assert alone == ("done", {"rank": 0}, 0, None, True)
    first, second = several(2, _spoken)
    assert first == alone
    assert second == ("elsewhere", {"rank": 0}, 1, None, True)


def _failing(group, where):
    def work():
        if group.rank == where:
            raise BudgetExceeded("the grant is spent")
        return 1

    told = raised(lambda: group.all_or_raise(work))
    if where == 0:
        assert told == raised(lambda: group.on_rank_zero(work, 1))
    return told


@pytest.mark.parametrize("where", [0, 1])
def test_what_fails_in_one_process_ends_all(where):
    """The first tells of it, as its own error or as that of the process that failed."""
    first, second = several(2, _failing, where)
    assert first == (
        ("BudgetExceeded", "the grant is spent")
        if where == 0
        else ("NacreError", "process 1: the grant is spent")
    )
    assert second == ("Elsewhere", "the grant is spent")


def _unexpected(group):
    def work():
        if group.rank:
            raise MemoryError("nothing left")

    return raised(lambda: group.all_or_raise(work))


def test_an_error_that_nobody_foresaw_ends_all():
    sentence = "MemoryError: nothing left"
    assert several(2, _unexpected) == [
        ("NacreError", f"process 1: {sentence}"), ("Elsewhere", sentence)
    ]  # fmt: skip


def _apart(group):
    return raised(lambda: group.require_equal("the rows", bytes([group.rank]) * 32))


def test_processes_with_other_rows_are_refused():
    first, second = several(2, _apart)
    assert first[0] == "RunError"
    assert "do not agree on the rows" in first[1]
    assert second[0] == "Elsewhere"


def _bereaved(group):
    if group.rank:
        os.kill(os.getpid(), signal.SIGKILL)
    return raised(lambda: group.all_or_raise(lambda: None))


def test_a_process_that_dies_ends_the_others_with_a_sentence():
    first, second = several(2, _bereaved)
    assert second == "died"
    assert first[0] == "NacreError"
    assert "another process of this run has ended" in first[1]


def _drifted(group):
    model = _model()
    if group.rank:
        with torch.no_grad():
            model.shift += 1e-6
    state = State(model, torch.optim.SGD(trainable(model).values(), lr=0.1), Flat(norm=0.5))
    parts = _parts("looped", NOISED, Devices(group, 2))
    charge = Agreed(group, NoJournal())
    return raised(
        lambda: fit(state, _units(), parts, until=1, source=ROOT, charge=charge, planned=NOTHING)
    )


def test_weights_that_drifted_apart_are_found_before_a_release():
    first, _ = several(2, _drifted)
    assert "do not agree on the weights that enter a step" in first[1]

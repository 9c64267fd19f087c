"""A loop of one's own in two processes takes the steps of one, or none."""

import atexit
import os
import re
import signal
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Subset, TensorDataset

from nacre.core.errors import Incompatible, RunError
from nacre.core.random import Source
from nacre.core.tensors import detached, trainable
from nacre.core.types import BoundedSum
from nacre.differential_privacy.options import Privacy
from nacre.gradient_clipping import Adaptive
from nacre.integrations import account
from nacre.ledger import Ledger
from nacre.report.evidence import check_releases
from nacre.training.fit import Journalled
from tests.forks import served
from tests.integrations.declared import KEY, book, linear, private, same, sgd, table
from tests.training.processes import PATIENCE, free_port, raised, several, variables

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"
FENCED = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PEOPLE = tuple(f"p{place * 7 % 30:02}" for place in range(120))  # 30 people of four rows each
BY_PERSON = {
    "privacy": Privacy(unit="group", rows_per_unit=3, epsilon=8, delta=1e-4),
    "size": 30, "batch": 10, "groups": PEOPLE, "column": "patient",
}  # fmt: skip
CASES = {
    "rows": {},
    "people": BY_PERSON,
    "halves": {"precision": "bfloat16", "microbatch": 7, "clip": Adaptive(norm=1.0)},
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2))


def begun(place: Path, case: str):
    """A run of which step 4 was taken and step 3 saved; its weights after step 4."""
    model = network()
    optimizer = sgd(model)
    declared = CASES[case] | {"folder": place / case, "portions": 2}
    with private(place, model, optimizer, **declared) as run:
        for step in run:
            if step == 3:
                run.save({"by": "step 3"})
            if step == 4:
                break
    return detached(trainable(model))


def ended(place: Path, case: str):
    """The same run, gone on with to its end."""
    model = network()
    declared = CASES[case] | {"folder": place / case}
    with private(place, model, sgd(model), resume=True, **declared) as run:
        found = run.done, run.extra, run.first, run.epsilon()
        assert list(run) == [4, 5, 6]
        return *found, run.finish(), detached(trainable(model))


def roomy(place: Path) -> Path:
    """A place of its own for each run, so that each has an account."""
    place.mkdir(parents=True, exist_ok=True)
    return place


def undisturbed(place: Path, case: str):
    model = network()
    with private(place, model, sgd(model), portions=2, **CASES[case]) as run:
        list(run)
    return detached(trainable(model))


class Failing(TensorDataset):
    """Rows that can be fetched until they are asked to fail."""

    broken = False

    def __getitem__(self, index):
        if self.broken:
            raise OSError("the disk of this process is gone")
        return super().__getitem__(index)


def _two(group, place):
    """What two processes come to: the runs of all cases, then everything that is refused."""
    account.os = _Known()
    os.chdir(place)
    found = {}
    for case in CASES:
        at = place / case
        group.on_rank_zero(partial(roomy, at), None)
        found[case] = begun(at, case), ended(at, case) if case != "halves" else None
    told = []

    group.on_rank_zero(partial(roomy, place / "none"), None)

    def refused(**changed):
        told.append(raised(lambda: private(place / "none", **changed)))

    features, label = table().tensors
    own = linear()
    if group.rank:
        with torch.no_grad():
            own.bias += 1e-6
    refused(model=own)
    other = TensorDataset(features + 1e-6 * group.rank, label)
    refused(dataset=other)
    refused(dataset=Subset(table(), range(group.rank, 120, 2)))
    people = (*PEOPLE[:-1], PEOPLE[-1] if group.rank else "another")
    refused(**BY_PERSON | {"groups": people})
    refused(steps=6 + group.rank)
    slow = linear()
    rate = torch.optim.SGD(slow.parameters(), lr=0.5 - group.rank / 4)
    refused(model=slow, optimizer=rate)
    refused(batch=30 if group.first else 0)
    refused(model=DistributedDataParallel(linear()))

    group.on_rank_zero(partial(roomy, place / "drift"), None)
    model = linear()
    optimizer = sgd(model)
    with private(place / "drift", model, optimizer, steps=3) as run:
        run.step()
        optimizer.param_groups[0]["lr"] = 0.5 + group.rank  # by which the weights part
        run.step()
        told.append(raised(run.finish))
        told.append(raised(run.step))
    group.on_rank_zero(partial(roomy, place / "broken"), None)
    rows = Failing(*table().tensors)
    with private(place / "broken", dataset=rows, steps=3) as run:
        run.step()
        rows.broken = bool(group.rank)
        told.append(raised(run.step))
    return found, told


class _Known:
    """`os` with a key that tests know."""

    def __getattr__(self, name):
        return (lambda count: KEY[:count]) if name == "urandom" else getattr(os, name)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The place, and what both processes have found there."""
    place = tmp_path_factory.mktemp("two")
    return place, several(2, _two, place)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_come_to_the_weights_of_one_that_deals_alike(two, tmp_path, known_key, case):
    _, both = two
    alone = begun(tmp_path, case)
    for found, _ in both:
        assert same(found[case][0], alone)


@pytest.mark.parametrize("case", ["rows", "people"])
def test_a_run_of_two_that_was_interrupted_ends_as_one_undisturbed(two, tmp_path, known_key, case):
    place, both = two
    alone = undisturbed(tmp_path, case)
    for rank, (found, _) in enumerate(both):
        done, extra, first, before, spent, weights = found[case][1]
        assert (done, extra, first) == (3, {"by": "step 3"}, rank == 0)
        assert 0 < before < spent <= 8  # a step that was taken again is paid once
        assert same(weights, alone)
    (run,) = book(place / case).runs
    assert (run.steps, run.journalled, run.end) == (6, 6, "settled")
    assert [part["as_planned"] for part in check_releases(place / case / case)] == [True]
    assert not (place / case / case / "local" / "run.key").exists()


def test_a_run_of_two_goes_on_in_one(two, known_key, tmp_path):
    """Its portions are those that it began with, whoever sums them."""
    place, _ = two
    done, extra, first, _, _, weights = ended(place / "halves", "halves")
    assert (done, extra, first) == (3, {"by": "step 3"}, True)
    assert same(weights, undisturbed(tmp_path, "halves"))


def test_another_number_of_portions_is_another_run(tmp_path):
    private(tmp_path, folder=tmp_path / "run", portions=2).close()
    with pytest.raises(RunError, match=r"portions=3, and the run in .* deals its draws into 2"):
        private(tmp_path, folder=tmp_path / "run", portions=3, resume=True)


REFUSED = [
    ("RunError", "do not agree on the model as it begins", "torch.manual_seed"),
    ("RunError", "do not agree on the rows", "in one order"),
    ("RunError", "do not agree on the rows", "no part for each rank"),
    ("RunError", "do not agree on the rows", "in one order"),
    ("RunError", "do not agree on what they declare", "the same arguments"),
    ("RunError", "do not agree on what they declare", "the same optimizer"),
    ("NacreError", "process 1: batch=0", "at least 1"),
    ("Incompatible", "wrapped in DistributedDataParallel", "`model.module`"),
    ("RunError", "do not agree on the weights that the steps have left", "together"),
    ("RunError", "do not agree on the weights that enter a step", "together"),
    ("NacreError", "process 1: the data set raised OSError", "the disk of this process is gone"),
]


def test_what_would_not_belong_together_is_refused_in_both(two):
    place, ((_, first), (_, second)) = two
    assert len(first) == len(second) == len(REFUSED)
    for (kind, words, remedy), told, elsewhere in zip(REFUSED, first, second, strict=True):
        assert told[0] == kind and words in told[1] and remedy in told[1], told
        assert elsewhere[0] == "Elsewhere", elsewhere
    assert not list((place / "none").iterdir())  # nothing charged
    for name, steps in (("drift", 2), ("broken", 1)):  # nothing left beyond what was journalled
        with Ledger.open(place / name / "privacy.db") as ledger:
            assert ledger.summary("rows").runs[0].journalled == steps


def _dies(group, place):
    account.os = _Known()
    model = network()
    optimizer = sgd(model)
    with private(place, model, optimizer, folder=place / "run", **CASES["rows"]) as run:
        for step in run:
            if step == 3:
                run.save({"by": "step 3"})
            if step == 4 and group.rank:
                os.kill(os.getpid(), signal.SIGKILL)
            if step == 4:
                return raised(run.step)
    raise AssertionError


def test_a_process_that_dies_ends_the_other_and_the_run_goes_on(tmp_path, known_key):
    first, second = several(2, _dies, roomy(tmp_path / "dies"))
    assert second == "died"
    assert first[0] == "NacreError"
    assert "another process of this run has ended" in first[1] and "`resume=True`" in first[1]
    (tmp_path / "dies" / "run").rename(tmp_path / "dies" / "rows")
    weights = ended(tmp_path / "dies", "rows")[-1]
    assert same(weights, undisturbed(roomy(tmp_path / "alone"), "rows"))


def test_models_that_share_by_themselves_are_refused(tmp_path):
    for model in (nn.DataParallel(linear()), nn.Sequential(nn.DataParallel(linear()))):
        with pytest.raises(Incompatible, match="wrapped in DataParallel"):
            private(tmp_path, model)
    assert not (tmp_path / "privacy.db").exists()


def _follows_the_page(rank, port, folder, own_group):
    """The first two blocks of the page, as a script that `torchrun` started in this process."""
    os.environ.update(variables(rank, 2, port))
    os.chdir(folder)
    torch.set_num_threads(1)
    with Path(f"said-{rank}.txt").open("w") as said, redirect_stdout(said):
        if own_group:  # as one of nccl: it carries nothing that the processor's memory holds
            dist.init_process_group("cuda:gloo")
        names = {}
        for block in FENCED.findall(PAGE.read_text())[:2]:
            exec(block, names)
        if own_group:
            dist.destroy_process_group()
        atexit._run_exitfuncs()  # which a forked process leaves out
        print("groups left:", dist.is_initialized())


@pytest.mark.parametrize("own_group", [False, True])
def test_the_loop_of_the_page_runs_unchanged_in_two_processes(tmp_path, own_group):
    port = free_port()
    processes = [
        served().Process(target=_follows_the_page, args=(rank, port, tmp_path, own_group))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in processes] == [0, 0]
    first, second = (tmp_path / f"said-{rank}.txt" for rank in range(2))
    assert first.read_text() == second.read_text()
    assert first.read_text().splitlines()[1:] == [
        "True", "20", "True", "30 30 settled", "groups left: False"
    ]  # fmt: skip


def _without_noise_of_sums(group, place, count):
    """The sums of a run over the first `count` rows, and its weights; each noise is that of a sum
    of zeros under a known key, so that two runs differ by their sums alone."""
    account.os = _Known()
    sums, added = [], Journalled.add

    def add(self, total, state, source, adjacency, *, consume=False):
        sums.append(({name: value.clone() for name, value in total.total.items()}, total.bound))
        nothing = BoundedSum.zero(total.total, total.bound)
        known = Source(KEY).child("step", self.step)
        return added(self, nothing, state, known, adjacency, consume=consume)

    model, rows = network(), TensorDataset(*(part[:count] for part in table().tensors))
    Journalled.add = add
    try:
        with private(place, model, sgd(model), rows, folder=place / "run", portions=3) as run:
            list(run)
    finally:
        Journalled.add = added
    return sums, detached(trainable(model))


def test_one_unit_moves_the_sums_of_several_processes_by_its_share(tmp_path):
    """Two processes with three portions, with a row and without it: each process has the same
    sums, a row moves them by the bound at most, and nothing outside `local/` tells of it."""
    found, files = [], []
    for count in (120, 119):
        place = roomy(tmp_path / str(count))
        found.append(several(2, _without_noise_of_sums, place, count))
        files.append({
            str(file.relative_to(place)): file.read_bytes()
            for file in sorted((place / "run").rglob("*"))
            if file.is_file() and "local" not in file.parts
        })  # fmt: skip
    moved = []
    for (sums, weights), (others, other_weights) in zip(*found, strict=True):
        assert same(weights, other_weights)
        for (total, bound), (less, same_bound), (first, _) in zip(
            sums, others, found[0][0][0], strict=True
        ):
            assert same(total, first)
            assert bound == same_bound
            apart = sum((total[name] - less[name]).double().square().sum() for name in total)
            moved.append(float(apart.sqrt()) / bound)
    assert len(moved) == 2 * 6
    assert 0.1 < max(moved) <= 1 + 1e-5
    for name in files[0].keys() & files[1].keys():
        if name.endswith((".safetensors", "released.jsonl")):
            assert files[0][name] == files[1][name], name
    assert files[0].keys() == files[1].keys()

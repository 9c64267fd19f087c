"""Parties in one process, by objects or through bytes, and in worker processes: the same bits; and
whatever dies on the way, the run goes on to them.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from nacre.core.errors import CallFailed, RunError
from nacre.core.files import load_tensors
from nacre.federated_learning import OnDemand, Reply, RoundRequest
from nacre.planning.plan import plan
from nacre.runs.run import train
from nacre.runs.workers import parties
from nacre.runs.workers.pool import Pool, Trained
from nacre.runs.workers.shared import Shared
from tests.conftest import ALL
from tests.training.tiny import FEDERATED, StopAfter, Stopped, changed, recipe

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NAMES = {"federated_learning.parties.names": ["a", "b", "c", "d", "e"], "training.batch": 12}
EXAMPLE = changed(FEDERATED, NAMES)
CLIENT = changed(
    EXAMPLE,
    {
        "differential_privacy.unit": "client",
        "federated_learning.few_clients": True,
    },
)
BOTH = changed(
    CLIENT,
    {
        "differential_privacy.delta": 0.1,
        "ledger.grant.delta": 0.1,
        "within_parties": {
            "differential_privacy": EXAMPLE["differential_privacy"],
            "gradient_clipping": EXAMPLE["gradient_clipping"],
        },
        "ledger.grant_within_parties": EXAMPLE["ledger"]["grant"],
    },
)
NOTHING = changed(
    EXAMPLE, {"differential_privacy": None, "gradient_clipping": None, "ledger": None}
)
MODEL = """
from torch import nn

def made(width):
    return nn.Sequential(nn.Linear(4, width), nn.Dropout(0.2), nn.Linear(width, 3))
"""
CALLED = changed(
    NOTHING, {"model": {"kind": "python", "call": "ours:made", "arguments": {"width": 5}}}
)
REMEMBERED = {
    "federated_learning.local": {"steps": 2, "controls": True, "proximal": 0.1},
    "federated_learning.compression": {"kind": "top_k", "share": 0.4},
}
PERSONAL = {"federated_learning.local": {"steps": 2, "personal": ["head"]}}
ATTACK = {"kind": "madry", "attack": {"kind": "pgd", "ball": {"radius": 0.2}, "steps": 3}}
RAMP = {"share": 1.0, "radius": 0.1, "steps": 1}
GROWING = {"adversarial_training": {**ATTACK, "ramp": RAMP}}
KINDS = {
    "example": EXAMPLE,
    "client": CLIENT,
    "both": BOTH,
    "nothing": NOTHING,
    "called": CALLED,
    "example, remembering": changed(EXAMPLE, REMEMBERED),
    "client, remembering": changed(CLIENT, REMEMBERED),
    "example, with layers of their own": changed(EXAMPLE, PERSONAL),
    "client, with layers of their own": changed(CLIENT, PERSONAL),
    "nothing, with layers of their own": changed(NOTHING, PERSONAL),
    "example, a threat that grows": changed(EXAMPLE, GROWING),
    "client, a threat that grows": changed(CLIENT, GROWING),
}


class _Bytes(OnDemand):
    """The parties through bytes, as a deployment asks them."""

    def exchange(self, request: RoundRequest, cohort: Sequence[str]) -> Mapping[str, Reply | bytes]:
        data = request.to_bytes()
        return self.ask({name: data for name in cohort})


@pytest.fixture(autouse=True)
def same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """All keys of all runs are the same bytes, so that two runs can be compared."""
    monkeypatch.setattr(os, "urandom", lambda count: bytes(range(count)))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Workers are waited for before the first round; gives the parties that they trained."""
    theirs: list[str] = []
    trained, take = Pool.trained, Pool._take

    def waiting(self: Pool, *given: Any) -> dict[str, Trained]:
        self.wait()
        return trained(self, *given)

    def taking(self: Pool, worker: Any, found: dict[str, Trained]) -> None:
        before = set(found)
        take(self, worker, found)
        theirs.extend(set(found) - before)

    monkeypatch.setattr(Pool, "trained", waiting)
    monkeypatch.setattr(Pool, "_take", taking)
    return theirs


def _ran(folder: Path, base: dict[str, Any], workers: int = 1) -> dict[str, torch.Tensor]:
    folder.mkdir()
    (folder / "ours.py").write_text(MODEL)
    made = recipe(folder, changed(base, {"execution.workers": workers, "execution.threads": 1}))
    run = train(plan(made), folder / "run")
    found = load_tensors(run.path / "model.safetensors")[0]
    for path in sorted(run.folder.personal.glob("*/model.safetensors")):
        own = load_tensors(path)[0]
        found |= {f"{path.parent.name}: {name}": value for name, value in own.items()}
    return found


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


# Each kind starts workers: four ways are tried, and with ALL=1 each.
TRIED = (
    "both",
    "called",
    "client, with layers of their own",
    "example, a threat that grows",
)


@pytest.mark.parametrize("kind", KINDS if ALL else TRIED)
def test_objects_bytes_and_workers_give_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patient: list[str], kind: str
) -> None:
    # The number of workers is part of the recipe, whose digest keys the run: set it aside.
    monkeypatch.setattr(parties, "workers_of", lambda planned: 1)
    monkeypatch.setattr("nacre.runs.run.workers_of", lambda planned: workers)
    workers = 1
    base = KINDS[kind]
    alone = _ran(tmp_path / "alone", base)
    workers = 3
    beside = _ran(tmp_path / "beside", base)
    assert patient, "no worker trained any party"
    assert _same(alone, beside)
    workers = 1
    monkeypatch.setattr(parties, "OnDemand", _Bytes)
    assert _same(alone, _ran(tmp_path / "bytes", base))


@pytest.mark.parametrize("kind", ["example", "client"])
def test_a_threat_that_grows_in_a_federation_is_another_than_a_whole_one(
    tmp_path: Path, kind: str
) -> None:
    whole = changed(KINDS[kind], {"adversarial_training": ATTACK})
    growing = _ran(tmp_path / "growing", KINDS[f"{kind}, a threat that grows"])
    assert not _same(growing, _ran(tmp_path / "whole", whole))


def test_an_error_in_a_worker_is_the_error_of_the_run(tmp_path: Path, patient: list[str]) -> None:
    failing = """
import os
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = nn.Linear(4, 3)

    def forward(self, rows):
        if len(rows) == 12 and os.environ.get("OMP_NUM_THREADS") == "1" and "child" in _main():
            raise ValueError("no more")
        return self.part(rows)

def _main():
    import __main__
    return str(getattr(__main__, "__file__", ""))

def made():
    return Net()
"""
    (tmp_path / "theirs.py").write_text(failing)
    base = changed(
        NOTHING, {"model": {"kind": "python", "call": "theirs:made"},
                  "execution": {"workers": 2, "threads": 1}},
    )  # fmt: skip
    with pytest.raises(CallFailed, match="no more"):
        train(plan(recipe(tmp_path, base)), tmp_path / "run")


def test_a_worker_that_dies_is_told_and_the_run_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patient: list[str]
) -> None:
    monkeypatch.setattr("nacre.runs.run.workers_of", lambda planned: workers)
    workers = 1
    alone = _ran(tmp_path / "alone", CLIENT)
    workers, given = 2, Pool._give

    def killing(self: Pool, worker: Any, name: str, job: Any) -> None:
        given(self, worker, name, job)
        if self._serial == 3:
            worker.process.kill()

    monkeypatch.setattr(Pool, "_give", killing)
    with pytest.raises(RunError, match="ended by signal 9 while it trained party"):
        _ran(tmp_path / "killed", CLIENT)
    monkeypatch.setattr(Pool, "_give", given)
    folder = tmp_path / "killed"
    made = recipe(folder, changed(CLIENT, {"execution.workers": 1, "execution.threads": 1}))
    run = train(plan(made, resume=folder / "run"), folder / "run", resume=True)
    assert _same(alone, load_tensors(run.path / "model.safetensors")[0])


def test_no_worker_outlives_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patient: list[str]
) -> None:
    started: list[int] = []
    start = Pool._started

    def noting(self: Pool, *given: Any) -> Any:
        worker = start(self, *given)
        started.append(worker.process.pid)
        return worker

    monkeypatch.setattr(Pool, "_started", noting)
    base = changed(CLIENT, {"execution.workers": 3, "execution.threads": 1})
    with pytest.raises(Stopped):  # as an interrupt does
        train(plan(recipe(tmp_path, base)), tmp_path / "run", observe=StopAfter(2))
    assert len(started) == 2 and not any(_runs(pid) for pid in started)


SCRIPT = """
import signal
import sys
from pathlib import Path
from nacre.planning.plan import plan
from nacre.runs.run import train
from nacre.runs.workers.pool import Pool
from tests.laws.test_side_by_side import CLIENT
from tests.training.tiny import changed, recipe

trained = Pool.trained
def telling(self, *given):
    self.wait()
    print(*(worker.process.pid for worker in self._workers), flush=True)
    found = trained(self, *given)
    sys.stdin.readline()  # nobody answers
    return found
Pool.trained = telling
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test in the background ignores it
folder = Path(sys.argv[1])
base = changed(CLIENT, {"execution.workers": 2, "execution.threads": 1})
train(plan(recipe(folder, base)), folder / "run")
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_killed_leaves_no_worker_and_its_script_needs_no_guard(
    tmp_path: Path, ending: signal.Signals
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as run:
        assert run.stdout is not None
        workers = [int(pid) for pid in run.stdout.readline().split()]
        assert len(workers) == 1 and all(_runs(pid) for pid in workers)
        run.send_signal(ending)
        run.wait(60)
    until = time.monotonic() + 60
    while any(_runs(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(_runs(pid) for pid in workers)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_shared_memory_holds_the_same_numbers_once() -> None:
    given = {"a": torch.arange(5.0), "b": torch.tensor([[1, 2]]), "none": torch.zeros(0, 3)}
    ours = Shared.of(given)
    theirs = Shared.at(os.dup(ours.handle), ours.layout)
    for name, value in given.items():
        assert torch.equal(theirs.tensors[name], value)
        assert theirs.tensors[name].dtype == value.dtype
    ours.tensors["a"][2] = 7.0
    assert theirs.tensors["a"][2] == 7.0
    ours.close()
    theirs.close()

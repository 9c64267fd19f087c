"""Several processes train one recipe: one charge, one message, and the weights of one process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nacre.ledger import Ledger
from tests.forks import served
from tests.stories.faults import Moment, command
from tests.training.processes import free_port, variables
from tests.training.tiny import CENTRAL, FEDERATED, text

pytestmark = pytest.mark.slow

KILLED = -signal.SIGKILL
DEALT = {
    "data__size": 75,
    "data__public": {"share": 0.3},
    "fine_tuning": {"kind": "full", "pretrain": {"steps": 10, "batch": 20}},
    "compare": ["unprotected"],
    "ledger__path": "{run}/privacy.db",
    "training__steps": 12,
    "training__batch": 40,
    "training__checkpoint": 3,
}


def train(
    size: int,
    folder: Path,
    into: Path,
    dies: Moment | None = None,  # the first process, there
    kills: Callable[[], bool] | None = None,  # the last process, once this holds
) -> tuple[list[int], list[str]]:
    """`nacre train` in so many processes, a first time or once more: exit codes, and words."""
    words = ["train", str(folder / "recipe.yaml"), "--into", str(into)]
    words = [*words, "--resume"] if into.exists() else words
    context = served()
    port, says = free_port(), [folder / f"said-{rank}.txt" for rank in range(size)]
    processes = []
    for rank in range(size):
        told = variables(rank, size, port)
        arguments = (words, None if rank else dies, says[rank], None, told)
        processes.append(context.Process(target=command, args=arguments))
        processes[-1].start()
    while kills is not None and processes[-1].is_alive():
        if kills():
            os.kill(processes[-1].pid or 0, signal.SIGKILL)
            break
        time.sleep(0.002)
    for process in processes:
        process.join(120)
    codes = [process.exitcode for process in processes]
    assert None not in codes, "a process hangs"
    return [int(code or 0) for code in codes], [path.read_text() for path in says]


def saved(run: Path) -> list[int]:
    """The steps of the checkpoints that are there."""
    return sorted(int(path.stem.rpartition("-")[2]) for path in (run / "state").glob("step-*"))


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def begun(folder: Path, **changes: object) -> Path:
    """A run of two processes that died before its first step, and an undisturbed copy of it."""
    (folder / "recipe.yaml").write_text(text(CENTRAL, **(DEALT | changes)))
    run = folder / "run"
    codes, _ = train(2, folder, run, Moment(file="base.safetensors"))
    assert codes == [KILLED, 1]
    shutil.copytree(run, folder / "alone")
    return run


@pytest.mark.parametrize("devices", ["replicated", "sharded"])
def test_two_processes_and_one_come_to_the_same_weights(tmp_path: Path, devices: str) -> None:
    """Two are killed on their way, one goes on alone and is killed, two go on to the end."""
    run = begun(tmp_path, execution={"devices": devices})
    codes, said = train(2, tmp_path, run, Moment(file="step-00000006"))
    assert codes == [KILLED, 1]
    assert "nacre: process 1: another process of this run has ended" in said[1]
    assert saved(run) == [3]
    assert train(1, tmp_path, run, Moment(file="step-00000009"))[0] == [KILLED]
    assert saved(run) == [3, 6]
    codes, said = train(2, tmp_path, run)
    assert codes == [0, 0]
    assert "trained 12 of 12 steps" in said[0]
    assert said[1] == ""
    _complete(run, tmp_path, 12)


def test_a_killed_process_ends_the_first_and_the_run_goes_on(tmp_path: Path) -> None:
    run = begun(tmp_path, training__steps=60)
    codes, said = train(2, tmp_path, run, kills=lambda: bool(saved(run)))
    assert codes == [1, KILLED]
    assert "nacre: another process of this run has ended" in said[0]
    assert 0 < max(saved(run)) < 60
    assert train(2, tmp_path, run)[0] == [0, 0]
    _complete(run, tmp_path, 60)


def _complete(run: Path, folder: Path, steps: int) -> None:
    """The run has ended well, with the weights of one process that nobody disturbed."""
    assert train(1, folder, folder / "alone")[0] == [0]
    assert weights(run) == weights(folder / "alone")
    lines = (run / "released.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, steps + 1))
    assert not (run / "local" / "run.key").exists()
    with Ledger.open(run / "privacy.db") as ledger:
        assert ledger.verify() == []
        (entry,) = ledger.summary("iris").runs
        assert (entry.journalled, entry.end) == (steps, "settled")


def test_a_refusal_ends_both_with_one_message(tmp_path: Path) -> None:
    """The ledger is looked at by the first process alone."""
    recipe = text(CENTRAL, differential_privacy__epsilon=9)
    (tmp_path / "recipe.yaml").write_text(recipe)
    codes, said = train(2, tmp_path, tmp_path / "run")
    assert codes == [3, 3]
    assert said[0].count("nacre: ") == 1
    assert said[1] == ""
    assert not (tmp_path / "run").exists()


def test_bad_rows_end_both_before_anything_is_charged(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text(CENTRAL, data__size=4, training__batch=3))
    codes, said = train(2, tmp_path, tmp_path / "run")
    assert codes[0] == codes[1] == 2
    assert said[1] == ""
    assert not (tmp_path / "privacy.db").exists()


@pytest.mark.parametrize(
    ("base", "execution", "sentence"),
    [
        (FEDERATED, {}, "the parties of a federation are trained by one"),
        (FEDERATED, {"devices": "sharded"}, "`execution.devices`: the parties of a federation"),
        (FEDERATED, {"portions": 4}, "`execution.portions`: the parties of a federation"),
        (CENTRAL, {"devices": "one"}, "`execution.devices`: one, but 2 processes were started"),
    ],
)
def test_recipes_for_one_process_are_refused(tmp_path, base, execution, sentence) -> None:
    (tmp_path / "recipe.yaml").write_text(text(base, execution=execution))
    codes, said = train(2, tmp_path, tmp_path / "run")
    assert codes == [2, 2]
    assert sentence in said[0]
    assert said[1] == ""
    assert not (tmp_path / "run").exists()


def test_more_processes_than_portions_are_told_so(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text(CENTRAL, execution={"portions": 1}))
    codes, said = train(2, tmp_path, tmp_path / "run")
    assert codes == [0, 0]
    assert "into 1 portions, fewer than the 2 processes" in said[0]
    assert said[1] == ""


def test_torchrun_runs_everything_and_the_first_process_reports(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text(CENTRAL, execution={"devices": "sharded"}))
    run = tmp_path / "run"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
        "--master_port", str(free_port()), "-m", "nacre",
        "run", str(tmp_path / "recipe.yaml"), "--into", str(run),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (run / "report.html").exists()
    assert done.stderr.count("steps: started") == 1

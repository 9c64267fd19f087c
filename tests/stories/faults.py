"""Runs that die: kill -9 at a moment, what must hold afterwards, and the run they should equal.

The runs are `nacre train` in processes forked from one that has imported everything, because ten
seconds of imports for every death would be most of the work.
"""

from __future__ import annotations

import json
import os
import random
import resource
import runpy
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from nacre.ledger import Ledger
from tests.forks import served
from tests.training.tiny import CENTRAL, FEDERATED, text

KILLED = -signal.SIGKILL

_PUBLIC: dict[str, Any] = {
    "data__size": 75,
    "data__public": {"share": 0.3},
    "fine_tuning": {"kind": "full", "pretrain": {"steps": 10, "batch": 20}},
    "compare": ["unprotected"],
    "ledger__path": "{run}/privacy.db",
    "training__checkpoint": 3,
}
RECIPES = {
    "central": text(CENTRAL, **_PUBLIC, training__steps=24, training__batch=40),
    "banded": text(
        CENTRAL,
        **_PUBLIC,
        training__steps=24,
        training__batch=10,
        training__sampling={"kind": "cyclic_poisson"},
        differential_privacy__noise={"kind": "banded", "bands": 5},
    ),
    "federated": text(
        FEDERATED,
        **_PUBLIC,
        federated_learning__rounds=8,
        training__batch=25,
        ledger__grant={"epsilon": 40, "delta": 1.0e-4, "rule": "rdp"},
    ),
    "search": text(
        CENTRAL,
        **_PUBLIC,
        training__steps=9,
        training__batch=40,
        ledger__grant={"epsilon": 40, "delta": 1.0e-4, "rule": "rdp"},
        tune={"trials": 3, "over": {"training.optimizer.lr": [0.001, 0.1]}},
    ),
}
"""Recipes that run for about a second, pre-training and a twin included."""


# -- processes -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """When a process gets a signal: after seconds, or as it touches a file for the n-th time."""

    seconds: float | None = None
    file: str = ""  # part of the file's name
    count: int = 1
    signal: signal.Signals = signal.SIGKILL

    def __str__(self) -> str:
        return f"{self.seconds:.3f} s" if self.seconds is not None else f"{self.file} {self.count}"


def nacre(
    words: Sequence[str],
    dies: Moment | None = None,
    *,
    says: Path | None = None,  # where its stderr goes
    largest: int | None = None,  # bytes that a file may have
) -> int:
    """Runs the command `nacre` with these words and gives its exit code, `KILLED` after a death."""
    process = served().Process(target=command, args=(list(words), dies, says, largest))
    process.start()
    process.join(None if dies is None else dies.seconds)
    if process.is_alive() and dies is not None and dies.seconds is not None:
        os.kill(process.pid or 0, dies.signal)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def command(
    words: list[str],
    dies: Moment | None,
    says: Path | None,
    largest: int | None = None,
    told: dict[str, str] | None = None,  # environment variables
) -> NoReturn:
    """What `python -m nacre WORDS` does, in a forked process."""
    import torch

    os.environ.update(told or {})
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    torch.set_num_threads(1)  # the forked copies of a test run would fight for two cores
    if dies is not None and dies.file:
        _die_at(dies)
    sys.argv = ["nacre", *words]
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    with open(says or os.devnull, "w") as heard, redirect_stdout(heard), redirect_stderr(heard):
        runpy.run_module("nacre", run_name="__main__")
    raise SystemExit(0)


def _die_at(moment: Moment) -> None:
    """Kills this process just before it opens, renames, links or removes a file so named."""
    left = moment.count

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in ("open", "os.rename", "os.link", "os.remove"):
            return
        if any(moment.file in str(argument) for argument in arguments[:2]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), moment.signal)

    sys.addaudithook(watch)


# -- what must hold --------------------------------------------------------------------------------


@dataclass
class Story:
    """One run through its deaths. `broken` says in words what did not hold."""

    kind: str
    folder: Path  # holds recipe.yaml and the run
    undisturbed: Path  # a copy from before its first step
    kills: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    under_counts: int = 0
    equal: bool = False
    _spent: dict[str, float] = field(default_factory=dict)

    @property
    def run(self) -> Path:
        """The run that is killed."""
        return self.folder / "run"

    def train(self, into: Path, dies: Moment | None = None, **more: Any) -> int:
        """`nacre train` or `nacre tune`, a first time or once more, perhaps killed."""
        words = [
            "tune" if self.kind == "search" else "train",
            str(self.folder / "recipe.yaml"),
            "--into",
            str(into),
        ]
        return nacre([*words, "--resume"] if into.exists() else words, dies, **more)

    def look(self) -> None:
        """What must hold of an open or finished run at any moment."""
        path = self.run / "privacy.db"
        if not path.exists():
            if (self.run / "released.jsonl").exists():
                self._break("something was released and there is no ledger")
            return
        with Ledger.open(path) as ledger:
            for fault in ledger.verify():
                self._break(f"the ledger: {fault}")
            for account in ledger.accounts():
                self._look_at(account, ledger)

    def _look_at(self, account: str, ledger: Ledger) -> None:
        summary = ledger.summary(account)
        released = self._released(account.rpartition("/")[2])
        for run in summary.runs:
            if run.journalled < released:
                self.under_counts += 1
                self._break(f"{account} released {released} steps and says {run.journalled}")
        if released and not summary.runs:
            self.under_counts += 1
            self._break(f"{account} released {released} steps without a reservation")
        spent = sum(grant.spent for grant in summary.grants)
        if all(run.end is None for run in summary.runs):
            if spent < self._spent.get(account, 0):
                self._break(f"{account} had spent {self._spent[account]} and now {spent}")
            self._spent[account] = spent

    def _released(self, party: str) -> int:
        """Steps over rows that left, by what the files of the run say."""
        rounds = max([*_lines(self.run / "released.jsonl"), *_checkpoints(self.run)], default=0)
        if self.kind == "search":  # two entries: before its first trial, and for the winner
            begun = (self.run / "local" / "trials").exists()
            return 2 if (self.run / "released.jsonl").exists() else int(begun)
        if self.kind != "federated":
            return rounds
        replies = (self.run / "local" / "parties" / party).glob("*.answer")
        answered = [int(path.stem.rpartition("-")[2]) + 1 for path in replies]
        local = FEDERATED["federated_learning"]["local"]["steps"]
        return local * max([rounds, *answered])

    def end(self) -> None:
        """Lets the run finish, and compares it with its copy."""
        if (code := self.train(self.run)) != 0:
            self._break(f"resuming ended with exit code {code}")
            return
        self.look()
        copy = self.undisturbed
        if not (copy / "outcome.json").exists():
            self.end_copy()
        if not (copy / "outcome.json").exists():
            return
        self.equal = _weights(self.run) == _weights(copy)
        if not self.equal:
            self._break("the weights differ from those of the undisturbed copy")
        if (lines := _lines(self.run / "released.jsonl")) != _lines(copy / "released.jsonl"):
            self._break(f"released.jsonl holds the steps {lines}")
        if (self.run / "local" / "run.key").exists():
            self._break("the key outlived the run")
        if (self.run / "local" / "trials").exists():
            self._break("the losing trials outlived the run")
        left = [str(path.relative_to(self.run)) for path in self.run.rglob("*.part*")]
        if left:
            self._break(f"left behind: {', '.join(left)}")

    def end_copy(self) -> None:
        """Lets the undisturbed copy finish."""
        if (code := self.train(self.undisturbed)) != 0:
            self._break(f"the undisturbed copy ended with exit code {code}")

    def _break(self, what: str) -> None:
        after = self.kills[-1] if self.kills else "nothing"
        self.broken.append(f"{self.kind}, killed at {after}: {what}")


def _lines(path: Path) -> list[int]:
    """The steps that released.jsonl names; a line that was cut short says nothing yet."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("\n")]


def _checkpoints(run: Path) -> list[int]:
    return [int(path.stem.rpartition("-")[2]) for path in (run / "state").glob("step-*")]


def _weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


# -- a story ---------------------------------------------------------------------------------------

_OPENING = ("run.key", "recipe.yaml", "plan.json", "privacy.db", ".part", "reserved", "lock")
_MIDDLE = {
    "central": ("base", "step-"),
    "banded": ("base", "noise", "step-"),
    "federated": ("base", "step-", ".answer"),
    "search": ("base", "step-", "trial.json", "model.safetensors", "released"),
}
_CLOSING = ("unprotected", "model.safetensors", "model.json", "ledger.json", "outcome", "run.key")


def story(kind: str, folder: Path, kills: int, draw: random.Random) -> Story:
    """A run that is killed up to `kills` times: while it opens, on its way, while it ends."""
    told = begun(kind, folder, Moment(file=draw.choice(_OPENING), count=draw.randint(1, 2)))
    start = time.perf_counter()
    told.end_copy()
    seconds = time.perf_counter() - start
    while len(told.kills) < kills - 1:  # the last one is for the end
        if _killed(told, _on_the_way(kind, draw, seconds)) != KILLED:
            break  # it came to its end first
    if not (told.run / "outcome.json").exists():
        _killed(told, Moment(file=draw.choice(_CLOSING), count=draw.choice([1, 1, 2])))
    told.end()
    return told


def begun(kind: str, folder: Path, *moments: Moment) -> Story:
    """A run whose first step is to come, with deaths on the way there, and a copy of it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(RECIPES[kind])
    told = Story(kind, folder, undisturbed=folder / "undisturbed")
    for moment in moments:
        _killed(told, moment)
    while not (told.run / "local" / "reserved").exists():
        # The first file of the work itself: the run is reserved, and nothing was released.
        if _killed(told, Moment(file="base.safetensors")) != KILLED:
            break
    shutil.copytree(told.run, told.undisturbed)
    return told


def begun_again(told: Story, folder: Path) -> Story:
    """The same run in another folder, to be compared with the same undisturbed copy."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(told.folder / "recipe.yaml", folder)
    shutil.copytree(told.run, folder / "run")
    return Story(told.kind, folder, told.undisturbed)


def _killed(told: Story, moment: Moment) -> int:
    code = told.train(told.run, moment)
    if code == KILLED:
        told.kills.append(str(moment))
        told.look()
    elif code != 0:
        told._break(f"exit code {code} where death at {moment} was asked for")
    return code


def _on_the_way(kind: str, draw: random.Random, seconds: float) -> Moment:
    if draw.random() < 0.6:
        return Moment(seconds=draw.uniform(0.2, 0.6) * seconds)
    return Moment(file=draw.choice(_MIDDLE[kind]), count=draw.randint(1, 10))

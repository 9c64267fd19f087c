"""Runs that die: kill -9 at a moment, what must hold afterwards, and the run they should equal.

The runs are `nacre train` in processes forked from one that has imported everything, because a
second of imports for every death would be most of the work. The server that forks has computed
nothing, so no thread of torch is lost in a fork.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
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
from tests.training.tiny import CENTRAL, FEDERATED, text

_PRELOADED = (
    "nacre.training.run", "nacre.cli.train", "nacre.cli.progress", "dp_accounting",
    "dp_accounting.rdp", "dp_accounting.pld.privacy_loss_distribution", "sklearn.datasets",
    "torch._functorch.vmap", "pandas",
)  # fmt: skip
KILLED = -signal.SIGKILL

_PUBLIC: dict[str, Any] = {
    "data__size": 75,
    "data__public": {"share": 0.3},
    "fine_tuning": {"kind": "full", "pretrain": {"steps": 30, "batch": 20}},
    "compare": ["unprotected"],
    "ledger__path": "{run}/privacy.db",
    "training__checkpoint": 3,
}
RECIPES = {
    "central": text(CENTRAL, **_PUBLIC, training__steps=90, training__batch=40),
    "federated": text(
        FEDERATED,
        **_PUBLIC,
        federated_learning__rounds=30,
        training__batch=25,
        ledger__grant={"epsilon": 40, "delta": 1.0e-4, "rule": "rdp"},
    ),
}
"""Recipes that run for one to three seconds, pre-training and a twin included."""


# -- processes -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """When a process dies: after so many seconds, or as it touches a file for the n-th time."""

    seconds: float | None = None
    file: str = ""  # part of the file's name
    count: int = 1

    def __str__(self) -> str:
        return f"{self.seconds:.3f} s" if self.seconds is not None else f"{self.file} {self.count}"


def nacre(words: Sequence[str], dies: Moment | None = None, limits: int | None = None) -> int:
    """Runs the command `nacre` with these words and gives its exit code, `KILLED` after a death."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    process = context.Process(target=_command, args=(list(words), dies))
    process.start()
    process.join(None if dies is None else dies.seconds)
    if process.is_alive() and dies is not None and dies.seconds is not None:
        process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _command(words: list[str], dies: Moment | None) -> NoReturn:
    """What `python -m nacre WORDS` does, in a forked process."""
    import torch

    torch.set_num_threads(1)  # the forked copies of a test run would fight for two cores
    if dies is not None and dies.file:
        _die_at(dies)
    sys.argv = ["nacre", *words]
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
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
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)

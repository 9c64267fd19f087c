"""The workers of a run: started, given parties to train, ended with it."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import IO, Any

import torch
from safetensors.torch import load
from torch import nn

from nacre.core import errors
from nacre.core.errors import NacreError, RunError
from nacre.core.files import tensors_to_bytes
from nacre.core.tensors import trainable
from nacre.core.types import Release, Tensors
from nacre.data.partition import Dealt
from nacre.data.scaling import Scaler
from nacre.federated_learning.messages import right_of_reply
from nacre.recipe.load import dumps
from nacre.runs.workers.rounds import Took
from nacre.runs.workers.shared import Shared, moved_into
from nacre.runs.workers.wire import receive, send
from nacre.training.holders import Setting

_AHEAD = 2
"""Jobs that a worker is given at a time, so that it never waits for the next one."""

Stack = tuple[str, ...]
"""Parties that are trained together; one where each is trained alone."""


@dataclass(frozen=True)
class Trained:
    """What a party computed, and what has to be journalled before it leaves."""

    release: Release
    journal: Sequence[tuple[int, str]] = ()
    kept: Tensors | None = None  # for the party's memory; None where it keeps nothing, or has kept
    took: Took | None = None


@dataclass(frozen=True)
class Job:
    """A party and a round for a worker: a header, the places of its rows, and what the party
    remembers."""

    header: Mapping[str, Any]
    places: bytes
    before: Tensors


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    complaints: IO[bytes]  # what it wrote to its error output
    slots: list[int]
    ready: bool = False
    given: deque[tuple[Stack, int]] = field(default_factory=deque[tuple[Stack, int]])  # and slot

    @property
    def output(self) -> IO[bytes]:
        """Where its frames come from."""
        assert self.process.stdout is not None
        return self.process.stdout

    @property
    def input(self) -> IO[bytes]:
        """Where it reads its own."""
        assert self.process.stdin is not None
        return self.process.stdin


class Pool:
    """Processes that train parties beside this one.

    *Guarantee:* a party's change is the same bits whoever trains it: a worker builds the same model
    from the recipe, reads the same rows in shared memory, and computes with as many threads. The
    journal is written by this process before the change is used.

    Rows lie in memory once. A worker that dies ends the run with a `RunError`: the round was not
    handed on, so the run resumes to the same bits. Workers end with this process, whatever ends it:
    their input is closed then.
    """

    def __init__(
        self, count: int, setting: Setting, scaler: Scaler, dealt: Dealt, model: nn.Module,
        like: Tensors, key: bytes, built: bytes,
    ) -> None:  # fmt: skip
        """Starts `count` workers, and does not wait for them. `like` is what a request holds, `key`
        the run's own; `built` is `Workplace.built()` of this process, which theirs has to be."""
        moved, places = trainable(model), setting.recipe.execution.stacked or 1
        self._built, self._serial = built, 0
        tensors: Tensors = {"features": dealt.rows.features, "label": dealt.rows.label}
        tensors |= {f"model.{name}": value for name, value in model.state_dict().items()}
        tensors |= {f"weight.{name}": value.float() for name, value in like.items()}
        for slot in range(count * _AHEAD):
            tensors |= {
                f"slot{slot}.{n}": torch.zeros(places, *value.shape) for n, value in moved.items()
            }
        self._shared = Shared.of(tensors)
        for name in ("features", "label"):
            moved_into(tensors[name], self._shared.tensors[name])
        self._weights = self._shared.part("weight.")
        recipe = setting.recipe
        facts = {
            "layout": self._shared.layout,
            "recipe": dumps(recipe),
            "folder": str(recipe.folder.resolve()),
            "code": asdict(recipe.code),
            "scaler": scaler.to_json(),
            "memory": setting.memory,
            "compiled": setting.compiled,
            "threads": torch.get_num_threads(),
        }
        self._workers: list[_Worker] = []
        try:
            for number in range(count):
                slots = list(range(number * _AHEAD, (number + 1) * _AHEAD))
                self._workers.append(self._started(slots, facts, key))
        except BaseException:
            self.close()
            raise

    def _started(self, slots: list[int], facts: Mapping[str, Any], key: bytes) -> _Worker:
        handle = self._shared.handle
        complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        path = os.pathsep.join(part or os.getcwd() for part in sys.path)
        process = subprocess.Popen(
            [sys.executable, "-m", "nacre.runs.workers.child", str(handle)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            bufsize=0,  # a frame that waits in a buffer would not be seen by `select`
            pass_fds=[handle],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(facts["threads"])},
        )
        worker = _Worker(process, complaints, slots)
        try:
            send(worker.input, facts, [key])
        except OSError as error:
            raise self._died(worker) from error
        return worker

    def trained(
        self,
        asked: Tensors,  # of the request
        stacks: Sequence[Stack],
        job: Callable[[str], Job],
        here: Callable[[Stack], Mapping[str, Trained]],  # trains them in this process
    ) -> dict[str, Trained]:
        """What each party computed, by the workers that are ready and by this process.

        Raises `RunError` for a worker that died, and what training raises, in a worker too.
        """
        self._serial += 1
        for name, value in self._weights.items():
            value.copy_(asked[name])
        left, found = deque(stacks), dict[str, Trained]()
        while left or any(worker.given for worker in self._workers):
            for worker in self._answering(wait=not left):
                self._take(worker, found)
            for worker in self._workers:
                while worker.ready and left and worker.slots:
                    self._give(worker, left.popleft(), job)
            if left:
                found |= here(left.popleft())
        return found

    def wait(self) -> None:
        """Until every worker is ready."""
        while not all(worker.ready for worker in self._workers):
            for worker in self._answering(wait=True):
                self._take(worker, {})

    def _answering(self, *, wait: bool) -> list[_Worker]:
        """The workers that have something to say."""
        due = [worker for worker in self._workers if worker.given or not worker.ready]
        if wait:
            due = [worker for worker in due if worker.given] or due
        found, _, _ = select.select([w.output for w in due], [], [], None if wait else 0)
        return [worker for worker in due if worker.output in found]

    def _give(self, worker: _Worker, stack: Stack, job: Callable[[str], Job]) -> None:
        made, slot = [job(name) for name in stack], worker.slots.pop()
        worker.given.append((stack, slot))
        header = {
            "parties": [dict(one.header) for one in made], "serial": self._serial, "slot": slot,
        }  # fmt: skip
        blobs = [blob for one in made for blob in (one.places, tensors_to_bytes(one.before))]
        try:
            send(worker.input, header, blobs)
        except OSError as error:
            raise self._died(worker) from error

    def _take(self, worker: _Worker, found: dict[str, Trained]) -> None:
        frame = receive(worker.output)
        if frame is None:
            raise self._died(worker)
        header, blobs = frame
        if "error" in header:
            raise _again(header["error"], header["message"])
        if not worker.ready:
            if header["built"] != self._built.hex():
                raise RunError(
                    "a worker process built another model from the recipe than this one did, so "
                    "its changes would not be the same; make the model depend on its arguments "
                    "alone, or use `execution: {workers: 1}`"
                )
            worker.ready = True
            return
        stack, slot = worker.given.popleft()
        changes = self._shared.part(f"slot{slot}.")
        worker.slots.append(slot)
        answered = zip(stack, header["journals"], header["took"], strict=True)
        for place, (name, journal, took) in enumerate(answered):
            change = {n: value[place].clone() for n, value in changes.items()}
            entries = [(int(step), str(entered)) for step, entered in journal]
            right, kept = blobs[2 * place : 2 * place + 2]
            found[name] = Trained(
                Release(change, right_of_reply(right)), entries, load(kept) if kept else None,
                Took(**took),
            )  # fmt: skip

    def _died(self, worker: _Worker) -> RunError:
        code = worker.process.wait()
        worker.complaints.seek(0)
        lines = worker.complaints.read().decode(errors="replace").strip().splitlines()
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        party = ""
        if worker.given:
            stack = worker.given[0][0]
            party = f" while it trained part{'y' if len(stack) == 1 else 'ies'} "
            party += ", ".join(map(repr, stack))
        said = f" ({lines[-1][:200]})" if lines else ""
        return RunError(
            f"a worker process ended {how}{party}{said}: the round was not handed on, so resume "
            "the run; fewer workers take less memory (`execution: {workers: 1}`)"
        )

    def close(self) -> None:
        """Ends the workers. What they were computing is nobody's yet."""
        for worker in self._workers:
            worker.process.kill()
            worker.process.wait()
            for pipe in (worker.input, worker.output, worker.complaints):
                try:
                    pipe.close()
                except OSError:  # what it had not read is lost with it
                    continue
        self._workers.clear()
        self._shared.close()


def _again(kind: str, message: str) -> NacreError:
    """The error of a worker, as this process would have raised it."""
    found = getattr(errors, kind, RunError)
    made = found(message) if issubclass(found, NacreError) else RunError(message)
    return made

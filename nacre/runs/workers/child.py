"""A worker: trains the parties that it is given, and ends when nobody gives it any more.

Started as `python -m nacre.runs.workers.child HANDLE`. It imports no script of the user's, so a
script needs no guard around its main part; a model written in Python is imported as the recipe
says. What that prints goes to the error output: the output itself carries frames.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load

from nacre.core.errors import NacreError
from nacre.core.files import tensors_to_bytes
from nacre.core.random import Source
from nacre.core.types import Tensors
from nacre.data.dataset import Rows
from nacre.data.scaling import Scaler
from nacre.federated_learning.messages import Reply
from nacre.models import Code
from nacre.planning.mechanisms import over_rows
from nacre.recipe.load import loads
from nacre.recipe.schema import Recipe
from nacre.runs.workers.rounds import Took
from nacre.runs.workers.shared import Shared
from nacre.runs.workers.wire import receive, send
from nacre.training.holders import AtWork, Setting, Workplace
from nacre.training.memory import keep_pages
from nacre.training.planned import Planned


class Noted:
    """A journal that is handed on: the run writes it before the change leaves."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, str]] = []

    def journal(self, step: int, entered: str) -> None:
        """Notes the entry."""
        self.entries.append((step, entered))


class Lent:
    """What a party remembers, lent for one round: the run keeps what it holds then."""

    def __init__(self, before: Tensors) -> None:
        self._before = before
        self.kept: Tensors | None = None

    def before(self, round_number: int) -> Tensors:
        """What was lent."""
        return self._before

    def keep(self, round_number: int, tensors: Tensors) -> None:
        """Notes what is to be kept."""
        self.kept = tensors


class Worker:
    """What a worker has: shared memory, and a workplace built as the run's is."""

    def __init__(self, handle: int, facts: dict[str, Any], key: bytes) -> None:
        torch.set_num_threads(facts["threads"])
        keep_pages()
        self._shared = Shared.at(handle, facts["layout"])
        said: dict[str, Any] = facts["code"]
        code = Code(beside=said["beside"], packages=tuple(said["packages"]), runs=said["runs"])
        folder = Path(facts["folder"])
        self._recipe: Recipe = replace(loads(facts["recipe"], folder=folder), code=code)
        schema = self._recipe.schema
        space = Scaler.from_json(facts["scaler"]).space(schema)
        setting = Setting(self._recipe, schema, space, facts["memory"], facts["compiled"])
        model = self._recipe.build_model(schema)
        if self._recipe.fine_tuning is not None:
            model = self._recipe.fine_tuning.prepare(model, self._recipe.seed)
        model.load_state_dict(self._shared.part("model."))
        self.place = Workplace(setting, model)
        self._source = Source(key)
        self._rows = Rows(self._shared.tensors["features"], self._shared.tensors["label"])
        self._serial, self._weights = -1, Tensors()

    def train(self, job: dict[str, Any], blobs: list[bytes]) -> tuple[dict[str, Any], list[bytes]]:
        """Trains the parties of a job; their changes are in its slot when this returns."""
        if job["serial"] != self._serial:  # another object for another request
            self._serial, self._weights = job["serial"], self._shared.part("weight.")
        facts: list[dict[str, Any]] = job["parties"]
        noted = [Noted() for _ in facts]
        lent = [Lent(load(before)) for before in blobs[1::2]]
        parties = [self._party(*each) for each in zip(facts, blobs[::2], noted, lent, strict=True)]
        number, begun = facts[0]["round"], time.perf_counter()
        if self._recipe.execution.stacked is None:
            releases = [party(self._weights, number) for party in parties]
        else:
            releases = self.place.together(parties, self._weights, number)
        took = [asdict(one) for one in Took.of_stack(releases, begun, self.place.loss)]
        changes = self._shared.part(f"slot{job['slot']}.")
        said: list[bytes] = []
        for place, (fact, release, one) in enumerate(zip(facts, releases, lent, strict=True)):
            for name, slot in changes.items():
                slot[place].copy_(release.total[name])
            said.append(Reply("train", number, fact["party"], {}, release.how).to_bytes())
            said.append(b"" if one.kept is None else tensors_to_bytes(one.kept))
        return {"journals": [one.entries for one in noted], "took": took}, said

    def _party(self, facts: dict[str, Any], places: bytes, noted: Noted, lent: Lent) -> AtWork:
        rows = self._rows.take(torch.from_numpy(np.frombuffer(places, dtype=np.int64).copy()))
        if facts["group"] is not None:
            rows = replace(rows, group=tuple(facts["group"]))
        mechanism = over_rows(self._recipe, facts["size"])
        if facts["multiplier"] is not None:
            mechanism = mechanism.with_multiplier(facts["multiplier"])
        return self.place.training(
            mechanism,
            rows,
            self._source.child("party", facts["party"]),
            noted,
            Planned(how=facts["how"], party=facts["planned"]),
            lent,
        )


def work() -> None:
    """Serves until the other side closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run decides what an interrupt means
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    source = sys.stdin.buffer
    first = receive(source)
    if first is None:
        return
    facts, (key,) = first
    try:
        worker = Worker(int(sys.argv[1]), facts, key)
        send(output, {"built": worker.place.built().hex()})
    except NacreError as error:
        send(output, _refused(error))
        return
    while (job := receive(source)) is not None:
        try:
            send(output, *worker.train(*job))
        except NacreError as error:
            send(output, _refused(error))


def _refused(error: NacreError) -> dict[str, Any]:
    return {"error": type(error).__name__, "message": str(error)}


if __name__ == "__main__":
    work()

"""A federation in one machine beside a bare loop over the same rows: speed, start, memory.

    python benchmarks/federation.py [--json] [--quick] [--workers N] [--only PART …]

Parties have 60 images of 28 x 28 (made-up numbers) and train one local epoch in batches of 10. The
small model is a CNN of 26,010 parameters, the large one the same with a wider hidden layer (1.2 M).
The bare loop does what no federation can do without: copy the weights, make an SGD, take the steps,
add the changes up. For `cost` it runs in the same process after each round, over as many parties,
and its CPU seconds are what a round's are divided by. For `speed` it takes turns with Nacre on one
process and on as many as there are workers, forked; the best turn of each is compared, since
wall time says something on an idle machine only.

Start is from the call of `train` to the first round, imports left out; memory is the peak of a
process of its own for each row.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rows import Row, show
from torch import nn

from nacre.federated_learning import OnDemand, Reply, RoundRequest
from nacre.planning.plan import plan
from nacre.recipe.load import loads
from nacre.runs.progress import Advance, Silent
from nacre.runs.run import train
from nacre.runs.workers.pool import Pool

EXAMPLES, BATCH, LR = 60, 10, 0.05
WIDTHS = {"26 k": 32, "1.2 M": 2200}
MODEL = """
from torch import nn

def cnn(width):
    return nn.Sequential(
        nn.Conv2d(1, 16, 8, 2, 3), nn.Tanh(), nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 4, 2), nn.Tanh(), nn.MaxPool2d(2, 1),
        nn.Flatten(), nn.Linear(512, width), nn.Tanh(), nn.Linear(width, 10),
    )
"""
PRIVATE: dict[str, dict[str, Any]] = {
    "none": {},
    "client": {"unit": "client", "accountant": "rdp"},
    "example": {"accountant": "rdp"},
}


def main() -> None:
    """Runs each row in a process of its own and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--quick", action="store_true", help="one short row of each part")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="*", default=[""], help="parts: cost, speed, start")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.row:
        row = json.loads(asked.row)
        print(json.dumps(bare_loop(row) if row.get("updates") else measured(row)))
        return
    found: list[Row] = []
    for part, rows in PARTS.items():
        if part.startswith(tuple(asked.only)):
            for row in rows[:1] if asked.quick else rows:
                found += row(asked)
    show(found, asked.json)


def alone(**settings: Any) -> dict[str, Any]:
    """What `measured` gives in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        [sys.executable, __file__, "--row", json.dumps(settings)],
        env=environment, check=True, stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip
    return json.loads(out.splitlines()[-1])


def measured(asked: Mapping[str, Any]) -> dict[str, Any]:
    """One run: start, CPU seconds a party beside the bare loop, updates a second, memory."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = loads(json.dumps(written(folder, asked)), "benchmark", folder=folder)
        before = time.perf_counter()
        planned = plan(made)
        planning = time.perf_counter() - before
        watch = Watch(made.build_model(made.schema), asked)
        with watch.counting():
            watch.started = time.perf_counter()
            train(planned, folder / "run", observe=watch)
        return {"plan": planning, **watch.figures()}


def written(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe, beside its rows."""
    parties, side, examples = asked["parties"], asked.get("side", 28), asked.get("each", EXAMPLES)
    generator = np.random.default_rng(0)
    images = generator.random((parties * examples, 1, side, side), dtype=np.float32)
    np.savez(folder / "rows.npz", x=images, y=generator.integers(0, 10, len(images)))
    (folder / "nets.py").write_text(MODEL)
    private = PRIVATE[asked.get("privacy", "none")]
    recipe: dict[str, Any] = {
        "nacre": 1,
        "name": "federation",
        "data": {
            "kind": "arrays", "path": "rows.npz", "shape": [1, side, side], "classes": 10,
            "low": 0, "high": 1, "size": len(images), "public_demonstration": True,
        },
        "model": (
            {"kind": "python", "call": "nets:cnn", "arguments": {"width": asked["width"]}}
            if side == 28
            else {"kind": "mlp", "hidden": [32]}
        ),
        "federated_learning": {
            "parties": {"kind": "uniform", "names": {"count": parties}},
            "rounds": asked["rounds"],
            "cohort": {"kind": "poisson", "expected": asked["cohort"]},
            "local": {"steps": max(1, examples // BATCH)},
            "few_clients": True,
        },
        "training": {
            "batch": min(BATCH, examples),
            "checkpoint": 10**6,
            "optimizer": {"kind": "sgd", "lr": LR},
            "sampling": {"kind": "poisson" if asked.get("privacy") == "example" else "shuffled"},
        },
        "execution": {"workers": asked.get("workers", 1), "threads": 1,
                      "stacked": asked.get("stacked")},
    }  # fmt: skip
    if private:
        delta = min(1e-3, 0.1 / parties)
        grant = {"epsilon": 100, "delta": delta, "rule": "rdp"}
        recipe["gradient_clipping"] = {"kind": "flat", "norm": 1.0}
        recipe["differential_privacy"] = {"epsilon": 8, "delta": delta, **private}
        recipe["ledger"] = {"path": "privacy.db", "dataset": "rows", "grant": grant}
    return recipe


class Watch(Silent):
    """Takes the time of each round, and lets the bare loop run after it."""

    def __init__(self, model: nn.Module, asked: Mapping[str, Any]) -> None:
        self.server, self.own = model, copy.deepcopy(model)
        self.bare = asked.get("bare", False)
        self.rows = torch.rand(EXAMPLES, 1, 28, 28) if self.bare else torch.zeros(0)
        self.label = torch.randint(10, (EXAMPLES,))
        self.start = self.started = self.first = 0.0
        self.workers: list[int] = []
        self.counts: list[int] = []
        self.ours: list[tuple[float, float]] = []  # (CPU, wall) seconds of a round
        self.theirs: list[float] = []
        self.mark = (0.0, 0.0)

    @contextlib.contextmanager
    def counting(self) -> Generator[None]:
        """Counts the parties of each round; workers are waited for, so that rounds are alike."""
        exchange, trained = OnDemand.exchange, Pool.trained

        def counted(
            transport: OnDemand, request: RoundRequest, cohort: Sequence[str]
        ) -> Mapping[str, Reply | bytes]:
            self.counts.append(len(cohort))
            return exchange(transport, request, cohort)

        def waited(pool: Pool, *given: Any) -> Any:
            pool.wait()
            self.workers = [worker.process.pid for worker in pool._workers]
            return trained(pool, *given)

        OnDemand.exchange, Pool.trained = counted, waited  # pyright: ignore[reportAttributeAccessIssue]
        try:
            yield
        finally:
            OnDemand.exchange, Pool.trained = exchange, trained

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None) -> Generator[Advance]:
        """Takes times in the stage of the rounds."""

        def advance(count: int = 1, note: str = "", total: int | None = None) -> None:
            if name != "rounds":
                return
            now = (_cpu(self.workers), time.perf_counter())
            if count:
                self.ours.append((now[0] - self.mark[0], now[1] - self.mark[1]))
                self.first = self.first or now[1] - self.started
                if self.bare:
                    before = time.process_time()
                    self.bare_round(self.counts[-1])
                    self.theirs.append(time.process_time() - before)
            else:
                self.start = now[1] - self.started
            self.mark = (_cpu(self.workers), time.perf_counter())

        yield advance

    def bare_round(self, parties: int) -> None:
        """What no federation can do without, for as many parties."""
        total = [torch.zeros_like(weight) for weight in self.server.parameters()]
        for _ in range(parties):
            self.own.load_state_dict(self.server.state_dict())
            optimizer = torch.optim.SGD(self.own.parameters(), lr=LR)
            for places in torch.randperm(EXAMPLES).split(BATCH):
                optimizer.zero_grad()
                outputs = self.own(self.rows[places])
                nn.functional.cross_entropy(outputs, self.label[places]).backward()
                optimizer.step()
            pairs = zip(total, self.own.parameters(), self.server.parameters(), strict=True)
            for added, weight, before in pairs:
                added += (weight - before).detach()
        with torch.no_grad():
            for added, weight in zip(total, self.server.parameters(), strict=True):
                weight += added / max(1, parties)

    def figures(self) -> dict[str, Any]:
        """Of all rounds but the first."""
        parties = sum(self.counts[1:]) or 1
        cpu, wall = (sum(part) for part in zip(*self.ours[1:], strict=True))
        pairs = zip(self.ours[1:], self.theirs[1:], strict=False)
        return {
            "start": self.start,
            "first": self.first,
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "updates a second": parties / wall,
            "updates a CPU second": parties / cpu,
            "over bare": statistics.median(a[0] / b for a, b in pairs if b) if self.bare else None,
        }


def _cpu(workers: Sequence[int]) -> float:
    """CPU seconds of this process and its workers, whose clock ticks 100 times a second."""
    ticks = 0
    for pid in workers:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _cost(privacy: str, target: str, most: float, size: str = "26 k") -> Any:
    def rows(asked: argparse.Namespace) -> list[Row]:
        got = alone(parties=100, cohort=10, rounds=6 if asked.quick else 20,
                    width=WIDTHS[size], privacy=privacy, bare=True)  # fmt: skip
        name = f"CPU seconds of a round over the bare loop, {size} parameters, privacy: {privacy}"
        value = got["over bare"]
        return [Row(name, value, target=target, holds=value <= most)]

    return rows


def _speed(parties: int, cohort: int, size: str, target: float) -> Any:
    """The same rounds by each way, in turns of a few seconds, so that what else the machine does
    meets all of them; judged by the bare loop on as many processes."""

    def rows(asked: argparse.Namespace) -> list[Row]:
        turns, rounds = (1, 3) if asked.quick else (2, 6 if cohort <= 20 else 3)
        found: dict[str, list[dict[str, Any]]] = {}
        for _ in range(turns):
            for count in sorted({1, asked.workers}):
                got = alone(bare=count, width=WIDTHS[size], updates=cohort * rounds)
                found.setdefault(f"bare loop, processes: {count}", []).append(got)
                for stacked in (None, 10 // count):
                    got = alone(parties=parties, cohort=cohort, rounds=rounds + 1,
                                width=WIDTHS[size], workers=count, stacked=stacked)  # fmt: skip
                    how = f"Nacre, {'each' if stacked is None else f'{stacked} stacked'}"
                    found.setdefault(f"{how}, processes: {count}", []).append(got)
        return _compared(f"{size}, {parties:,} / {cohort}", found, asked.workers, target)

    return rows


def _compared(
    what: str, found: Mapping[str, Sequence[Mapping[str, Any]]], workers: int, target: float
) -> list[Row]:
    """The best turn of each way: what else ran makes a turn slower, and none faster."""
    key, rows = "updates a second", list[Row]()
    best = {name: max(one[key] for one in turns) for name, turns in found.items()}
    bare = best[f"bare loop, processes: {workers}"]
    for name, value in best.items():
        rows.append(Row(f"party {key}, {what}, {name}", value))
        if name.startswith("Nacre"):
            judged = workers > 1 and name.endswith(f": {workers}") and "each" in name
            share, aim = value / bare, f">= .95 ({target:g} a second where the loop makes as many)"
            rows.append(
                Row(
                    f"over the bare loop on {workers} processes, {what}, {name}",
                    share,
                    target=aim if judged else None,
                    holds=share >= 0.95 if judged else None,
                )
            )
            first = min(one["first"] for one in found[name])
            rows.append(Row(f"seconds with the first round, {what}, {name}", first))
    return rows


def bare_loop(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Updates a second of the bare loop, shared among processes that are forked when it is ready
    (the time is from the first one's start to the last one's end)."""
    count, each = asked["bare"], asked["updates"] // asked["bare"]
    made: dict[str, Any] = {}
    exec(MODEL, made)
    watch = Watch(made["cnn"](asked["width"]), {"bare": True})
    start, end = os.pipe(), os.pipe()
    for _ in range(count):
        if os.fork() == 0:
            watch.bare_round(2)  # what is made once
            os.write(end[1], b"r")
            os.read(start[0], 1)
            watch.bare_round(each)
            os.write(end[1], b"e")
            os._exit(0)
    _read(end[0], count)
    before = time.perf_counter()
    os.write(start[1], b"s" * count)
    _read(end[0], count)
    wall = time.perf_counter() - before
    for _ in range(count):
        os.wait()
    return {"updates a second": count * each / wall}


def _read(pipe: int, count: int) -> None:
    while count:
        count -= len(os.read(pipe, count))


def _start(parties: int, seconds: float, privacy: str = "none", each: int = 20) -> Any:
    def rows(asked: argparse.Namespace) -> list[Row]:
        cohort = min(1000, parties // 10)
        got = alone(parties=parties, cohort=cohort, rounds=2, width=32, side=4, each=each,
                    privacy=privacy)  # fmt: skip
        of = f"{parties:,} parties, {cohort} a round, {each} examples each, privacy: {privacy}"
        start, planned = got["start"], got["plan"]
        return [
            Row(f"seconds to start, {of}", start, target=f"<= {seconds:g}", holds=start <= seconds),
            Row(f"seconds to plan, {of}", planned, target="<= 5", holds=planned <= 5),
            Row(f"seconds with the first round, {of}", got["first"]),
            Row(f"memory in GiB, {of}", got["memory"]),
        ]

    return rows


PARTS: dict[str, list[Any]] = {
    "cost": [
        _cost("none", "<= 1.2", 1.2),
        _cost("client", "<= 1.2", 1.2),
        _cost("example", "<= 2.2", 2.2),
        _cost("none", "<= 1.2", 1.2, "1.2 M"),
    ],
    "speed": [
        _speed(100, 10, "26 k", 140),
        _speed(100, 10, "1.2 M", 30),
        _speed(10_000, 100, "26 k", 110),
    ],
    "start": [
        _start(100, 0.5),
        _start(1000, 1.0),
        _start(10_000, 3.0),
        _start(10_000, 3.0, "client", 200),
        _start(1_000_000, 30.0, "client", 2),
    ],
}

if __name__ == "__main__":
    main()

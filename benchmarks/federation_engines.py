"""Party updates a second of Nacre beside pfl-research and Flower's simulation, round by round.

    python benchmarks/federation_engines.py [--json] [--quick] [--engines PYTHON] [--threads N …]

PYTHON is one that has `pfl==0.6.0` and `flwr[simulation]==1.42.0`, and best the PyTorch of this
one, so that no environment has to hold Nacre and them; an engine that it lacks is left out, with
the reason. All train the same model on the same rows: 60 random images a party, one local epoch in
batches of 10, plain averaging. `bare loop` is what no federation can do without (`engines.py`).

Each engine is a process that runs a round on command, and the engines take turns, round by round:
what else the machine does hits all alike. An engine whose turn it is not stands still (SIGSTOP),
since Flower asks for each of its nodes ten times a second. Figures are medians over the rounds
after the second, with their quartiles; a ratio is the median of those of a turn. Start is from the
first call of the engine (of `plan` here) to the end of the first round, imports left out; Nacre
reads its rows in it, the others before. pfl-research runs with one thread; `--threads 1 2` tries
two as well, which may be faster on an idle machine and is many times slower on a busy one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engines import Commanded
from federation import BATCH, EXAMPLES, LR, WIDTHS, written
from rows import Row, show

from nacre.federated_learning import OnDemand, Reply, RoundRequest
from nacre.planning.plan import plan
from nacre.recipe.load import loads
from nacre.runs.progress import Advance, Silent
from nacre.runs.run import train

CORES = len(os.sched_getaffinity(0))
UNCOUNTED = 2  # first rounds, in which workers and actors are still coming up


@dataclass(frozen=True)
class Case:
    """One size of model and federation; targets for all cores."""

    size: str
    parties: int
    cohort: int
    turns: int
    target: float
    over_pfl: float | None = None
    start: float | None = None

    def words(self) -> str:
        """As in `26 k, 100 / 10`."""
        return f"{self.size}, {self.parties:,} / {self.cohort}"


CASES = (
    Case("26 k", 100, 10, 30, 140, over_pfl=1.5, start=0.5),
    Case("1.2 M", 100, 10, 10, 30),
    Case("26 k", 10_000, 100, 6, 110),
)


class Engine:
    """A process that runs a round on command, and what it said of its rounds."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self.name, self._log = name, log
        self.start = 0.0
        self.seconds: list[float] = []
        self.updates: list[int] = []
        self.cpu: list[float] = []
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True,
                env=environment,
            )  # fmt: skip

    def ready(self) -> None:
        """Waits until all is imported."""
        self._said("ready")

    def begin(self) -> None:
        """The first round."""
        self._command()
        self.start = float(self._said("start")["start"])

    def turn(self) -> None:
        """Another round."""
        before = cpu_seconds(self.process.pid)
        self._command()
        said = self._said("round")
        self.cpu.append(cpu_seconds(self.process.pid) - before)
        self.seconds.append(float(said["round"]))
        self.updates.append(int(said["updates"]))

    def _command(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        assert self.process.stdin is not None
        self.process.stdin.write("round\n")
        self.process.stdin.flush()

    def _said(self, what: str) -> Mapping[str, Any]:
        """The next line of this beginning; the engine stands still after it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(f'{{"{what}"'):
                self.process.send_signal(signal.SIGSTOP)
                return json.loads(line)
        last = (self._log.read_text().splitlines() or ["it said nothing"])[-1]
        raise RuntimeError(f"{self.name} ended with {self.process.wait()}: {last}")

    def end(self) -> None:
        """Ends the process, and those that it started."""
        self.process.send_signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def per_cpu_second(self) -> float:
        """Updates a CPU second, over all counted rounds."""
        return sum(self.updates[UNCOUNTED - 1 :]) / sum(self.cpu[UNCOUNTED - 1 :])

    def speeds(self) -> list[float]:
        """Updates a second of each counted round."""
        pairs = zip(self.updates, self.seconds, strict=True)
        return [updates / seconds for updates, seconds in pairs][UNCOUNTED - 1 :]


def cpu_seconds(root: int) -> float:
    """Of a process and all that descend from it, from clocks that tick 100 times a second."""
    ticks, parents = dict[int, int](), dict[int, int]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended since it was listed
            fields = path.read_text().rpartition(")")[2].split()
            pid = int(path.parent.name)
            parents[pid], ticks[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
    family, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        family, grown = family | more, bool(more)
    return sum(ticks.get(pid, 0) for pid in family) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Prints the table, or the rows as JSON.")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--quick", action="store_true", help="the first case, 6 rounds")
    parser.add_argument("--engines", help="a Python that has pfl-research and Flower with Ray")
    parser.add_argument("--workers", type=int, default=CORES, help="processes of Nacre")
    parser.add_argument("--threads", type=int, nargs="*", default=[1], help="of pfl-research")
    parser.add_argument("--case", type=int, nargs="*", help="numbers of cases, from 0")
    parser.add_argument("--nacre", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # and with it all engines
    torch.set_num_threads(1)
    if asked.nacre:
        nacre(json.loads(asked.nacre))
        return
    chosen = range(len(CASES)) if asked.case is None else asked.case
    cases = [CASES[0]] if asked.quick else [CASES[number] for number in chosen]
    there = found_engines(asked.engines)
    rows: list[Row] = []
    for case in cases:
        rows += measured(case, 6 if asked.quick else case.turns, there, asked)
    show(rows, asked.json)


def found_engines(python: str | None) -> list[str]:
    """Which of the other engines this Python has; says why one is left out."""
    found: list[str] = []
    for name, packages in (("pfl", ["pfl", "torch"]), ("flower", ["flwr", "ray", "torch"])):
        if python is None:
            print(f"{name} is left out: no --engines", file=sys.stderr)
            continue
        asked = (
            "import importlib.metadata as m\n"
            f"print(', '.join(p + ' ' + m.version(p) for p in {packages}))"
        )
        tried = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            found.append(name)
            print(tried.stdout.strip(), file=sys.stderr)
        else:
            said = (tried.stderr.splitlines() or ["no reason given"])[-1]
            print(f"{name} is left out, {python} does not have it: {said}", file=sys.stderr)
    return found


def environment(threads: int = 1) -> dict[str, str]:
    """Of every engine: threads of its own, no telemetry, and this folder to import from."""
    here = str(Path(__file__).parent)
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH")))),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # else any other work of the machine comes before its actors
    }


@contextlib.contextmanager
def started(
    case: Case, turns: int, there: Sequence[str], asked: argparse.Namespace
) -> Generator[list[Engine]]:
    """All engines after their first round; ended on leaving."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        recipe = written(folder, {
            "parties": case.parties, "cohort": case.cohort, "rounds": turns + 1,
            "width": WIDTHS[case.size],
        })  # fmt: skip
        with np.load(folder / "rows.npz") as held:
            for name in "xy":
                np.save(folder / f"{name}.npy", held[name])
        settings: dict[str, Any] = {
            "folder": place, "width": WIDTHS[case.size], "parties": case.parties,
            "cohort": case.cohort, "examples": EXAMPLES, "batch": BATCH, "lr": LR, "cores": CORES,
        }  # fmt: skip
        commands: dict[str, tuple[list[str], int]] = {}
        for workers in sorted({1, asked.workers}):
            recipe["execution"]["workers"] = workers
            own = {"folder": place, "recipe": recipe, "into": f"run-{workers}"}
            commands[f"Nacre, processes: {workers}"] = (
                [sys.executable, __file__, "--nacre", json.dumps(own)], 1,
            )  # fmt: skip
        others = [("bare loop", sys.executable, "bare", 1)]
        if "pfl" in there:
            others += [
                (f"pfl-research, threads: {count}", asked.engines, "pfl", count)
                for count in asked.threads
            ]
        if "flower" in there:
            others.append((f"Flower, actors: {CORES}", asked.engines, "flower", 1))
        for label, python, name, threads in others:
            given = json.dumps({**settings, "threads": threads})
            code = "import engines; engines.main()"
            commands[label] = ([python, "-c", code, name, given], threads)
        engines = [
            Engine(label, command, environment(threads), folder / f"{number}.log")
            for number, (label, (command, threads)) in enumerate(commands.items())
        ]
        try:
            for engine in engines:
                engine.ready()
            for engine in engines:
                engine.begin()
                said = f"{case.words()}, {engine.name}: first round after {engine.start:.2f} s"
                print(said, file=sys.stderr, flush=True)
            yield engines
        finally:
            for engine in engines:
                engine.end()


def measured(case: Case, turns: int, there: Sequence[str], asked: argparse.Namespace) -> list[Row]:
    """The rows of one case."""
    with started(case, turns, there, asked) as engines:
        for turn in range(turns):
            for engine in engines[:: 1 if turn % 2 else -1]:
                engine.turn()
    rows: list[Row] = []
    speeds = {engine.name: engine.speeds() for engine in engines}
    ours = f"Nacre, processes: {asked.workers}"
    for name, found in speeds.items():
        judged = name == ours and asked.workers > 1
        value = statistics.median(found)
        target, holds = (f">= {case.target:g}", value >= case.target) if judged else (None, None)
        rows.append(quartiles(f"updates a second, {case.words()}, {name}", found, target, holds))
    rows += [
        Row(f"updates a CPU second, {case.words()}, {engine.name}", engine.per_cpu_second())
        for engine in engines
    ]
    for name, found in speeds.items():
        if name.startswith("Nacre"):
            continue
        for nacre_name in sorted({"Nacre, processes: 1", ours}):
            ratios = [a / b for a, b in zip(speeds[nacre_name], found, strict=True)]
            most = case.over_pfl if name.startswith("pfl") and nacre_name == ours else None
            holds = None if most is None else statistics.median(ratios) >= most
            rows.append(quartiles(
                f"times as many, {case.words()}, {nacre_name} over {name}", ratios,
                None if most is None else f">= {most:g}", holds,
            ))  # fmt: skip
    for engine in engines:
        most = case.start if engine.name.startswith("Nacre") else None
        rows.append(Row(
            f"seconds to the end of the first round, {case.words()}, {engine.name}", engine.start,
            target=None if most is None else f"<= {most:g}",
            holds=None if most is None else engine.start <= most,
        ))  # fmt: skip
    return rows


def quartiles(
    what: str, values: Sequence[float], target: str | None = None, holds: bool | None = None
) -> Row:
    """The median, with the quartiles as its spread."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Row(what, middle, low, high, target, holds)


def nacre(asked: Mapping[str, Any]) -> None:
    """Nacre's own process: plans and trains through the public door, round by round on command."""
    folder = Path(asked["folder"])
    watch = Turns()
    recipe = loads(json.dumps(asked["recipe"]), "benchmark", folder=folder)
    train(plan(recipe), folder / asked["into"], observe=watch)


class Turns(Silent):
    """Waits for a command after each round."""

    def __init__(self) -> None:
        self._commanded, self._asked = Commanded(), list[int]()
        exchange = OnDemand.exchange

        def counted(
            transport: OnDemand, request: RoundRequest, cohort: Sequence[str]
        ) -> Mapping[str, Reply | bytes]:
            self._asked.append(len(cohort))
            return exchange(transport, request, cohort)

        OnDemand.exchange = counted  # pyright: ignore[reportAttributeAccessIssue]

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None) -> Generator[Advance]:
        """Takes turns in the stage of the rounds."""

        def advance(count: int = 1, note: str = "", total: int | None = None) -> None:
            if name == "rounds" and count:
                self._commanded.ended(self._asked[-1])

        yield advance


if __name__ == "__main__":
    main()

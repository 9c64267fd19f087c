"""One private step against an ordinary one: `python benchmarks/gradients.py [--only ab] [--json]`.

CPU seconds at one thread; the engines take turns in one process, and each round gives one ratio to
the ordinary step (forward, backward, `optimizer.step()`). A private step is the product's own: the
clipped sum, digests of what enters it, secure noise, update. Memory is what a step adds to the
resident set at its peak, each engine in a process of its own, from no gradients and no freed pages.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rows import Row, show
from torch import Tensor, nn
from workloads import NAMES, Work, workload

from nacre.core.random import Source
from nacre.differential_privacy.noise.independent import Gaussian
from nacre.gradient_clipping import BookKeeping, Flat, Ghost, Grouped, Vmapped
from nacre.training.memory import keep_pages, resident
from nacre.training.step import Parts, State, entering, step
from nacre.training.still import Still

TARGETS = {"a": 1.40, "b": 1.15, "c": 1.20, "d": 1.02, "e": 1.15, "f": 1.15}
MEMORY = {"c": 1.45, "e": 1.25}
SUMS = {"bookkeeping": BookKeeping, "grouped": Grouped, "ghost": Ghost, "vmapped": Vmapped}
RIVALS = "bo"  # Opacus trains no stock BERT: o has the sizes of c, in layers that it knows
VMAPPED = "a"  # b takes 200 times as long; transformers' masks cannot be mapped


class _Drawn:
    """All units of one batch, at every step."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __len__(self) -> int:
        return self._work.units

    def numbers(self, indices: Tensor) -> Tensor:
        return self._work.batch["unit"][indices]

    def micro(self, indices: Tensor, size: int | None):
        """The batch, as the product hands it on."""
        yield self._work.batch


class _Everyone:
    """Every unit, every step: so that all engines see the same rows."""

    def __init__(self, units: int) -> None:
        self.expected = float(units)

    def draw(self, units: int, number: int, source: Source, entered: bytes) -> Tensor:
        """(units,) indices"""
        return torch.arange(units)


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)


def ordinary(work: Work) -> Callable[[], None]:
    """Forward, backward, update."""
    optimizer = _optimizer(work.model)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        work.losses(work.model, work.batch).mean().backward()
        optimizer.step()

    return run


def private(work: Work, kind: Any, verify: str = "never") -> Callable[[], None]:
    """A step as the product takes it."""
    optimizer = _optimizer(work.model)
    sums = kind(work) if kind is Vmapped else kind(work, verify=verify)
    parts = Parts(
        sampling=_Everyone(work.units), sums=lambda number: sums,
        noise=Gaussian(multiplier=1.0), adjacency="add_or_remove",
    )  # fmt: skip
    source, over = Source(bytes(32)), _Drawn(work)
    state = State(work.model, optimizer, Flat(norm=1.0))

    def run() -> None:
        nonlocal state
        still = Still.of(state.model, optimizer, source)
        before = entering(state, source, b"", still)
        state, _ = step(state, over, parts, source, before, still)

    return run


def opacus(name: str, work: Work, mode: str) -> Callable[[], None]:
    """Opacus 1.6 on a copy of the model of b or o: hooks, or ghost clipping."""
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    model = workload(name).model.train()
    data = DataLoader(TensorDataset(work.batch["features"]), batch_size=work.units)
    criterion = nn.CrossEntropyLoss(reduction="mean")
    made = PrivacyEngine().make_private(
        module=model, optimizer=_optimizer(model), data_loader=data, criterion=criterion,
        noise_multiplier=1.0, max_grad_norm=1.0, poisson_sampling=False, grad_sample_mode=mode,
    )  # fmt: skip
    model, optimizer = made[0], made[1]
    criterion = made[2] if mode == "ghost" else criterion

    def run() -> None:
        optimizer.zero_grad()
        criterion(model(work.batch["features"]), work.batch["label"]).backward()
        optimizer.step()

    return run


def timed(name: str, rounds: int, engines: list[str]) -> list[Row]:
    """The ratio of each engine to the ordinary step."""
    work = workload(name)
    runs = {"ordinary": ordinary(work)}
    for engine in engines:
        if engine.startswith("opacus"):
            runs[engine] = opacus(name, work, engine.split()[1])
        else:
            runs[engine] = private(work, SUMS[engine])
    seconds = in_turn(runs, rounds)
    base = seconds.pop("ordinary")
    found = [Row(f"{NAMES[name]}: ordinary, ms", 1e3 * statistics.median(base))]
    medians: dict[str, float] = {}
    for engine, values in seconds.items():
        ratios = sorted(v / b for v, b in zip(values, base, strict=True))
        medians[engine] = statistics.median(ratios)
        target = TARGETS.get(name) if engine == "bookkeeping" else None
        found.append(_quartiles(f"{NAMES[name]}: {engine}, x ordinary", ratios, target))
    rivals = [m for engine, m in medians.items() if engine.startswith("opacus")]
    if rivals:
        faster = min(rivals) / medians["bookkeeping"]
        what = f"{NAMES[name]}: Opacus' best / bookkeeping"
        found.append(Row(what, faster, target=">= 1.7", holds=faster >= 1.7))
    return found


def in_turn(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each engine in each round; they take turns."""
    seconds: dict[str, list[float]] = {engine: [] for engine in runs}
    for number in range(rounds + 1):
        for engine, run in runs.items():
            start = time.process_time()
            run()
            if number:  # the first round warms up
                seconds[engine].append(time.process_time() - start)
    return seconds


def _quartiles(what: str, values: list[float], target: float | None) -> Row:
    median = statistics.median(values)
    quarter = len(values) // 4
    low, high = values[quarter], values[-1 - quarter]
    if target is None:
        return Row(what, median, low, high)
    return Row(what, median, low, high, f"<= {target:g}", median <= target)


def memory(name: str) -> list[Row]:
    """The peak of a step over what was resident before it, against the ordinary step's.

    Of its tensors: every block of memory is a mapping of its own, so that what is resident is what
    tensors need. And as the product runs, where freed blocks stay with the process and break into
    pieces.
    """
    found: list[Row] = []
    for what, pages in (("memory", "mapped"), ("resident, pages kept,", "kept")):
        base = _peak(name, "ordinary", pages)
        for engine in ("bookkeeping", "grouped", "ghost"):
            ratio = _peak(name, engine, pages) / base
            asked = engine == "bookkeeping" and pages == "mapped"
            found.append(
                Row(
                    f"{NAMES[name]}: {what} of {engine}, x ordinary",
                    ratio,
                    target=f"<= {MEMORY[name]:g}" if asked else None,
                    holds=ratio <= MEMORY[name] if asked else None,
                )
            )
    return found


def _peak(name: str, engine: str, pages: str) -> float:
    command = [sys.executable, __file__, "--peak", name, engine, pages]
    mapped = {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536"} if pages == "mapped" else {}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | mapped
    )
    return float(done.stdout.strip().splitlines()[-1])


def _measure_peak(name: str, engine: str, pages: str) -> None:
    if pages == "kept":
        keep_pages()  # as `nacre train` does
    work = workload(name)
    run = ordinary(work) if engine == "ordinary" else private(work, SUMS[engine])
    run()  # libraries are loaded, owners are learnt
    peaks: list[float] = []
    for _ in range(3):
        work.model.zero_grad(set_to_none=True)  # or the ordinary step would free them in its favour
        ctypes.CDLL(None).malloc_trim(0)  # or a step would fit into pages that the last one left
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew, from what is held
        before = resident()
        run()
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        peaks.append(int(peak) * 1024 - before)
    print(statistics.median(peaks))


def curves(rounds: int) -> list[Row]:
    """How a book-keeping step grows with the batch and with the length, and what a process that
    takes many steps holds.

    Attention grows with the square of the length in every step, so a length is held against the
    ordinary step of that length.
    """
    batches = {units: _cost("c", units, 64, rounds) for units in (8, 16, 32, 64)}
    lengths = {places: _cost("c", 4, places, rounds) for places in (64, 128, 256, 512)}
    found = [
        Row(f"{NAMES['c']}: {what} {size}, {unit}", value)
        for what, costs in (("T 64, batch", batches), ("batch 4, T", lengths))
        for size, (seconds, ratio) in costs.items()
        for unit, value in (("ms", 1e3 * seconds), ("x ordinary", ratio))
    ]
    linear = batches[64][0] / 64 / (batches[16][0] / 16)
    what = f"{NAMES['c']}: cost of a unit, batch 64 / batch 16"
    found.append(Row(what, linear, target="<= 1.05", holds=linear <= 1.05))
    longer = lengths[512][1] / lengths[64][1]
    what = f"{NAMES['c']}: x ordinary, T 512 / T 64"
    found.append(Row(what, longer, target="<= 1.1", holds=longer <= 1.1))
    for name, few, many in (("b", 20, 520), ("e", 5, 55)):
        grown = _flat(name, few, many)
        short = NAMES[name].split(",")[0]
        what = f"{short}, batch 4: memory after {many} steps / after {few}"
        found.append(Row(what, grown, target="<= 1.02", holds=grown <= 1.02))
    return found


def _cost(name: str, units: int, places: int, rounds: int) -> tuple[float, float]:
    """Seconds of a book-keeping step, and how many ordinary ones that is."""
    work = workload(name, units, places)
    seconds = in_turn(
        {"ordinary": ordinary(work), "bookkeeping": private(work, BookKeeping)}, rounds
    )
    own, base = seconds["bookkeeping"], seconds["ordinary"]
    ratio = statistics.median(v / b for v, b in zip(own, base, strict=True))
    return statistics.median(own), ratio


def _flat(name: str, few: int, many: int) -> float:
    """What the process holds after many steps, over what it held after a few."""
    run = private(workload(name, batch=4), BookKeeping)
    for _ in range(few):
        run()
    before = resident()
    for _ in range(many - few):
        run()
    return resident() / before


def main() -> None:
    """Reads the command line and prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="abcdefo", help="workloads, as `ab`")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="book-keeping alone, three rounds")
    parser.add_argument(
        "--curves", action="store_true", help="growth with batch, length and steps too"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.peak:
        _measure_peak(*options.peak)
        return
    keep_pages()  # as `nacre train` does: for all engines alike
    found: list[Row] = []
    for name in options.only:
        engines = [e for e in SUMS if e != "vmapped" or name in VMAPPED]
        if name in RIVALS:
            engines += ["opacus hooks", "opacus ghost"]
        if options.quick:
            engines = ["bookkeeping"]
        found += timed(name, 3 if options.quick else options.rounds, engines)
        if name in MEMORY and not options.quick:
            found += memory(name)
    if options.curves:
        found += curves(options.rounds)
    show(found, options.json)


if __name__ == "__main__":
    main()
